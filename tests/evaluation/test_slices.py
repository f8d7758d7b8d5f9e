from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from example_runs import bench, item, make_run, said

from evaluation.finished import read_run
from evaluation.slices import (
    Case,
    Kind,
    Slice,
    by_category,
    cut,
    dimensions,
    most_confident,
    rates_of,
    to_cases,
    work_list,
)
from guardreasoner_moderation.results import Task


def case(number: int, *, risky: bool = True, kind: Kind | None = None, **more: Any) -> Case:
    facts: dict[str, Any] = {
        "benchmark": "Mini",
        "task": Task.REQUEST,
        "group": None,
        "source": "mini.json",
        "adversarial": False,
        "score": 0.9 if (kind is Kind.FALSE_ALARM) or (risky and kind is None) else 0.1,
        "threshold": 0.5,
        "characters": 50,
        "category": None,
    }
    return Case(id=f"Mini/{number}", risky=risky, kind=kind, **{**facts, **more})


def many(count: int, wrong: int, *, risky: bool = True, **more: Any) -> list[Case]:
    kind = Kind.MISS if risky else Kind.FALSE_ALARM
    return [case(n, risky=risky, kind=kind if n < wrong else None, **more) for n in range(count)]


def test_predictions_become_cases(tmp_path: Path) -> None:
    items = [
        item(0, True, "x" * 120, group="arms"),
        item(1, False, "short"),
        item(2, True, "short"),
        item(3, False, "short", "but with an answer"),
    ]
    answers = [said(0.45), said(0.95, category="cyberattack"), said(None), said(0.1)]
    run = make_run(tmp_path / "run", (bench(items, adversarial=True), lambda one: answers[int(one.id[-1])]))
    cases = to_cases(read_run(run))
    assert [one.kind for one in cases] == [Kind.MISS, Kind.FALSE_ALARM, Kind.UNJUDGED, None]
    assert [one.near for one in cases] == [True, False, False, False]
    assert [one.length for one in cases] == ["101 to 300 characters", *["1 to 100 characters"] * 3]
    assert [one.group for one in cases] == ["arms", None, None, None]
    assert cases[1].category == "cyberattack"
    assert cases[3].characters == len("short") + len("but with an answer")
    assert all(one.adversarial for one in cases)


def test_rates_are_of_the_items_that_can_have_the_error() -> None:
    cases = [*many(10, 4), *many(30, 3, risky=False), case(99, kind=Kind.UNJUDGED)]
    whole = Slice("all", cases)
    assert (whole.rate(Kind.MISS).count, whole.rate(Kind.MISS).of) == (4, 11)
    assert (whole.rate(Kind.FALSE_ALARM).count, whole.rate(Kind.FALSE_ALARM).of) == (3, 30)
    assert (whole.rate(Kind.UNJUDGED).count, whole.rate(Kind.UNJUDGED).of) == (1, 41)
    assert (whole.errors.count, whole.errors.of) == (8, 41)
    assert rates_of(many(3, 1)) == {Kind.MISS: 1 / 3, Kind.UNJUDGED: 0.0}


def test_a_group_of_risky_items_is_not_worse_for_having_no_others() -> None:
    cases = [*many(40, 10, group="arms"), *many(40, 10, group="drugs"), *many(200, 2, risky=False, group="benign")]
    groups = {one.name: one for one in cut(cases, "Group")}
    assert groups["Mini: arms"].expected == pytest.approx(0.25)
    assert not groups["Mini: arms"].worse(Kind.MISS)
    assert work_list(cases) == []


def test_slices_that_are_surely_worse_come_first() -> None:
    cases = [
        *many(50, 5, group="arms"),
        *many(50, 40, group="drugs"),
        *many(100, 5, risky=False, group="benign"),
        *many(20, 15, risky=False, group="odd", characters=5000),
    ]
    found = [(work.slice.name, work.kind) for work in work_list(cases)]
    assert found[0] == ("Mini: drugs", Kind.MISS)
    assert ("Mini: odd", Kind.FALSE_ALARM) in found
    assert ("over 3000 characters", Kind.FALSE_ALARM) in found
    assert len(work_list(cases, top=1)) == 1
    work = work_list(cases)[0]
    assert work.slice.excess(Kind.MISS) == pytest.approx(40 - 0.45 * 50)
    assert work.advice == "train on more risky items of this kind"


def test_advice_names_near_misses_and_unjudged_items() -> None:
    near = many(50, 40, group="drugs", score=0.45) + many(200, 10, group="arms")
    assert "40 are near the threshold" in work_list(near)[0].advice
    lost = [case(n, kind=Kind.UNJUDGED, score=None, characters=4000) for n in range(20)] + many(200, 0)
    assert "read their `error`" in work_list(lost)[0].advice


def test_small_groups_are_put_together_and_lengths_stay_in_order() -> None:
    cases = many(12, 1, group="big") + many(3, 3, group="small") + many(2, 2, group="tiny", characters=700)
    assert [one.name for one in cut(cases, "Group", 10)] == ["Mini: big", "2 smaller ones together"]
    assert [one.name for one in cut([*cases[:12], cases[12]], "Group", 10)] == ["Mini: big", "Mini: small"]
    assert [one.name for one in cut(cases, "Length")] == ["1 to 100 characters", "301 to 1000 characters"]


def test_dimensions_that_only_rename_the_benchmarks_are_left_out() -> None:
    mixed = many(3, 0, group="x") + many(3, 0, benchmark="Other", source="other.json", adversarial=True, group="y")
    assert dimensions(mixed) == ["Benchmark"]
    assert dimensions([*mixed, case(9, group="z", characters=900)]) == ["Benchmark", "Group", "Length"]
    assert dimensions(many(3, 0)) == []


def test_categories_that_raise_false_alarms() -> None:
    cases = [
        *many(4, 3, risky=False, category="fraud_illegal"),
        *many(6, 0, category="fraud_illegal"),
        *many(5, 1, risky=False, category="other"),
        *many(5, 5, risky=False, category="other", task=Task.COMPLETION),
    ]
    found = {name: (share.count, share.of) for name, share in by_category(cases)}
    assert found == {"fraud_illegal": (3, 10), "other": (1, 5)}
    assert next(iter(found)) == "fraud_illegal"


def test_the_most_confident_errors() -> None:
    alarms = [case(n, risky=False, kind=Kind.FALSE_ALARM, score=score) for n, score in enumerate((0.7, 0.99, 0.8))]
    misses = [case(n, kind=Kind.MISS, score=score) for n, score in enumerate((0.3, 0.01, None))]
    assert [one.score for one in most_confident(alarms + misses, Kind.FALSE_ALARM, 2)] == [0.99, 0.8]
    assert [one.score for one in most_confident(alarms + misses, Kind.MISS, 9)] == [0.01, 0.3]
