"""Two models on the same items: the difference of their F1, with its paired bootstrap interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000


def f1_interval(truth: Sequence[bool], chosen: Sequence[bool], *, seed: int = 0) -> list[float]:
    """F1 of the risky label with its 95% interval: value, low, high (Efron and Tibshirani 1993, chapter 6).

    Args:
        truth: whether the label is the risky one.
        chosen: whether the model said so.
        seed: of the draws.
    """
    return _percentiles(_f1(truth, chosen)[0], _f1(truth, chosen, _draws(len(truth), seed)))


def f1_difference(
    truth: Sequence[bool], first: Sequence[bool], second: Sequence[bool], *, seed: int = 0
) -> list[float]:
    """F1 of the first minus that of the second, with its 95% interval; each draw takes the same items of both."""
    draws = _draws(len(truth), seed)
    value = _f1(truth, first)[0] - _f1(truth, second)[0]
    return _percentiles(value, _f1(truth, first, draws) - _f1(truth, second, draws))


def _draws(items: int, seed: int) -> NDArray[np.int64]:
    """(resamples, items) numbers of the items drawn."""
    return np.random.default_rng(seed).integers(0, items, (RESAMPLES, items))


def _f1(truth: Sequence[bool], chosen: Sequence[bool], draws: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
    """(resamples,) F1 on drawn items, or (1,) on all; 0 where nothing is risky nor called so."""
    true, said = np.asarray(truth, dtype=bool), np.asarray(chosen, dtype=bool)
    rows = draws if draws is not None else np.arange(len(true))[None]
    right = (true & said)[rows].sum(1)
    called = true[rows].sum(1) + said[rows].sum(1)
    found: NDArray[np.float64] = 2.0 * right / np.maximum(called, 1)
    return found


def _percentiles(value: float, drawn: NDArray[np.float64]) -> list[float]:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return [round(float(number), 4) for number in (value, low, high)]
