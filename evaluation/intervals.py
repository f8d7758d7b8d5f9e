"""How sure a metric is: bootstrap intervals, averages over benchmarks, and the comparison of two runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from evaluation.metrics import Floats, Metric, Outcomes, measure, values
from guardreasoner_moderation.errors import InputError

LEVEL = 0.95
RESAMPLES = 1000
_CELLS_AT_ONCE = 2_000_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95% interval; NaN where it is undefined."""

    value: float
    low: float
    high: float

    def to_json(self) -> list[float | None]:
        """``[value, low, high]``, with None for NaN, which JSON does not have."""
        return [None if math.isnan(number) else round(number, 6) for number in (self.value, self.low, self.high)]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs on the same items, second minus first.

    Attributes:
        difference: of the metric, with its paired bootstrap interval.
        p_value: two-sided, of the paired bootstrap.
        only_first_right, only_second_right: items that one run got right and the other wrong.
        mcnemar_p: two-sided, of the exact test on these two numbers.
    """

    difference: Estimate
    p_value: float
    only_first_right: int
    only_second_right: int
    mcnemar_p: float


@lru_cache(maxsize=64)  # an Outcomes is known by its identity: results are rendered again after every benchmark
def bootstrap(outcomes: Outcomes, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[Metric, Floats]:
    """(resamples,) values of each metric on items drawn with replacement (Efron and Tibshirani 1993, chapter 6).

    The same number of items, resamples and seed draw the same items, so that two runs can be compared pair by pair.
    """
    parts = [measure(outcomes, weights) for weights in resampled(len(outcomes), resamples, seed)]
    return {metric: np.concatenate([part[metric] for part in parts]) for metric in parts[0]}


def resampled(items: int, resamples: int, seed: int) -> Iterator[Floats]:
    """(b, items) how often each item was drawn, in parts that sum to ``resamples`` rows; a row sums to ``items``."""
    rng = np.random.default_rng(seed)
    rows = max(1, _CELLS_AT_ONCE // max(1, items))
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = rng.integers(0, items, (count, items)) + np.arange(count)[:, None] * items
        yield np.bincount(drawn.ravel(), minlength=count * items).reshape(count, items).astype(np.float64)


def estimate(outcomes: Outcomes, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[Metric, Estimate]:
    """Every metric with its percentile interval."""
    drawn = bootstrap(outcomes, resamples=resamples, seed=seed)
    return {metric: _interval(value, drawn[metric]) for metric, value in values(outcomes).items()}


def weighted_averages(
    parts: Sequence[Outcomes], metrics: Sequence[Metric], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[Metric, Estimate]:
    """Averages over benchmarks, weighted by their items (arXiv 2501.18492, tables 2 to 9).

    Benchmarks where a metric is undefined are left out of its average. Each benchmark's items are resampled; two
    benchmarks over the same texts, which have as many items, by the same draws.

    Raises:
        InputError: there are no benchmarks.
    """
    if not parts:
        raise InputError("there are no benchmarks to average")
    points = [values(part) for part in parts]
    drawn = [bootstrap(part, resamples=resamples, seed=seed) for part in parts]
    averages = {}
    for metric in metrics:
        point = np.array([of_part.get(metric, math.nan) for of_part in points])
        defined = [number for number, value in enumerate(point) if not math.isnan(value)]
        if not defined:
            averages[metric] = Estimate(math.nan, math.nan, math.nan)
            continue
        weights = np.array([len(parts[number]) for number in defined], dtype=np.float64)
        # A resample may lack a class, which leaves a gap; the point value fills it.
        rows = np.stack([np.nan_to_num(drawn[number][metric], nan=point[number]) for number in defined])
        value = float(np.average(point[defined], weights=weights))
        averages[metric] = _interval(value, np.average(rows, axis=0, weights=weights))
    return averages


def mcnemar(only_first_right: int, only_second_right: int) -> float:
    """Two-sided p-value of the exact McNemar test (McNemar 1947): were the discordant items a fair coin's throws?"""
    total = only_first_right + only_second_right
    tail = sum(math.comb(total, count) for count in range(min(only_first_right, only_second_right) + 1))
    return float(min(1.0, 2 * tail / 2**total))


def compare(
    first: Outcomes, second: Outcomes, metric: Metric = Metric.F1, *, resamples: int = RESAMPLES, seed: int = 0
) -> Comparison:
    """Compares two runs on the same items in the same order.

    Raises:
        InputError: the labels differ, or a run has no such metric.
    """
    if not np.array_equal(first.labels, second.labels):
        raise InputError("the two runs do not hold the same items in the same order")
    points = [values(run).get(metric) for run in (first, second)]
    if points[0] is None or points[1] is None:
        raise InputError(f"{metric} needs scores, which one of the runs does not have")
    drawn = [bootstrap(run, resamples=resamples, seed=seed)[metric] for run in (first, second)]
    differences = drawn[1] - drawn[0]
    differences = differences[~np.isnan(differences)]
    # One is added so that no p-value is zero (Davison and Hinkley 1997, section 4.2).
    beyond = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0)) + 1
    right = [run.strict_predictions == run.labels for run in (first, second)]
    only_first, only_second = int(np.sum(right[0] & ~right[1])), int(np.sum(right[1] & ~right[0]))
    return Comparison(
        difference=_interval(points[1] - points[0], differences),
        p_value=min(1.0, 2 * beyond / (len(differences) + 1)),
        only_first_right=only_first,
        only_second_right=only_second,
        mcnemar_p=mcnemar(only_first, only_second),
    )


def to_json(estimates: Mapping[Metric, Estimate]) -> dict[str, list[float | None]]:
    """Estimates by the names of their metrics."""
    return {metric.value: value.to_json() for metric, value in estimates.items()}


def _interval(value: float, drawn: Floats) -> Estimate:
    drawn = drawn[~np.isnan(drawn)]
    if math.isnan(value) or not len(drawn):
        return Estimate(value, math.nan, math.nan)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high))
