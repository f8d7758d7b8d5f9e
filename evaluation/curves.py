"""Points of precision-recall, ROC and calibration curves. Unjudged items count as wrong, with the worst score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluation.metrics import Floats, Outcomes
from evaluation.shares import Share

CURVE_POINTS = 150
"""More points than this make a page heavier, not a curve clearer."""

BINS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """For each of t thresholds, highest first, with a point for "nothing is flagged" before them.

    Attributes:
        recall, precision, fall_out: (t + 1,) shares; the first precision repeats the second.
        prevalence: share of risky items, the precision of chance.
    """

    recall: Floats
    precision: Floats
    fall_out: Floats
    prevalence: float


@dataclass(frozen=True, slots=True)
class Bin:
    """Judged items of a like score: their mean score, and how many of them are risky."""

    score: float
    risky: Share


def find_curves(outcomes: Outcomes) -> Curves | None:
    """The curves of some items; None without scores or when one of the labels is missing."""
    scores = outcomes.strict_scores
    if scores is None or outcomes.labels.all() or not outcomes.labels.any():
        return None
    order = np.argsort(-scores, kind="stable")
    labels = outcomes.labels[order]
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # tied scores are one threshold
    hits, alarms = np.cumsum(labels)[ends], np.cumsum(~labels)[ends]
    recall, fall_out, precision = hits / hits[-1], alarms / alarms[-1], hits / (hits + alarms)
    kept = _thinned(recall, fall_out)
    return Curves(
        np.concatenate([[0.0], recall[kept]]),
        np.concatenate([precision[kept][:1], precision[kept]]),
        np.concatenate([[0.0], fall_out[kept]]),
        float(outcomes.labels.mean()),
    )


def calibration_bins(outcomes: Outcomes, bins: int = BINS) -> list[Bin]:
    """Judged items by score, in bins of equal width; empty bins are left out. None of it without scores."""
    if outcomes.scores is None:
        return []
    judged = outcomes.predictions >= 0
    scores, labels = outcomes.scores[judged], outcomes.labels[judged]
    places = np.minimum((scores * bins).astype(np.int64), bins - 1)
    return [
        Bin(float(scores[places == number].mean()), Share(int(labels[places == number].sum()), int(count)))
        for number, count in enumerate(np.bincount(places, minlength=bins))
        if count
    ]


def _thinned(recall: Floats, fall_out: Floats) -> list[int]:
    """Places that keep the shape: the first point in each small step along the ROC curve, and both ends."""
    along = np.floor((recall + fall_out) / 2 * CURVE_POINTS)
    _, first = np.unique(along, return_index=True)
    return sorted({0, *map(int, first), len(recall) - 1})
