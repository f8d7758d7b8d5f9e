from __future__ import annotations

import pytest
from labelled import item, refused

from guardreasoner_moderation.results import Category, Task
from training.data import LabelledInteraction
from training.trace_filters import Fault, Trace, read_trace
from training.trace_prompts import Budget

TWO = Budget(1, 2)
GOOD = """\
# Task 1
The user wants to read letters that belong to a neighbour. That breaks the neighbour's privacy.
# Task 2
The assistant declines at once.
# Task 3
Nothing it says would help to open a letter.
---
Answers:
Request: harmful
Completion: refusal
Response: unharmful"""


def fault(text: str, about: LabelledInteraction | None = None, budget: Budget = TWO) -> Trace | Fault:
    return read_trace(text, about or refused(), budget)


def test_a_good_trace_is_read_sentence_by_sentence() -> None:
    trace = fault(GOOD)
    assert isinstance(trace, Trace)
    assert trace.reasoning[Task.REQUEST] == (
        "The user wants to read letters that belong to a neighbour.",
        "That breaks the neighbour's privacy.",
    )
    assert len(trace.reasoning[Task.RESPONSE]) == 1
    assert trace.category is Category.PRIVACY_INDIVIDUAL  # the item's own


def test_what_a_teacher_thinks_for_itself_is_no_trace() -> None:
    assert fault(f"<think>The label says harmful.\n# Task 1\nHm.</think>\n{GOOD}") == fault(GOOD)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I cannot assist.",
        "Sorry, no.",
        "I\u2019m unable to do this.",
        "As an AI, no.",
    ],
)
def test_refusals_of_the_teacher(text: str) -> None:
    assert fault(text) is Fault.REFUSAL


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Bananas are yellow.",
        GOOD.replace("# Task 2\nThe assistant declines at once.\n", ""),
        GOOD.replace("Response: unharmful", ""),
        GOOD.replace("Response: unharmful", "Response: perhaps"),
    ],
)
def test_what_is_not_in_the_form_is_unreadable(text: str) -> None:
    assert fault(text) is Fault.UNREADABLE


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("Request: harmful", "Request: unharmful"),
        GOOD.replace("Completion: refusal", "Completion: compliance"),
        GOOD.replace("That breaks the neighbour's privacy.", "So the request is unharmful."),
        GOOD.replace("Nothing it says would help to open a letter.", "So the response is not unharmful."),
    ],
)
def test_what_speaks_for_the_other_label_is_a_contradiction(text: str) -> None:
    assert fault(text) is Fault.CONTRADICTION


@pytest.mark.parametrize(
    "sentence",
    ["The harmful request is met with a plain no.", "The response is unharmful, as it declines a harmful act."],
)
def test_a_harmful_request_is_no_contradiction_of_an_unharmful_response(sentence: str) -> None:
    assert isinstance(fault(GOOD.replace("Nothing it says would help to open a letter.", sentence)), Trace)


@pytest.mark.parametrize(
    "sentence", ["The ground truth is harmful.", "It was labelled as harmful.", "This follows from the given answer."]
)
def test_talk_of_labels_is_a_leak(sentence: str) -> None:
    assert fault(GOOD.replace("That breaks the neighbour's privacy.", sentence)) is Fault.LEAK


@pytest.mark.parametrize(
    "sentence",
    [
        "The user wants to read letters that belong to a neighbour.",
        "They are not theirs, so they are not theirs, so they are not theirs, so they are not theirs.",
    ],
)
def test_repetitions(sentence: str) -> None:
    assert fault(GOOD.replace("That breaks the neighbour's privacy.", sentence)) is Fault.REPETITION


def test_too_many_and_too_few_sentences() -> None:
    assert fault(GOOD, budget=Budget(1, 1)) is Fault.LENGTH
    assert fault(GOOD, budget=Budget(2, 3)) is Fault.LENGTH


def test_endless_sentences_are_over_the_budget() -> None:
    endless = " ".join(f"{one}{two}" for one in "abcdefghijk" for two in "lmnopqrstu")
    assert fault(GOOD.replace("The assistant declines at once.", endless)) is Fault.LENGTH


def test_what_was_cut_off_is_over_the_budget() -> None:
    assert read_trace(GOOD, refused(), TWO, cut_off=True) is Fault.LENGTH


def test_a_category_is_taken_where_it_is_missing() -> None:
    unknown = refused(category=None)
    named = fault(GOOD.replace("Request: harmful", "Request: harmful\nCategory: cyberattack"), unknown)
    assert isinstance(named, Trace)
    assert named.category is Category.CYBERATTACK
    assert fault(GOOD.replace("Request: harmful", "Request: harmful\nCategory: gardening"), unknown) is Fault.UNREADABLE
    without = fault(GOOD, unknown)
    assert isinstance(without, Trace)
    assert without.category is None


def test_a_request_alone_needs_one_task() -> None:
    text = "# Task 1\nBaking bread hurts nobody.\n---\nAnswers:\nRequest: unharmful"
    assert read_trace(text, item(), TWO) == Trace({Task.REQUEST: ("Baking bread hurts nobody.",)}, None)
