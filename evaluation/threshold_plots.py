"""The plots of ``docs/choosing-a-threshold.md``: calibration, rates and costs against the threshold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from evaluation.curves import Bin
from evaluation.figures import HARMLESS, INK, LINE, RISKY, RUN_COLOURS, Figure, drawing, finish, panels
from evaluation.score_plots import TASK_TITLES, draw_bins, draw_frame
from evaluation.shares import Share
from guardreasoner_moderation.results import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COSTS = (1, 5, 20)
"""Of a miss, in false alarms."""

Row = Mapping[str, Any]  # of one task, as evaluation.threshold_figures writes it


def draw_plot(name: str, tasks: Mapping[str, Row]) -> Figure:
    """One of :data:`PLOTS`, with a panel for each task."""
    caption, below, beside, draw = PLOTS[name]
    with drawing():
        canvas, axes = panels(len(tasks), columns=3, size=(3.0, 2.7))
        for place, (axis, (task, row)) in enumerate(zip(axes, tasks.items(), strict=True)):
            draw(axis, row)
            draw_frame(axis, TASK_TITLES[Task(task)], place, axes, below, beside)
        handles, titles = axes[0].get_legend_handles_labels()
        canvas.legend(handles, titles, loc="outside lower center", ncols=len(titles))
        return finish(canvas, f"threshold-{name}", caption, caption)


def draw_shares(axis: Axes, row: Row) -> None:
    """Share of risky items in each bin of the score."""
    axis.plot([0, 1], [0, 1], color=LINE, linewidth=1, linestyle=(0, (4, 3)), label="a perfect score")
    bins = [Bin(one["score"], Share(one["count"], one["of"])) for one in row["calibration"]]
    draw_bins(axis, bins, RUN_COLOURS[0], "measured, with 95% intervals")


def draw_rates(axis: Axes, row: Row) -> None:
    """Recall, precision and false alarms."""
    counted = [counts for counts in row["counts"] if counts[1] + counts[2]]  # of nothing there is no precision
    thresholds = [threshold for threshold, _, _ in counted]
    axis.plot(thresholds, [hits / row["risky"] for _, hits, _ in counted], color=RISKY, label="recall")
    axis.plot(thresholds, [hits / (hits + alarms) for _, hits, alarms in counted], color=INK, label="precision")
    axis.plot(thresholds, [alarms / row["others"] for _, _, alarms in counted], color=HARMLESS, label="false alarms")


def draw_costs(axis: Axes, row: Row) -> None:
    """Cost of an item, in false alarms, as a share of the cost when nothing is flagged."""
    thresholds = [threshold for threshold, _, _ in row["counts"]]
    for cost, colour in zip(COSTS, RUN_COLOURS, strict=False):
        nothing = cost * row["risky"]
        spent = [(cost * (row["risky"] - hits) + alarms) / nothing for _, hits, alarms in row["counts"]]
        title = "a miss costs as much as a false alarm" if cost == 1 else f"{cost} times as much"
        axis.plot(thresholds, spent, color=colour, label=title)


PLOTS: Mapping[str, tuple[str, str, str, Callable[[Axes, Row], None]]] = {
    "calibration": (
        "Share of risky items against their score, for each task, beside the diagonal of a perfect score",
        "score",
        "share of risky items",
        draw_shares,
    ),
    "rates": (
        "Recall, precision and rate of false alarms against the threshold, for each task",
        "threshold",
        "share",
        draw_rates,
    ),
    "costs": (
        "Cost of misses and false alarms together against the threshold, for three prices of a miss, for each task",
        "threshold",
        "of the cost of flagging nothing",
        draw_costs,
    ),
}
"""By name: what is to be seen, the titles of the axes, and what draws a panel."""
