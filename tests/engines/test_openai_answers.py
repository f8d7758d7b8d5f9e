from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardreasoner_moderation.engines.openai_answers import (
    CERTAIN,
    Step,
    read_slots,
    read_steps,
    read_words,
    steps_of_text,
)
from guardreasoner_moderation.verdicts import SLOTS

LABELS = ["harmful", "unharmful"]
KINDS = ["privacy_individual", "privacy_organization", "cyberattack", "other"]


def step(piece: str, **shares: float) -> Step:
    """A token, and the probabilities at its place; an underscore at the front of a key is a space."""
    return Step(piece, {key.replace("_", " ", 1): math.log(share) for key, share in shares.items()})


def test_both_formats_of_log_probabilities_are_read() -> None:
    lists = {
        "tokens": [" unh", "armful"],
        "token_logprobs": [-0.1, -0.01],
        "top_logprobs": [{" unh": -0.1, " harmful": -2.5}, None],
    }
    objects = [
        {"token": " unh", "logprob": -0.1, "top_logprobs": [{"token": " harmful", "logprob": -2.5}]},
        {"token": "armful", "logprob": -0.01, "top_logprobs": []},
    ]
    expected = [Step(" unh", {" unh": -0.1, " harmful": -2.5}), Step("armful", {"armful": -0.01})]
    assert read_steps({"logprobs": lists}) == expected
    assert read_steps({"logprobs": {"content": objects}}) == expected
    assert read_steps({"logprobs": None}) == read_steps({}) == []


def test_a_vocabularys_own_signs_are_spaces_and_line_ends() -> None:
    content = [{"token": "Ġharmful", "logprob": -0.1, "top_logprobs": [{"token": "▁unharmful", "logprob": -3}]}]
    assert read_steps({"logprobs": {"content": content}}) == [Step(" harmful", {" unharmful": -3, " harmful": -0.1})]


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.5, None, "-0.1"])
def test_what_is_no_log_probability_is_an_error(value: Any) -> None:
    content = [{"token": " harmful", "logprob": value, "top_logprobs": []}]
    with pytest.raises((TypeError, ValueError)):
        read_steps({"logprobs": {"content": content}})


@pytest.mark.parametrize("value", [-math.inf, -9999.0])
def test_an_impossible_word_stays_a_number(value: float) -> None:
    content = [{"token": " harmful", "logprob": 0.0, "top_logprobs": [{"token": " unh", "logprob": value}]}]
    reading = read_words(read_steps({"logprobs": {"content": content}}), LABELS)
    assert reading == {"harmful": 0.0, "unharmful": -100.0}


def test_each_token_that_begins_a_word_speaks_for_it() -> None:
    reading = read_words([step(" unh", _unh=0.5, _un=0.1, _harmful=0.2, _dangerous=0.1)], LABELS)
    assert reading is not None
    assert reading["unharmful"] == pytest.approx(math.log(0.6))
    assert reading["harmful"] == pytest.approx(math.log(0.2))


def test_a_space_may_be_a_token_of_its_own() -> None:
    steps = [Step(" ", {" ": -0.01, " h": -9}), step("harmful", harmful=0.9, unharmful=0.1)]
    assert read_words(steps, LABELS) == pytest.approx({"harmful": math.log(0.9), "unharmful": math.log(0.1)})


def test_a_word_beyond_the_likeliest_tokens_is_as_likely_as_it_can_be() -> None:
    least = read_words([step(" harmful", _harmful=0.9, _dangerous=0.04)], LABELS)
    assert least is not None
    assert least["unharmful"] == pytest.approx(math.log(0.04))
    rest = read_words([step(" harmful", _harmful=0.9, _dangerous=0.09)], LABELS)
    assert rest is not None
    assert rest["unharmful"] == pytest.approx(math.log(0.01))


@pytest.mark.parametrize("steps", [[], [step(" maybe", _maybe=0.9, _no=0.1)], [step("\n", **{"\n": 0.9})]])
def test_no_reading_without_any_of_the_words(steps: list[Step]) -> None:
    assert read_words(steps, LABELS) is None


def test_the_words_are_read_where_another_token_was_written() -> None:
    reading = read_words([step(" maybe", _maybe=0.5, _harmful=0.3, _unh=0.2)], LABELS)
    assert reading == pytest.approx({"harmful": math.log(0.3), "unharmful": math.log(0.2)})


def test_words_that_begin_alike_are_told_apart_where_they_part() -> None:
    steps = [
        step(" privacy", _privacy=0.8, _cyber=0.1, _other=0.05),
        step("_", _=1.0),
        Step("organ", {"organ": math.log(0.7), "ind": math.log(0.3)}),
        step("ization", ization=1.0),
    ]
    reading = read_words(steps, KINDS)
    assert reading is not None
    assert reading["privacy_organization"] == pytest.approx(math.log(0.8 * 0.7))
    assert reading["privacy_individual"] == pytest.approx(math.log(0.8 * 0.3))
    assert reading["cyberattack"] == pytest.approx(math.log(0.1))


@pytest.mark.parametrize("ending", [[], [step("\n", **{"\n": 0.9, "_": 0.1})], [step(".", **{".": 1.0})]])
def test_a_word_that_begins_another_is_told_by_its_end(ending: list[Step]) -> None:
    reading = read_words([step(" privacy", _privacy=1.0), *ending], ["privacy", "privacy_other"])
    assert reading is not None
    assert reading["privacy"] > reading["privacy_other"]


def test_a_word_alone_is_certain() -> None:
    assert read_words([], ["other"]) == {"other": 0.0}


def test_slots_are_read_at_their_last_occurrence_at_the_start_of_a_line() -> None:
    text = " harmful\nThe Response: harmful\nResponse: unharmful\nResponse: harmful"
    readings = read_slots(steps_of_text(text), "Answers:\nRequest:", SLOTS)
    assert set(readings) == {"Request:", "Response:"}
    assert readings["Request:"]["harmful"] > readings["Request:"]["unharmful"]
    assert readings["Response:"]["harmful"] > readings["Response:"]["unharmful"]


def test_text_alone_is_read_as_certain() -> None:
    reading = read_words(steps_of_text(" **Unharmful**, I think"), LABELS)
    assert reading == {"unharmful": 0.0, "harmful": pytest.approx(math.log(CERTAIN))}


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_can_be_read(text: str) -> None:
    read_slots(steps_of_text(f"Request: {text}"), "", SLOTS)
    reading = read_words(steps_of_text(text), LABELS)
    assert reading is None or text.strip(" *_`\"'.,\t\n\r").lower().startswith(("h", "u")) or len(reading) == 2
