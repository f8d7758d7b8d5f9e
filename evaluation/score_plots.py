"""Figures of scores: precision-recall, ROC, calibration, histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from evaluation.curves import Bin, Curves, calibration_bins, find_curves
from evaluation.figures import HARMLESS, INK, LINE, RISKY, RUN_COLOURS, Figure, finish, panels
from evaluation.finished import FinishedPart, FinishedRun
from evaluation.metrics import Metric, Outcomes
from guardreasoner_moderation.results import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

TASK_TITLES: Mapping[Task, str] = {
    Task.REQUEST: "Request: harmful?",
    Task.COMPLETION: "Completion: refused?",
    Task.RESPONSE: "Response: harmful?",
}


def draw_precision_recall(runs: Sequence[FinishedRun], names: Sequence[str]) -> Figure | None:
    """Precision against recall for each benchmark; None when no run has scores on items of both labels."""
    drawn = _curves(runs)
    if not drawn:
        return None
    canvas, axes = panels(len(drawn))
    for place, (axis, (benchmark, lines)) in enumerate(zip(axes, drawn.items(), strict=True)):
        prevalence = next(iter(lines.values()))[1].prevalence
        axis.axhline(prevalence, color=LINE, linewidth=1, linestyle=(0, (4, 3)))
        for number, (part, curves) in lines.items():
            colour = RUN_COLOURS[number % len(RUN_COLOURS)]
            axis.plot(curves.recall, curves.precision, color=colour, linewidth=1.5, label=names[number])
            recall, precision = part.metric(Metric.RECALL), part.metric(Metric.PRECISION)
            if recall and precision:
                axis.plot(recall[0], precision[0], "o", color=colour, markersize=5, markeredgecolor="white")
        draw_frame(axis, benchmark, place, axes, "recall", "precision")
    _legend(canvas, names, {number for lines in drawn.values() for number in lines})
    return finish(
        canvas,
        "precision-recall",
        "Precision against recall over all thresholds; the dot is the threshold in use, the dashed line what chance "
        "gives. Unjudged items count as wrong.",
        _alt("Precision-recall curves; area under the curve", runs, names, Metric.AUPRC, drawn),
    )


def draw_roc(runs: Sequence[FinishedRun], names: Sequence[str]) -> Figure | None:
    """Recall against the false positive rate for each benchmark; None as above."""
    drawn = _curves(runs)
    if not drawn:
        return None
    canvas, axes = panels(len(drawn))
    for place, (axis, (benchmark, lines)) in enumerate(zip(axes, drawn.items(), strict=True)):
        axis.plot([0, 1], [0, 1], color=LINE, linewidth=1, linestyle=(0, (4, 3)))
        for number, (part, curves) in lines.items():
            colour = RUN_COLOURS[number % len(RUN_COLOURS)]
            axis.plot(curves.fall_out, curves.recall, color=colour, linewidth=1.5, label=names[number])
            alarms, recall = part.metric(Metric.FALSE_POSITIVE_RATE), part.metric(Metric.RECALL)
            if alarms and recall:
                axis.plot(alarms[0], recall[0], "o", color=colour, markersize=5, markeredgecolor="white")
        draw_frame(axis, benchmark, place, axes, "false positive rate", "recall")
    _legend(canvas, names, {number for lines in drawn.values() for number in lines})
    return finish(
        canvas,
        "roc",
        "Recall against the false positive rate over all thresholds; the dot is the threshold in use, the dashed line "
        "what chance gives.",
        _alt("ROC curves; area under the curve", runs, names, Metric.AUROC, drawn),
    )


def draw_calibration(runs: Sequence[FinishedRun], names: Sequence[str]) -> Figure | None:
    """Share of risky items against the score, for each task over all its benchmarks; None without scores."""
    tasks: dict[Task, dict[int, list[Outcomes]]] = {}
    for number, run in enumerate(runs):
        for part in run.parts.values():
            outcomes = part.outcomes
            if outcomes.scores is not None and (outcomes.predictions >= 0).any():
                tasks.setdefault(part.task, {}).setdefault(number, []).append(outcomes)
    if not tasks:
        return None
    canvas, axes = panels(len(tasks), columns=3, size=(3.5, 3.1))
    words = []
    for place, (axis, task) in enumerate(zip(axes, [task for task in Task if task in tasks], strict=True)):
        axis.plot([0, 1], [0, 1], color=LINE, linewidth=1, linestyle=(0, (4, 3)))
        for number, parts in tasks[task].items():
            bins = calibration_bins(_pooled(parts))
            colour = RUN_COLOURS[number % len(RUN_COLOURS)]
            draw_bins(axis, bins, colour, names[number])
            highest = bins[-1]
            words.append(
                f"{names[number]}, {task}: items that score about {highest.score:.2f} are risky in "
                f"{highest.risky.value:.0%} of {highest.risky.of}"
            )
        draw_frame(axis, TASK_TITLES[task], place, axes, "score", "share of risky items")
    _legend(canvas, names, {number for parts in tasks.values() for number in parts})
    return finish(
        canvas,
        "calibration",
        "Are scores probabilities? Judged items in ten bins of their score, over all benchmarks of a task: on the "
        "dashed line a score is the share of risky items. Benchmarks hold other shares of risky items than real "
        "traffic does, so read the shape rather than the distance.",
        f"Calibration curves. {'; '.join(words)}.",
    )


def draw_histograms(run: FinishedRun, name: str, file: str) -> Figure | None:
    """How the scores of risky and harmless items lie, for each benchmark; None without scores."""
    there = {
        part.name: (part, outcomes)
        for part in run.parts.values()
        if (outcomes := part.outcomes).scores is not None and (outcomes.predictions >= 0).any()
    }
    if not there:
        return None
    canvas, axes = panels(len(there), size=(2.65, 1.75))
    edges = [step / 25 for step in range(26)]
    for place, (axis, (part, outcomes)) in enumerate(zip(axes, there.values(), strict=True)):
        scores = outcomes.scores if outcomes.scores is not None else np.zeros(0)
        judged = outcomes.predictions >= 0
        for label, colour, title in ((False, HARMLESS, "harmless"), (True, RISKY, "risky")):
            chosen = scores[judged & (outcomes.labels == label)]
            axis.stairs(np.histogram(chosen, edges)[0], edges, fill=True, color=colour, alpha=0.62, label=title)
        threshold = _threshold(part)
        if threshold is not None:
            axis.axvline(threshold, color=INK, linewidth=1)
        axis.set_title(part.name, fontsize=8.5)
        axis.set_xlim(0, 1)
        axis.set_ylim(bottom=0)
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)
        if place >= len(axes) - 4:
            axis.set_xlabel("score")
    handles, titles = axes[0].get_legend_handles_labels()
    canvas.legend(handles, titles, loc="outside upper right", ncols=2)
    return finish(
        canvas,
        file,
        f"{name}: scores of the items that are risky by their label, and of the others; the line is the threshold. "
        "Heights are numbers of items, on a scale of its own in each panel.",
        f"Histograms of the scores of {name} on {len(there)} benchmarks, risky and harmless items apart.",
    )


def _curves(runs: Sequence[FinishedRun]) -> dict[str, dict[int, tuple[FinishedPart, Curves]]]:
    """Benchmark, number of the run, curves; in the order in which benchmarks come first."""
    found: dict[str, dict[int, tuple[FinishedPart, Curves]]] = {}
    for number, run in enumerate(runs):
        for part in run.parts.values():
            curves = find_curves(part.outcomes)
            if curves is not None:
                found.setdefault(part.name, {})[number] = (part, curves)
    return found


def draw_bins(axis: Axes, bins: Sequence[Bin], colour: str, name: str) -> None:
    """The share of risky items in each bin, with its interval."""
    scores, shares = [one.score for one in bins], np.array([one.risky.value for one in bins])
    low, high = np.array([one.risky.interval for one in bins]).T
    axis.errorbar(
        scores,
        shares,
        yerr=np.maximum(0, [shares - low, high - shares]),
        color=colour,
        linewidth=1.4,
        elinewidth=1,
        marker="o",
        markersize=4,
        label=name,
    )


def draw_frame(axis: Axes, title: str, place: int, axes: Sequence[Axes], below: str, beside: str) -> None:
    """Title, scale from 0 to 1, and the titles of the axes where no other panel stands below or beside.

    Args:
        axis: of the panel.
        title: of the panel.
        place: of the panel among all.
        axes: all panels, four in a row.
        below, beside: what the axes show.
    """
    axis.set_title(title, fontsize=8.5)
    axis.set_xlim(-0.02, 1.02)
    axis.set_ylim(-0.02, 1.04)
    axis.set_xticks([0, 0.5, 1])
    axis.set_yticks([0, 0.5, 1])
    columns = min(4, len(axes))
    if place >= len(axes) - columns:
        axis.set_xlabel(below)
    if place % columns == 0:
        axis.set_ylabel(beside)


def _legend(canvas: Canvas, names: Sequence[str], numbers: set[int]) -> None:
    from matplotlib.lines import Line2D

    if len(numbers) > 1:
        lines = [
            Line2D([], [], color=RUN_COLOURS[number % len(RUN_COLOURS)], linewidth=2) for number in sorted(numbers)
        ]
        canvas.legend(lines, [names[number] for number in sorted(numbers)], loc="outside upper right", ncols=3)


def _alt(
    start: str,
    runs: Sequence[FinishedRun],
    names: Sequence[str],
    metric: Metric,
    drawn: Mapping[str, Mapping[int, object]],
) -> str:
    parts = []
    for benchmark, lines in drawn.items():
        values = [
            f"{names[number]} {found[0]:.2f}"
            for number in lines
            if (found := runs[number].parts[benchmark].metric(metric)) is not None
        ]
        parts.append(f"{benchmark}: {', '.join(values)}")
    return f"{start}: {'; '.join(parts)}."


def _threshold(part: FinishedPart) -> float | None:
    """The threshold in use; None when it is not the same for all items."""
    found = {verdict["threshold"] for one in part.predictions if (verdict := one.result.get(part.task.value))}
    return float(found.pop()) if len(found) == 1 else None


def _pooled(parts: Sequence[Outcomes]) -> Outcomes:
    scores = [part.scores for part in parts if part.scores is not None]
    return Outcomes(
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.predictions for part in parts]),
        np.concatenate(scores),
    )
