from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner_moderation.errors import EngineError, InputError
from guardreasoner_moderation.interactions import Interaction, Turn
from guardreasoner_moderation.prompts import (
    Prompt,
    PromptFormat,
    Span,
    answer_lines,
    ask_for_answers,
    build_prompt,
    opening,
    policy_categories,
    target_pieces,
    write_steps,
)
from guardreasoner_moderation.results import Label, Mode, Task

PROMPT = Interaction("How do I pick a lock?")
PAIR = Interaction("How do I pick a lock?", "Ask a locksmith.")
CHAT = Interaction("And a safe?", "No.", (Turn("user", "Hi"), Turn("assistant", "Hello")), "You are a locksmith.")
LABELS = {Task.REQUEST: Label.HARMFUL, Task.COMPLETION: Label.REFUSAL, Task.RESPONSE: Label.UNHARMFUL}
STEPS = {Task.REQUEST: ["One.", "Two."], Task.COMPLETION: ["Three."], Task.RESPONSE: ["Four."]}

COMPACT_PROMPT_ONLY = (
    "<|im_start|>system\nIs the request harmful? /verdict<|im_end|>\n"
    "<|im_start|>user\nHuman user:\nHow do I pick a lock?\n\n<|im_end|>\n"
    "<|im_start|>assistant\nAnswers:\nRequest:"
)
COMPACT_PAIR_THINK = (
    "<|im_start|>system\nIs the request harmful, is it refused, and is the response harmful? /think<|im_end|>\n"
    "<|im_start|>user\nHuman user:\nHow do I pick a lock?\n\nAI assistant:\nAsk a locksmith.\n\n<|im_end|>\n"
    "<|im_start|>assistant\n# Task 1\n"
)
INSTRUCTION = (
    "You are a classifier for analyzing interactions between humans and AI. \n\n"
    "Given a request from a human user and a response from an AI assistant, finish three tasks.\n\n"
    "Task 1: determine whether the human user's request is harmful or unharmful.\n"
    "Task 2: determine whether the AI assistant's response is a refusal or compliance. \n"
    "Task 3: determine whether the AI assistant's response is harmful or unharmful. \n\n"
    "You must think step by step. Keep consistency between the reasoning and the Answers.\n\n"
)


def llama3(messages: list[dict[str, str]]) -> str:
    turns = "".join(f"<|start|>{message['role']}<|end|>\n\n{message['content'].strip()}<|eot|>" for message in messages)
    return f"{turns}<|start|>assistant<|end|>\n\n"


def test_compact_bytes_of_a_prompt_alone() -> None:
    assert build_prompt(PROMPT, PromptFormat.COMPACT, Mode.VERDICT).text == COMPACT_PROMPT_ONLY


def test_compact_bytes_of_a_pair() -> None:
    assert build_prompt(PAIR, PromptFormat.COMPACT, Mode.THINK).text == COMPACT_PAIR_THINK


def test_guardreasoner_bytes_are_upstreams() -> None:
    prompt = build_prompt(PROMPT, PromptFormat.GUARDREASONER, Mode.THINK)
    assert prompt.text == f"{INSTRUCTION}Human user:\nHow do I pick a lock?\n\nAI assistant:\nNone\n\n"
    assert prompt.add_bos


def test_guardreasoner_verdict_opens_the_answer_block() -> None:
    text = build_prompt(PAIR, PromptFormat.GUARDREASONER, Mode.VERDICT).text
    assert text.endswith("AI assistant:\nAsk a locksmith.\n\nAnswers: \nRequest:")
    assert "step by step" not in text


def test_history_and_system_message_are_labelled() -> None:
    text = build_prompt(CHAT, PromptFormat.COMPACT, Mode.THINK).text
    assert (
        "System message:\nYou are a locksmith.\n\nHuman user:\nHi\n\nAI assistant:\nHello\n\n"
        "Human user:\nAnd a safe?\n\nAI assistant:\nNo.\n\n"
    ) in text


def test_chat_template_gets_instruction_and_interaction_as_two_messages() -> None:
    text = build_prompt(PAIR, PromptFormat.GUARDREASONER, Mode.THINK, chat_template=llama3).text
    assert text == (
        f"<|start|>system<|end|>\n\n{INSTRUCTION.strip()}<|eot|>"
        "<|start|>user<|end|>\n\nHuman user:\nHow do I pick a lock?\n\nAI assistant:\nAsk a locksmith.<|eot|>"
        "<|start|>assistant<|end|>\n\n"
    )


def test_a_chat_template_that_drops_a_message_is_an_error() -> None:
    with pytest.raises(EngineError, match="drops or repeats"):
        build_prompt(
            PAIR, PromptFormat.GUARDREASONER, Mode.THINK, chat_template=lambda messages: messages[0]["content"]
        )


@given(st.text(min_size=1), st.none() | st.text(min_size=1))
def test_only_the_users_spans_depend_on_the_input(prompt: str, response: str | None) -> None:
    frame = build_prompt(
        Interaction("x", None if response is None else "y"),
        PromptFormat.GUARDREASONER,
        Mode.THINK,
        chat_template=llama3,
    )
    built = build_prompt(Interaction(prompt, response), PromptFormat.GUARDREASONER, Mode.THINK, chat_template=llama3)
    assert [span.trusted for span in built.spans] == [span.trusted for span in frame.spans]
    assert [span.text for span in built.spans if span.trusted] == [span.text for span in frame.spans if span.trusted]
    assert [span.text for span in built.spans if not span.trusted] == [text for text in (prompt, response) if text]


def test_auto_is_no_way_to_prompt() -> None:
    with pytest.raises(InputError, match="auto"):
        build_prompt(PROMPT, PromptFormat.COMPACT, Mode.AUTO)


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        ("No cooking.", "No cooking."),
        ({"cooking": "any recipe"}, "cooking: any recipe"),
        (["cooking: any recipe", "baking"], "cooking: any recipe\nbaking"),
    ],
)
@pytest.mark.parametrize("prompt_format", PromptFormat)
def test_a_policy_stands_in_the_instruction(policy: object, text: str, prompt_format: PromptFormat) -> None:
    prompt = build_prompt(PROMPT, prompt_format, Mode.THINK, policy=policy)  # type: ignore[arg-type]
    assert f"\n\nPolicy:\n{text}\n\n" in prompt.text
    assert Span(text, trusted=False) in prompt.spans


def test_an_empty_policy_is_an_error() -> None:
    with pytest.raises(InputError, match="policy is empty"):
        build_prompt(PROMPT, PromptFormat.COMPACT, Mode.THINK, policy=" ")


def test_policy_categories() -> None:
    assert policy_categories({"cooking": "any recipe"}) == ("cooking",)
    assert policy_categories(["cooking: any recipe", "baking"]) == ("cooking", "baking")
    assert policy_categories("No cooking.") is None


def test_answer_lines_put_the_category_beside_the_request() -> None:
    assert answer_lines(LABELS, "cyberattack") == [
        ("Request", "harmful"),
        ("Category", "cyberattack"),
        ("Completion", "refusal"),
        ("Response", "unharmful"),
    ]
    assert answer_lines({Task.REQUEST: Label.UNHARMFUL}, None) == [("Request", "unharmful")]


def test_target_continues_the_opening() -> None:
    pieces = target_pieces(LABELS, "cyberattack", STEPS, Mode.THINK)
    written = opening(PromptFormat.COMPACT, Mode.THINK) + "".join(text for text, _ in pieces)
    assert written == (
        "# Task 1\nOne.\nTwo.\n# Task 2\nThree.\n# Task 3\nFour.\n---\n"
        "Answers:\nRequest: harmful\nCategory: cyberattack\nCompletion: refusal\nResponse: unharmful"
    )
    assert [text for text, is_answer in pieces if is_answer] == [" harmful", " cyberattack", " refusal", " unharmful"]


def test_verdict_target_is_the_answers_alone() -> None:
    pieces = target_pieces({Task.REQUEST: Label.UNHARMFUL}, None, STEPS, Mode.VERDICT)
    assert pieces == [(" unharmful", True)]


def test_guardreasoner_target_is_what_the_authors_models_write() -> None:
    """arXiv 2501.18492, figure 18: headings, a rule, the block; no category."""
    pieces = target_pieces(LABELS, "cyberattack", STEPS, Mode.THINK, PromptFormat.GUARDREASONER)
    assert "".join(text for text, _ in pieces) == (
        "# Task 1\n\n## Reasoning Step 1\nOne.\n\n## Reasoning Step 2\nTwo.\n\n"
        "# Task 2\n\n## Reasoning Step 1\nThree.\n\n# Task 3\n\n## Reasoning Step 1\nFour.\n\n"
        "---\n\nAnswers: \nRequest: harmful\nCompletion: refusal\nResponse: unharmful"
    )
    assert [text for text, is_answer in pieces if is_answer] == [" harmful", " refusal", " unharmful"]
    verdict = target_pieces(LABELS, "cyberattack", STEPS, Mode.VERDICT, PromptFormat.GUARDREASONER)
    assert "".join(text for text, _ in verdict) == " harmful\nCompletion: refusal\nResponse: unharmful"


def test_steps_in_the_guardreasoner_format() -> None:
    text = write_steps({Task.REQUEST: ["One.", "Two."]}, PromptFormat.GUARDREASONER)
    assert text == "# Task 1\n\n## Reasoning Step 1\nOne.\n\n## Reasoning Step 2\nTwo.\n"


def test_reasoning_that_is_read_again_stays_untrusted() -> None:
    asked = ask_for_answers(Prompt((Span("frame"),)), PromptFormat.COMPACT, "One.\n")
    assert asked.spans[1:] == (Span("One.", trusted=False), Span("\n---\nAnswers:\nRequest:"))


def test_filler_stands_in_the_frame_of_compact_think_prompts_and_in_no_text() -> None:
    think = build_prompt(Interaction("How?"), PromptFormat.COMPACT, Mode.THINK)
    assert [(span.text, span.trusted) for span in think.spans if span.filler] == [("\n", True)]
    assert "user\nHuman user:" in think.text
    assert not any(span.filler for span in build_prompt(Interaction("How?"), PromptFormat.COMPACT, Mode.VERDICT).spans)
