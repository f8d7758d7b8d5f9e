"""Figures of results: F1 among published models, error rates by group, quality against latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from evaluation.figures import HARMLESS, INK, LINE, PUBLISHED, RISKY, RUN_COLOURS, Figure, finish, new_canvas, panels
from evaluation.latency import Cost
from evaluation.published import NAMED, Beside
from evaluation.score_plots import TASK_TITLES
from evaluation.slices import Slice
from guardreasoner_moderation.results import Task

if TYPE_CHECKING:
    from matplotlib.lines import Line2D

MOST_GROUPS = 30


def draw_published(besides: Sequence[Sequence[Beside]], names: Sequence[str]) -> Figure | None:
    """F1 of the runs among published figures, a row for each benchmark; None when there is nothing to compare.

    Args:
        besides: for each run, its benchmarks among the published models.
        names: of the runs.
    """
    rows: dict[str, dict[int, Beside]] = {}
    for number, run in enumerate(besides):
        for one in run:
            rows.setdefault(one.benchmark, {})[number] = one
    if not rows:
        return None
    canvas = new_canvas(9.2, 0.95 + 0.52 * len(rows))
    axis = canvas.subplots()
    marks = ("D", "s", "^", "v", "P")
    for place, found in enumerate(rows.values()):
        published = next(iter(found.values())).published
        others = [value for model, value in published.items() if model not in NAMED]
        axis.plot(others, [place] * len(others), "o", color=PUBLISHED, markersize=4, alpha=0.55)
        for mark, model in zip(marks, NAMED, strict=True):
            if model in published:
                axis.plot(
                    published[model], place, mark, markersize=6, color="white", markeredgecolor="#5c667a", zorder=3
                )
        for order, (number, one) in enumerate(found.items()):
            value, low, high = one.f1
            axis.errorbar(
                value,
                place + 0.13 * (order - (len(found) - 1) / 2),
                xerr=[[max(0.0, value - low)], [max(0.0, high - value)]],
                fmt="o",
                color=RUN_COLOURS[number % len(RUN_COLOURS)],
                markersize=7,
                elinewidth=2.2,
                zorder=4,
            )
    titles = [f"{name}{' *' if any(one.trained_on for one in found.values()) else ''}" for name, found in rows.items()]
    axis.set_yticks(range(len(rows)), titles)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlim(0, 101)
    axis.set_xlabel("F1, %")
    axis.grid(axis="y", color=LINE)
    handles, labels = _published_legend(marks, names, sorted({number for found in rows.values() for number in found}))
    canvas.legend(handles, labels, loc="outside upper center", ncols=3, handletextpad=0.3, columnspacing=1.2)
    starred = any(one.trained_on for found in rows.values() for one in found.values())
    return finish(
        canvas,
        "published",
        "F1 measured here, in colour with 95% intervals, among figures published by others (arXiv 2501.18492, tables 2 "
        "to 12; not measured here, and without intervals)."
        + (" * The model was trained on this benchmark." if starred else ""),
        "F1 by benchmark: "
        + "; ".join(
            f"{name}: {', '.join(f'{names[number]} {one.f1[0]:.1f}' for number, one in found.items())}, published "
            f"{min(one.published.values()):.1f} to {max(one.published.values()):.1f}"
            for name, found in rows.items()
            for one in [next(iter(found.values()))]
        )
        + ".",
    )


def draw_groups(slices: Sequence[Slice], name: str, file: str) -> Figure | None:
    """Error rates of the groups of items, with intervals; None without groups.

    Args:
        slices: of the dimension "Group".
        name: of the run.
        file: name of the figure.
    """
    shown = [one for one in slices if "smaller ones together" not in one.name]
    shown = sorted(shown, key=lambda one: -one.errors.value)[:MOST_GROUPS]
    if not shown:
        return None
    canvas = new_canvas(9.2, 0.9 + 0.27 * len(shown))
    axis = canvas.subplots()
    values = np.array([100 * one.errors.value for one in shown])
    spans = 100 * np.array([one.errors.interval for one in shown]).T
    places = range(len(shown))
    risky = [sum(case.risky for case in one.cases) >= len(one.cases) / 2 for one in shown]
    axis.barh(places, values, color=[RISKY if one else HARMLESS for one in risky], alpha=0.75, height=0.68)
    axis.errorbar(
        values, places, xerr=np.maximum(0, [values - spans[0], spans[1] - values]), fmt="none", ecolor=INK, elinewidth=1
    )
    axis.plot([100 * one.expected for one in shown], places, "|", color=INK, markersize=11, markeredgewidth=1.6)
    prefix, titles = _without_prefix([one.name for one in shown])
    axis.set_yticks(places, [f"{_short(title)} ({len(one.cases)})" for title, one in zip(titles, shown, strict=True)])
    axis.set_ylim(len(shown) - 0.4, -0.6)
    axis.set_xlim(0, min(100.0, float(spans[1].max()) * 1.06 + 1))
    axis.set_xlabel("errors, %")
    axis.grid(axis="y", visible=False)
    return finish(
        canvas,
        file,
        f"{name}: error rate by group{f' of {prefix}' if prefix else ''} with 95% intervals, the number of items in "
        "brackets. Orange groups are mostly "
        "risky (their errors are misses), blue ones mostly harmless (false alarms). The tick is what items with the "
        "same labels have in the whole benchmark.",
        f"Error rates of {name} by group: "
        + "; ".join(f"{one.name} {one.errors.value:.0%}" for one in shown[:12])
        + ".",
    )


def draw_latency(costs: Sequence[Cost], names: Sequence[str]) -> Figure:
    """F1 against seconds for each task, one dot a run."""
    tasks = [task for task in Task if any(task in cost.f1 for cost in costs)]
    canvas, axes = panels(len(tasks), columns=3, size=(3.3, 2.9))
    for axis, task in zip(axes, tasks, strict=True):
        for number, cost in enumerate(costs):
            if task not in cost.f1:
                continue
            f1, colour = cost.f1[task], RUN_COLOURS[number % len(RUN_COLOURS)]
            axis.errorbar(
                cost.seconds,
                100 * f1.value,
                yerr=[[max(0.0, 100 * (f1.value - f1.low))], [max(0.0, 100 * (f1.high - f1.value))]],
                fmt="o",
                color=colour,
                markersize=8,
                elinewidth=2,
                label=names[number],
            )
        axis.set_xscale("log")
        seconds = [cost.seconds for cost in costs]
        axis.set_xlim(min(seconds) / 1.8, max(seconds) * 1.8)
        ticks = [tick for tick in _TICKS if min(seconds) / 1.8 <= tick <= max(seconds) * 1.8]
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_xticks([], minor=True)
        axis.set_title(TASK_TITLES[task])
        axis.set_xlabel("seconds an item")
        if axis is axes[0]:
            axis.set_ylabel("F1, %")
    handles, labels = axes[0].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside upper right", ncols=3)
    words = [
        f"{name}: {cost.seconds:.2f} s, " + ", ".join(f"{task} F1 {f1.value:.2f}" for task, f1 in cost.f1.items())
        for name, cost in zip(names, costs, strict=True)
    ]
    return finish(
        canvas,
        "latency",
        f"F1 with 95% intervals against the mean time of an item, on the {costs[0].items} items that all runs judged. "
        "Times are those of batches on the machine of each run.",
        f"Quality against latency: {'; '.join(words)}.",
    )


_TICKS = [base * 10.0**power for power in range(-4, 4) for base in (1, 2, 5)]


def _published_legend(
    marks: Sequence[str], names: Sequence[str], numbers: Sequence[int]
) -> tuple[list[Line2D], list[str]]:
    from matplotlib.lines import Line2D

    def mark(shape: str, colour: str, edge: str, size: float) -> Line2D:
        return Line2D([], [], marker=shape, linestyle="", color=colour, markeredgecolor=edge, markersize=size)

    colours: Mapping[int, str] = {number: RUN_COLOURS[number % len(RUN_COLOURS)] for number in numbers}
    handles = [mark("o", colours[number], colours[number], 8) for number in numbers]
    handles += [mark(shape, "white", "#5c667a", 6) for shape in marks]
    labels = [f"{_short(names[number], 34)} (measured here)" for number in numbers]
    labels += [f"{model} (published)" for model in NAMED]
    return [*handles, mark("o", PUBLISHED, PUBLISHED, 4)], [*labels, "others (published)"]


def _without_prefix(names: Sequence[str]) -> tuple[str, list[str]]:
    """What all names begin with, up to a colon or an underscore, and the names without it."""
    first, last = min(names), max(names)  # what these two share all share
    same = [one == other for one, other in zip(first, last, strict=False)]
    common = first[: [*same, False].index(False)] if len(names) > 1 else ""
    end = max(common.rfind(": ") + 2 if ": " in common else 0, common.rfind("_") + 1)
    return common[:end].rstrip(": _"), [name[end:] for name in names]


def _short(name: str, characters: int = 46) -> str:
    return name if len(name) <= characters else f"{name[: characters - 1]}…"
