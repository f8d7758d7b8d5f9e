from __future__ import annotations

import numpy as np
import pytest

from evaluation.intervals import compare
from evaluation.metrics import Metric, collect
from training.paired import f1_difference, f1_interval


def answers(wrong: int, count: int = 400) -> tuple[list[bool], list[bool]]:
    truth = [number % 2 == 0 for number in range(count)]
    return truth, [label != (number < wrong) for number, label in enumerate(truth)]


def test_f1_and_its_difference_are_those_of_the_evaluation() -> None:
    truth, good = answers(20)
    _, bad = answers(60)
    expected = compare(*(collect(truth, said, None) for said in (bad, good)), Metric.F1, resamples=2000).difference
    assert f1_difference(truth, good, bad) == pytest.approx([expected.value, expected.low, expected.high], abs=0.01)
    assert f1_interval(truth, good)[0] == pytest.approx(0.95, abs=1e-4)


def test_the_same_answers_differ_by_nothing() -> None:
    truth, said = answers(30)
    assert f1_difference(truth, said, said) == [0, 0, 0]


def test_pairing_makes_the_interval_narrower_than_two_of_their_own() -> None:
    truth, first = answers(60)
    second = [not said if number in (100, 101) else said for number, said in enumerate(first)]
    paired = np.diff(f1_difference(truth, second, first)[1:])
    alone = np.diff(f1_interval(truth, first)[1:])
    assert paired < 0.5 * alone


def test_nothing_risky_is_no_error() -> None:
    assert f1_interval([False, False], [False, False]) == [0, 0, 0]
