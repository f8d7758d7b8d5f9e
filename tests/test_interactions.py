from __future__ import annotations

import copy
from typing import Any

import pytest

from guardreasoner_moderation import InputError, Interaction, Turn
from guardreasoner_moderation.interactions import from_messages, to_interaction

USER = {"role": "user", "content": "How do I sharpen a knife?"}
ASSISTANT = {"role": "assistant", "content": "With a whetstone, at a steady angle."}


@pytest.mark.parametrize(
    ("item", "interaction"),
    [
        ("hello", Interaction("hello")),
        (("hello", "hi"), Interaction("hello", "hi")),
        (["hello", None], Interaction("hello")),
        ({"prompt": "hello"}, Interaction("hello")),
        ({"prompt": "hello", "response": "hi", "system": "be kind"}, Interaction("hello", "hi", (), "be kind")),
        ([USER], Interaction(USER["content"])),
        ({"messages": [USER, ASSISTANT]}, Interaction(USER["content"], ASSISTANT["content"])),
        (Interaction("hello"), Interaction("hello")),
    ],
)
def test_accepted_shapes(item: Any, interaction: Interaction) -> None:
    before = copy.deepcopy(item)
    assert to_interaction(item) == interaction
    assert item == before


def test_a_conversation_keeps_its_history_and_its_system_messages_apart() -> None:
    messages = [
        {"role": "system", "content": "You sell knives."},
        USER,
        ASSISTANT,
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "And scissors?"},
        {"role": "user", "content": "Old ones."},
        {"role": "assistant", "content": "The same way."},
    ]
    assert from_messages(messages) == Interaction(
        prompt="And scissors?\n\nOld ones.",
        response="The same way.",
        history=(Turn("user", USER["content"]), Turn("assistant", ASSISTANT["content"])),
        system="You sell knives.\n\nBe brief.",
    )


def test_an_open_last_turn_has_no_response() -> None:
    assert from_messages([USER, ASSISTANT, USER]).response is None


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert from_messages([{"role": "user", "content": parts}]).prompt == "one\ntwo"


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (None, "found None"),
        (7, "found int"),
        (b"bytes", "found bytes"),
        ("", "the prompt is empty"),
        (" \n\t", "the prompt is empty"),
        (("hello", ""), "the response is empty"),
        (("hello", 3), "the response must be text, found int"),
        (("a", "b", "c"), "found 3 elements"),
        ({}, "needs a 'prompt'"),
        ({"promt": "hello"}, "did you mean 'prompt'"),
        ({"messages": [USER], "prompt": "x"}, "takes no other key"),
        ({"messages": "hello"}, "must be a list of chat messages"),
        ({"messages": ["hello"]}, "every chat message must be a dict"),
        ({"messages": []}, "no user message"),
        ({"messages": None}, "messages must be a list of chat messages, found None"),
        ({"p" * 10_000_000: "x"}, r"unknown key 'p{1,80}\.\.\.p+'"),
        (Interaction("x", None, None), "the history of an interaction must be a tuple of Turns"),  # type: ignore[arg-type]
        (Interaction("x", None, ("a",)), "the history of an interaction must be a tuple of Turns"),  # type: ignore[arg-type]
        (Interaction("x", None, (Turn("root", "a"),)), "has the role 'root'; it must be 'user' or 'assistant'"),
        ([ASSISTANT], "no user message"),
        ([{"role": "usr", "content": "x"}], "did you mean 'user'"),
        ([{"role": 10**5000, "content": "x"}], "the role a value of type int that is too large to show"),
        ([{"content": "x"}], "the role None"),
        ([{"role": "user"}], "a content of None"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "content part that is not text"),
        ("half \ud83d of a pair", "lone surrogate"),
    ],
)
def test_bad_items_are_input_errors(item: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        to_interaction(item)


@pytest.mark.parametrize("messages", [None, "hello", b"hello", 7, {"role": "user"}, [7], ["hello"], [None]])
def test_what_is_no_list_of_messages_is_an_input_error(messages: Any) -> None:
    with pytest.raises(InputError, match=r"messages must be a list|every chat message must be a dict"):
        from_messages(messages)
