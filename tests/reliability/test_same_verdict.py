"""A small part of the trial, with the real embedded model."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from guardreasoner_moderation import InputError, Moderator
from reliability.same_verdict import WRITTEN, compare, from_a_file, from_a_server, items_of, one_by_one, ways


def result(label: str, score: float, *steps: str) -> dict[str, Any]:
    return {"request": {"label": label, "score": score, "reasoning": list(steps)}, "response": None}


@pytest.mark.parametrize(
    ("other", "figure"),
    [
        (result("harmful", 0.6, "Why."), "other verdicts"),
        (result("unharmful", 0.402, "Why."), "largest score difference"),
        (result("unharmful", 0.4, "Why not."), "other reasoning"),
    ],
)
def test_each_kind_of_difference_is_a_failure(other: dict[str, Any], figure: str) -> None:
    one = result("unharmful", 0.4, "Why.")
    assert compare("x", [one, one], [one, one]).failed == 0
    trial = compare("x", [one, one], [one, other])
    assert trial.failed == 1
    assert trial.figures[figure]


def test_a_missing_result_is_a_failure() -> None:
    one = result("unharmful", 0.4)
    assert compare("x", [one, one], [one]).failed == 1


def test_more_items_than_there_are_is_an_error() -> None:
    with pytest.raises(InputError, match="fewer than the 100000"):
        items_of(WRITTEN, 100_000)


def test_no_way_of_judging_changes_a_verdict(embedded: Moderator) -> None:
    items = items_of(WRITTEN, 12)
    assert any(item.response is None for item in items)
    assert any(item.response is not None for item in items)
    reference = one_by_one(embedded, items, "verdict")
    for name, way in ways(embedded, (1,)).items():
        trial = compare(name, reference, way(items, "verdict"))
        assert trial.failed == 0, trial


def test_no_way_of_judging_changes_the_reasoning(embedded: Moderator) -> None:
    items = items_of(WRITTEN, 5)
    asked = ways(embedded, (1,))
    reference = one_by_one(embedded, items, "think")
    for name in ("batches of 8", "another order", "threads to compute with: 1"):
        trial = compare(name, reference, asked[name](items, "think"))
        assert trial.failed == 0, trial


@pytest.mark.parametrize("way", [from_a_server, from_a_file])
def test_a_server_and_the_command_give_the_same_verdicts(embedded: Moderator, way: Any) -> None:
    items = items_of(WRITTEN, 4)
    trial = compare("apart", partial(one_by_one, embedded)(items, "verdict"), way(items, "verdict"))
    assert trial.failed == 0, trial
