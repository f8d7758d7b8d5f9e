"""Which checkpoint of a training run to take, and whether it still improves: from its looks at the validation split.

Looks are noisy: 160 items tell an accuracy of 85% to three percent either way. So a checkpoint counts as good as the
best when it is within one standard error of it (Breiman et al. 1984, section 3.4.3), and the trend of the last looks
counts only with its interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.decide import Decision, Verdict
from guardreasoner_moderation.errors import InputError, nearest
from guardreasoner_moderation.results import Task

ENOUGH_LOOKS = 4
"""A trend needs so many looks."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the validation split.

    Attributes:
        step: of the optimiser.
        value: of the metric.
        items: that were looked at.
    """

    step: int
    value: float
    items: int

    @property
    def error(self) -> float:
        """Standard error, as of a share; for F1 and AUPRC about right."""
        return math.sqrt(max(self.value * (1 - self.value), 1 / self.items) / self.items)


@dataclass(frozen=True, slots=True)
class Looks:
    """All looks of a run, in order, at one metric of one task."""

    looks: Sequence[Look]
    task: Task
    metric: str


@dataclass(frozen=True, slots=True)
class Trend:
    """Change of the metric over the last looks, with its 95% interval.

    Attributes:
        looks: how many.
        steps: from the first to the last of them.
        change, low, high: over these steps.
    """

    looks: int
    steps: int
    change: float
    low: float
    high: float


def read_looks(record: Mapping[str, Any], task: Task, metric: str, file: Path) -> Looks:
    """Reads the looks from the ``run.json`` of a training run.

    Raises:
        InputError: it tells of none, or not of this task and metric.
    """
    rows = record.get("validation")
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{file} tells of no look at a validation split")
    looks = []
    for number, row in enumerate(rows, 1):
        figures = row.get(task.value)
        if figures is None:
            continue
        if metric not in figures or metric == "n":
            raise InputError(f"{file}, look {number}: no metric {metric!r}{nearest(metric, set(figures) - {'n'})}")
        if figures[metric] is not None:
            looks.append(Look(int(row["step"]), float(figures[metric]), int(figures["n"])))
    if not looks:
        raise InputError(f"{file} has no look at the {task} task with its {metric}")
    return Looks(sorted(looks, key=lambda look: look.step), task, metric)


def decide_training(seen: Looks, record: Mapping[str, Any]) -> Decision:
    """Decides whether to train on, and which checkpoint to take.

    Args:
        seen: the looks.
        record: content of ``run.json``, for its recipe.
    """
    looks = seen.looks
    best = max(looks, key=lambda look: look.value)
    last = looks[-1]
    # The last look often takes all items and earlier ones a part: the larger error of the two tells them apart.
    taken = last if last.value >= best.value - max(best.error, last.error) else best
    name = f"{seen.metric} of the {seen.task} task"
    reasons = [
        f"The best {name} is {best.value:.3f} at step {best.step}, on {best.items} items (error {best.error:.3f})."
    ]
    if taken is best:
        reasons.append(f"Take the checkpoint of step {best.step}, if it was kept.")
    else:
        reasons.append(
            f"The last look, step {last.step}, has {last.value:.3f} on {last.items}: within one standard error of the "
            "best, so take the last checkpoint."
        )
    trend = find_trend(looks)
    cautions = []
    if trend is None:
        verdict = Verdict.UNDECIDED
        reasons.append(
            f"Whether it still improves cannot be told from {len(looks)} comparable looks; {ENOUGH_LOOKS} can."
        )
    else:
        noise = last.error
        reasons.append(
            f"Over the last {trend.looks} looks ({trend.steps} steps) it changed by {trend.change:+.3f} "
            f"[{trend.low:+.3f}, {trend.high:+.3f}]."
        )
        if trend.low > 0:
            verdict = Verdict.CONTINUE
            reasons.append("It still improves.")
        elif trend.high < 0:
            verdict = Verdict.PUBLISH
            reasons.append("It falls: stop, take the checkpoint above and evaluate it.")
        elif trend.high < noise:
            verdict = Verdict.PUBLISH
            reasons.append(
                f"It no longer improves by more than one look's error, {noise:.3f}: stop, and evaluate the checkpoint."
            )
        else:
            verdict = Verdict.UNDECIDED
            reasons.append("The looks are too noisy to tell: look at more validation items, or more often.")
    if len({look.items for look in looks}) > 1:
        cautions.append("the looks took different numbers of items, so their figures differ for that reason too.")
    if float((record.get("recipe") or {}).get("decay_share") or 0) > 0:
        cautions.append(
            "the learning rate fell to zero at the end: to train on means a new run of more steps, and the gain of the "
            "last steps comes from the fall too."
        )
    figures = {
        "task": seen.task.value,
        "metric": seen.metric,
        "looks": [[look.step, look.value, look.items] for look in looks],
        "best_step": best.step,
        "take_step": taken.step,
        "trend": None if trend is None else [round(number, 6) for number in (trend.change, trend.low, trend.high)],
    }
    return Decision(verdict, tuple(reasons), tuple(cautions), figures)


def find_trend(looks: Sequence[Look]) -> Trend | None:
    """The trend of the second half of the looks, at least four, by a straight line; None when there are too few.

    A last look at another number of items than the one before is left out: it is at other items.
    """
    comparable = list(looks)
    if len(comparable) > 1 and comparable[-1].items != comparable[-2].items:
        comparable.pop()
    chosen = comparable[-max(ENOUGH_LOOKS, math.ceil(len(comparable) / 2)) :]
    if len(chosen) < ENOUGH_LOOKS or chosen[0].step == chosen[-1].step:
        return None
    steps = np.array([look.step for look in chosen], dtype=np.float64)
    values = np.array([look.value for look in chosen])
    centred = steps - steps.mean()
    slope = float(centred @ values / (centred @ centred))
    residuals = values - values.mean() - slope * centred
    free = len(chosen) - 2
    deviation = math.sqrt(float(residuals @ residuals) / free / float(centred @ centred))
    span = chosen[-1].step - chosen[0].step
    half = _t_quantile(free) * deviation * span
    return Trend(len(chosen), span, slope * span, slope * span - half, slope * span + half)


def _t_quantile(free: int) -> float:
    """97.5% quantile of Student's t."""
    from scipy.stats import t  # type: ignore[import-untyped, unused-ignore]  # scikit-learn needs scipy anyway

    return float(t.ppf(0.975, free))
