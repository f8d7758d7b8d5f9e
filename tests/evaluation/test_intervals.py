from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from evaluation.intervals import bootstrap, compare, estimate, mcnemar, to_json, weighted_averages
from evaluation.metrics import Metric, Outcomes, collect, values
from guardreasoner_moderation.errors import InputError


def draw(rng: np.random.Generator, n: int, *, recall: float = 0.8, false_alarms: float = 0.1) -> Outcomes:
    labels = rng.random(n) < 0.4
    predictions = rng.random(n) < np.where(labels, recall, false_alarms)
    return Outcomes(labels, predictions.astype(np.int8))


def test_intervals_cover_the_truth() -> None:
    """93% to 97% of the intervals hold the value that the whole population has."""
    rng = np.random.default_rng(7)
    truth = {
        Metric.ACCURACY: 0.4 * 0.8 + 0.6 * 0.9,
        Metric.F1: 2 * 0.4 * 0.8 / (2 * 0.4 * 0.8 + 0.6 * 0.1 + 0.4 * 0.2),
        Metric.RECALL: 0.8,
    }
    hits = dict.fromkeys(truth, 0)
    runs = 400
    for run in range(runs):
        estimates = estimate(draw(rng, 400), resamples=400, seed=run)
        for metric, value in truth.items():
            hits[metric] += estimates[metric].low <= value <= estimates[metric].high
    for metric, count in hits.items():
        assert 0.93 <= count / runs <= 0.97, (metric, count / runs)


def test_the_same_seed_gives_the_same_interval() -> None:
    outcomes = draw(np.random.default_rng(0), 200)
    assert estimate(outcomes, seed=3) == estimate(outcomes, seed=3)
    assert estimate(outcomes, seed=3) != estimate(outcomes, seed=4)


def test_many_items_are_resampled_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = draw(np.random.default_rng(0), 50)
    whole = bootstrap(outcomes, resamples=40)
    monkeypatch.setattr("evaluation.intervals._CELLS_AT_ONCE", 500)
    monkeypatch.setattr("evaluation.metrics._CELLS_AT_ONCE", 100)
    parts = bootstrap(outcomes, resamples=40)
    assert {metric: len(value) for metric, value in parts.items()} == dict.fromkeys(whole, 40)
    np.testing.assert_allclose(parts[Metric.F1], whole[Metric.F1])


@pytest.mark.parametrize(("first", "second"), [(0, 0), (5, 5), (1, 9), (30, 12), (700, 400)])
def test_mcnemar_is_the_exact_binomial_test(first: int, second: int) -> None:
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, abs=1e-9)


def test_comparing_finds_a_real_difference_and_no_other() -> None:
    rng = np.random.default_rng(1)
    first = draw(rng, 1500, recall=0.6)
    better = Outcomes(first.labels, np.where(rng.random(1500) < 0.5, first.labels, first.predictions).astype(np.int8))
    found = compare(first, better)
    assert 0 < found.difference.low < found.difference.value < found.difference.high
    assert found.p_value < 0.01
    assert found.mcnemar_p < 1e-9
    assert found.only_first_right == 0
    same = compare(first, first)
    assert (same.difference.low, same.difference.high) == (0, 0)
    assert (same.p_value, same.mcnemar_p) == (1, 1)


def test_unjudged_items_count_as_wrong_in_a_comparison() -> None:
    first, second = collect([True, False], [True, False]), collect([True, False], [None, None])
    assert compare(first, second, Metric.ACCURACY, resamples=20).only_first_right == 2


def test_comparing_other_items_is_refused() -> None:
    with pytest.raises(InputError, match="same items"):
        compare(collect([True], [True]), collect([False], [True]))
    with pytest.raises(InputError, match="needs scores"):
        compare(collect([True], [True]), collect([True], [True]), Metric.AUROC)


def test_averages_are_weighted_by_items() -> None:
    small, large = collect([True, True], [True, False]), collect([True] * 8, [True] * 8)
    average = weighted_averages([small, large], [Metric.RECALL], resamples=200)[Metric.RECALL]
    assert average.value == pytest.approx((0.5 * 2 + 1.0 * 8) / 10)
    assert average.low <= average.value <= average.high


def test_averages_leave_out_undefined_benchmarks() -> None:
    only_risky, mixed = collect([True] * 3, [True] * 3), collect([True, False], [True, True])
    rate = Metric.FALSE_POSITIVE_RATE
    assert weighted_averages([only_risky, mixed], [rate], resamples=50)[rate].value == 1
    assert np.isnan(weighted_averages([only_risky], [rate, Metric.AUROC])[rate].value)
    with pytest.raises(InputError, match="no benchmarks"):
        weighted_averages([], [Metric.F1])


def test_json_has_no_nan() -> None:
    record = to_json(estimate(collect([True, True], [True, None], [0.9, None]), resamples=20))
    assert json.loads(json.dumps(record, allow_nan=False))["auroc"] == [None, None, None]
    assert record["unjudged_rate"][0] == pytest.approx(0.5)
    assert values(collect([True], [True]))[Metric.F1] == 1
