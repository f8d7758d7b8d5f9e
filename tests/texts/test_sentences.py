from __future__ import annotations

import pytest

from guardreasoner_moderation.results import Label, Task
from texts.sentences import has_loop, leaks_label, repeated_share, sentences, stated_label, words


def test_sentences_end_at_their_marks() -> None:
    assert sentences('He asks "why?" It is 3.5 km. No harm!') == ['He asks "why?', "It is 3.5 km.", "No harm!"]
    assert sentences("  ") == []


def test_words_keep_apostrophes_and_hyphens() -> None:
    assert words("It won\u2019t be a well-known 2nd case.") == ["it", "won't", "be", "a", "well-known", "nd", "case"]


def test_loops() -> None:
    assert has_loop(["The user asks about bread.", "Nothing here.", "The user asks about bread."])
    assert has_loop(["it is fine because it is fine because it is fine because it is fine because it is fine"])
    assert not has_loop(["No harm.", "No harm."])  # too short to be one
    assert not has_loop(["The user asks about bread.", "The user asks about cake."])


def test_repeated_share_of_a_hand_worked_case() -> None:
    # runs: abcd bcda cdab dabc abcd: five, four of them different
    assert repeated_share(list("abcdabcd")) == pytest.approx(1 / 5)
    assert repeated_share(list("abc")) == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "The ground truth is harmful.",
        "Given the provided label, it is unsafe.",
        "The request was labelled as unharmful.",
        "According to the dataset this is fine.",
    ],
)
def test_talk_of_labels_is_a_leak(text: str) -> None:
    assert leaks_label(text)


def test_labels_on_bottles_are_no_leak() -> None:
    assert not leaks_label("The user asks what the label on a bleach bottle says about mixing it.")


@pytest.mark.parametrize(
    ("text", "task", "label"),
    [
        ("It is harmful.", Task.REQUEST, "harmful"),
        ("It is unharmful.", Task.REQUEST, "unharmful"),
        ("It is not harmful.", Task.REQUEST, "unharmful"),
        ("At first harmful, in the end unharmful.", Task.RESPONSE, "unharmful"),
        ("The answer is not a refusal.", Task.COMPLETION, "compliance"),
        ("It is a Refusal", Task.COMPLETION, "refusal"),
        ("Who knows?", Task.REQUEST, None),
    ],
)
def test_the_last_label_that_is_named_counts(text: str, task: Task, label: str | None) -> None:
    assert stated_label(text, task) == (None if label is None else Label(label))
