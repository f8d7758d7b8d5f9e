"""Which score to flag from: the threshold for a target, chosen on labelled data, with its interval.

A threshold flags the scores from it upwards. Choose it on data of the traffic it will meet, never on a benchmark that
is then reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from evaluation.intervals import LEVEL, RESAMPLES, Estimate, estimate, resampled, to_json
from evaluation.metrics import Flags, Floats, Metric, Outcomes
from evaluation.runs import read_json, write_json
from guardreasoner_moderation.errors import InputError, nearest
from guardreasoner_moderation.results import StrEnum, Task

Places: TypeAlias = NDArray[np.intp]

SHOWN = (Metric.RECALL, Metric.FALSE_POSITIVE_RATE, Metric.PRECISION, Metric.F1)


class Aim(StrEnum):
    """What a threshold is chosen for."""

    FPR = "fpr"
    RECALL = "recall"
    COST = "cost"


@dataclass(frozen=True, slots=True)
class Target:
    """What a threshold must reach.

    Attributes:
        aim: ``fpr``: the highest recall at a false positive rate of at most ``value``; ``recall``: the lowest false
            positive rate at a recall of at least ``value``; ``cost``: the lowest cost, if a miss costs ``value`` times
            as much as a false alarm.
        value: a share from 0 to 1, or a cost ratio above 0.
    """

    aim: Aim
    value: float


@dataclass(frozen=True, slots=True)
class Tuned:
    """A chosen threshold.

    Attributes:
        threshold: with the interval that resampled items give.
        metrics: at the threshold, on the items it was chosen on, so somewhat too good.
        items: how many there were.
        left_out: unjudged items, which have no score.
    """

    threshold: Estimate
    metrics: Mapping[Metric, Estimate]
    items: int
    left_out: int


def read_target(text: str) -> Target:
    """Reads ``fpr=0.05``, ``recall=0.9`` or ``cost=5``.

    Raises:
        InputError: it is none of these.
    """
    name, _, number = text.partition("=")
    if name not in set(Aim):
        raise InputError(f"unknown target {name!r}{nearest(name, Aim)}; write it as in fpr=0.05")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    highest = math.inf if name == Aim.COST else 1.0
    if not 0 <= value <= highest or math.isinf(value) or (name == Aim.COST and value == 0):
        expected = "a number above 0" if name == Aim.COST else "a number from 0 to 1"
        raise InputError(f"the target {name} must be {expected}, found {number!r}")
    return Target(Aim(name), value)


def tune(outcomes: Outcomes, target: Target, *, resamples: int = RESAMPLES, seed: int = 0) -> Tuned:
    """Chooses the threshold that reaches a target.

    Raises:
        InputError: there are no scores, the items lack one of the labels, or no threshold reaches the target.
    """
    if outcomes.scores is None:
        raise InputError("a threshold needs scores, which these predictions do not have")
    judged = outcomes.predictions >= 0
    labels, scores = outcomes.labels[judged], outcomes.scores[judged]
    if labels.all() or not labels.any():
        raise InputError("a threshold needs judged items of both labels")
    order = np.argsort(-scores, kind="stable")
    labels, scores = labels[order], scores[order]
    ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    candidates = _between(scores[ends])
    chosen = int(_choose(np.ones((1, len(labels))), labels, ends, target)[0])
    if math.isnan(candidates[chosen]):
        raise InputError(f"no threshold reaches {target.aim}={target.value:g}: benign items score 1")
    picks = np.concatenate(
        [_choose(weights, labels, ends, target) for weights in resampled(len(labels), resamples, seed)]
    )
    drawn = candidates[picks]
    drawn = np.where(np.isnan(drawn), 1.0, drawn)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    threshold = float(candidates[chosen])
    flagged = Outcomes(labels, (scores >= threshold).astype(np.int8))
    measured = estimate(flagged, resamples=resamples, seed=seed)
    return Tuned(
        threshold=Estimate(threshold, float(low), float(high)),
        metrics={metric: measured[metric] for metric in SHOWN},
        items=len(labels),
        left_out=int((~judged).sum()),
    )


def told(task: Task, target: str, tuned: Tuned) -> str:
    """The threshold that was chosen, in one line."""
    found = tuned.threshold
    return f"threshold of {task} for {target}: {found.value:.4f} [{found.low:.4f}, {found.high:.4f}]"


def write_thresholds(file: Path, tuned: Mapping[Task, Tuned], target: Target) -> None:
    """Writes the thresholds as a mapping from task to number, and beside it how they came about.

    ``Moderator(thresholds=...)`` takes the content of the first file; the second, ``*.details.json``, is for people.
    """
    write_json(file, {task.value: result.threshold.value for task, result in tuned.items()})
    details = {
        task.value: {
            "target": f"{target.aim}={target.value:g}",
            "threshold": result.threshold.to_json(),
            "items": result.items,
            "unjudged_left_out": result.left_out,
            "metrics_where_chosen": to_json(result.metrics),
        }
        for task, result in tuned.items()
    }
    write_json(file.with_suffix(".details.json"), details)


def read_thresholds_file(file: Path) -> dict[str, float]:
    """Reads what :func:`write_thresholds` wrote; the moderator checks tasks and numbers.

    Raises:
        InputError: the file cannot be read or holds something else.
    """
    content = read_json(file)
    if not isinstance(content, dict):
        raise InputError(f'{file} must map tasks to numbers, as in {{"request": 0.4}}')
    return content


def _between(scores: Floats) -> Floats:
    """(g + 1,) thresholds between g falling scores: above the first (NaN if that is 1), between two, below the last."""
    above = math.nan if scores[0] >= 1 else (1 + scores[0]) / 2
    return np.concatenate([[above], (scores[:-1] + scores[1:]) / 2, [scores[-1] / 2]])


def _choose(weights: Floats, labels: Flags, ends: Places, target: Target) -> Places:
    """(b,) number of the threshold chosen for each of b weightings of the items, which are in order, highest first."""
    start = np.zeros((len(weights), 1))
    hits = np.hstack([start, np.cumsum(weights * labels, axis=1)[:, ends]])
    alarms = np.hstack([start, np.cumsum(weights * ~labels, axis=1)[:, ends]])
    places: Places
    if target.aim is Aim.FPR:  # alarms never fall along a row, so the last allowed one has the highest recall
        places = np.count_nonzero(alarms <= target.value * alarms[:, -1:] + 1e-9, axis=1) - 1
    elif target.aim is Aim.RECALL:
        places = np.argmax(hits >= target.value * hits[:, -1:] - 1e-9, axis=1)
    else:
        places = np.argmin(target.value * (hits[:, -1:] - hits) + alarms, axis=1)
    return places
