from __future__ import annotations

import math
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from guardreasoner_moderation.engines.base import Engine, Sampling, SlotWatcher, first_tokens, score_words
from guardreasoner_moderation.engines.encoding import SpanEncoder
from guardreasoner_moderation.engines.scripted import ScriptedEngine
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.prompts import Prompt, Span


@pytest.fixture(scope="module")
def encoder() -> SpanEncoder:
    """One token a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return SpanEncoder(tokenizer)


def test_the_scripted_engine_keeps_the_protocol() -> None:
    assert isinstance(ScriptedEngine(lambda prompt: ""), Engine)


def watch(encoder: SpanEncoder, prompt: Prompt, text: str) -> list[tuple[int, str]]:
    ids = encoder.encode_text(text)
    watcher = SlotWatcher(prompt, {"Request:": {}, "Response:": {}}, encoder.decode)
    return [(n, heading) for n in range(len(ids) + 1) if (heading := watcher.heading_at(ids[:n])) is not None]


def test_a_slot_is_seen_at_the_end_of_its_heading(encoder: SpanEncoder) -> None:
    assert watch(encoder, Prompt((Span("x"),)), "\nRequest: a\nResponse: b") == [(9, "Request:"), (21, "Response:")]


def test_a_prompt_may_end_with_the_heading(encoder: SpanEncoder) -> None:
    assert watch(encoder, Prompt((Span("Answers:\nRequest:"),)), " a") == [(0, "Request:")]


def test_an_untrusted_heading_at_the_end_of_the_prompt_is_no_slot(encoder: SpanEncoder) -> None:
    assert watch(encoder, Prompt((Span("x"), Span("\nRequest:", trusted=False))), " a") == []


def test_a_heading_in_the_midst_of_a_line_is_no_slot(encoder: SpanEncoder) -> None:
    assert watch(encoder, Prompt((Span("x\n"),)), "the Request: a") == []


def ending(encoder: SpanEncoder, text: str) -> tuple[str | None, bool, str]:
    """What a watcher says of ``text`` written after a prompt, where the word "b" is the last that is needed."""
    firsts = {"Request:": {word: encoder.encode_text(word)[0] for word in "ab"}}
    watcher = SlotWatcher(Prompt((Span("Answers:\nRequest:"),)), firsts, encoder.decode, {"Request:": ("b",)})
    ids = encoder.encode_text(text)
    return watcher.last_word(ids), watcher.is_over(ids), watcher.text(ids)


def test_a_last_word_ends_the_text_as_soon_as_it_begins(encoder: SpanEncoder) -> None:
    assert ending(encoder, "b") == ("b", True, " b")


def test_another_word_of_the_slot_ends_nothing(encoder: SpanEncoder) -> None:
    assert ending(encoder, "a") == (None, False, "a")


def test_a_last_word_outside_its_slot_ends_nothing(encoder: SpanEncoder) -> None:
    assert ending(encoder, "ab") == (None, False, "ab")


def test_nothing_written_ends_nothing(encoder: SpanEncoder) -> None:
    assert ending(encoder, "") == (None, False, "")


def test_another_token_than_a_word_of_the_slot_at_the_end_of_the_prompt_ends_the_text(encoder: SpanEncoder) -> None:
    assert ending(encoder, "c") == (None, True, "c")
    assert ending(encoder, "ac") == (None, False, "ac")


def test_first_tokens_stand_after_a_space(encoder: SpanEncoder) -> None:
    space = encoder.encode_text(" ")[0]
    assert first_tokens(encoder, {"Request:": ("harmful", "unharmful")}) == {
        "Request:": {"harmful": space, "unharmful": space}
    }


def test_words_are_told_apart_at_each_parting(encoder: SpanEncoder) -> None:
    """A word that begins another is told apart by the line's end."""
    words = ("privacy", "privacy_org", "other")
    read_at: list[tuple[int, ...]] = []

    def read(points: list[tuple[int, tuple[int, ...]]]) -> list[list[float]]:
        read_at.extend(prefix for _, prefix in points)
        return [[math.log(1 / 256)] * 256 for _ in points]

    (scores,) = score_words(encoder, [words], read)
    assert [encoder.decode(list(prefix)) for prefix in read_at] == [" ", " privacy"]
    assert scores["other"] == pytest.approx(math.log(1 / 256))
    assert scores["privacy"] == scores["privacy_org"] == pytest.approx(2 * math.log(1 / 256))


def test_a_word_alone_is_certain(encoder: SpanEncoder) -> None:
    assert score_words(encoder, [("other",)], lambda points: []) == [{"other": 0.0}]


@pytest.mark.parametrize(
    "numbers",
    [{"temperature": 0}, {"temperature": math.nan}, {"top_p": 0}, {"top_p": 1.1}, {"seed": -1}],
)
def test_sampling_out_of_range_is_an_input_error(numbers: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(numbers))} must be"):
        Sampling(**numbers)
