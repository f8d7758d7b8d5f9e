"""Plots as PNG files: a card's training curves and F1 beside published models, and the ablations' curves."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from guardreasoner_moderation.errors import MissingDependencyError
from guardreasoner_moderation.results import Task
from model_cards.record import RunRecord
from model_cards.results import Evidence, read_published, to_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COMPARED = ("GPT-4o", "LLaMA Guard 3 8B", "WildGuard 7B", "GuardReasoner 1B", "GuardReasoner 3B", "GuardReasoner 8B")
"""Published models that a card names."""

_BLUE, _ORANGE, _GREEN, _GREY, _INK = "#2457c5", "#c2410c", "#15803d", "#9aa3b2", "#1d2433"
_TASK_COLORS = (_BLUE, _ORANGE, _GREEN)
_STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eceff4",
    "text.color": _INK,
    "text.parse_math": False,
    "legend.frameon": False,
}
_WINDOW = 10  # steps of the moving mean
_PART = 500  # items of the ablations that vary epochs and learning rate
_DUAL = 0.5  # share of the items that dual-mode cells are shown with their reasoning


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawn plot: the file's name, what is to be seen for people who do not see it, and the PNG."""

    name: str
    alt: str
    png: bytes


def draw_plots(record: RunRecord, evidence: Evidence) -> list[Plot]:
    """The plots that there are figures for.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    return [plot for plot in (draw_training(record), draw_published(evidence)) if plot is not None]


def draw_training(record: RunRecord) -> Plot | None:
    """Loss of every step, and the looks at the validation split; None where the record has no losses."""
    losses: Sequence[float] = record.run.get("losses") or []
    if not losses:
        return None
    looks: Sequence[Mapping[str, Any]] = record.run.get("validation") or []
    with _drawing(8.4, 3.0) as figure:
        left, right = figure.subplots(1, 2)
        steps = range(1, len(losses) + 1)
        means = moving_means(losses)
        left.plot(steps, losses, color=_GREY, linewidth=0.7, label="each step")
        left.plot(steps, means, color=_BLUE, linewidth=1.8, label=f"mean of {_WINDOW} steps")
        if seen_losses := [(look["step"], look["loss"]) for look in looks if look.get("loss") is not None]:
            left.plot(*zip(*seen_losses, strict=True), "o-", color=_ORANGE, markersize=4, label="validation split")
        left.set(xlabel="step", ylabel="loss", ylim=(0, None))
        left.legend()
        for task, mark, color in zip(Task, "os^", _TASK_COLORS, strict=True):
            looked = [(look["step"], look.get(task.value) or {}) for look in looks]
            seen = [(step, figures) for step, figures in looked if figures.get("auprc") is not None]
            if not seen:
                continue
            numbers = sorted({values["n"] for _, values in seen})
            counts = " or ".join(map(str, numbers))
            right.plot([step for step, _ in seen], [values["auprc"] for _, values in seen], color=color, linewidth=1)
            for filled in (False, True):
                places = [(step, values["auprc"]) for step, values in seen if (values["n"] == numbers[-1]) is filled]
                right.plot(
                    [step for step, _ in places],
                    [auprc for _, auprc in places],
                    mark,
                    color=color,
                    markerfacecolor=color if filled else "white",
                    markersize=5,
                    label=f"{task}, {counts} items" if filled else None,
                )
        right.set(
            xlabel="step (filled: all items, hollow: a sample)", ylabel="AUPRC, validation split", ylim=(None, 1.01)
        )
        if right.lines:
            right.legend()
        png = _to_png(figure)
    alt = f"Training loss from {means[0]:.2f} to {means[-1]:.2f} over {len(losses)} steps"
    return Plot("training.png", f"{alt}, and AUPRC on the validation split at {len(looks)} looks.", png)


def draw_published(evidence: Evidence) -> Plot | None:
    """F1 of this model among published ones; None where it was measured on none of their benchmarks."""
    published = read_published()
    names = [name for name in published["items"] if evidence.of(name)]
    if not names:
        return None
    with _drawing(8.4, 1.4 + 0.52 * len(names)) as figure:
        axis = figure.subplots()
        for place, name in enumerate(names):
            cells = {model: f1[name] for model, f1 in published["f1"].items() if name in f1}
            others = [value for model, value in cells.items() if model not in COMPARED]
            theirs = place - 0.2  # published figures above, ours below
            axis.plot(others, [theirs] * len(others), "o", color=_GREY, alpha=0.5, markersize=4, label="others")
            for model, mark in zip(COMPARED, "Ds^v<>", strict=True):
                if model in cells:
                    axis.plot(cells[model], theirs, mark, color="none", markeredgecolor=_INK, markersize=7, label=model)
            rows = [(row.run.mode, f1) for row in evidence.of(name) if (f1 := row.metrics.get("f1"))]
            for order, (mode, f1) in enumerate(rows):
                axis.errorbar(
                    100 * f1.value,
                    place + 0.05 + 0.2 * order,
                    xerr=[[100 * max(0.0, f1.value - f1.low)], [100 * max(0.0, f1.high - f1.value)]],
                    fmt="o",
                    markersize=5,
                    color=_BLUE if mode == "verdict" else _ORANGE,
                    label=f"this model, {mode} mode (measured here)",
                )
        starred = {row.benchmark for row in evidence.rows if row.trained_on}
        axis.set_yticks(range(len(names)), [f"{name} *" if name in starred else name for name in names])
        axis.set(ylim=(len(names) - 0.5, -0.5), xlim=(0, 101))
        axis.grid(visible=False, axis="y")
        axis.hlines([place + 0.5 for place in range(len(names) - 1)], 0, 101, color="#eceff4", linewidth=0.8)
        axis.set_xlabel("F1, %; * this model was trained on it" if starred.intersection(names) else "F1, %")
        handles, labels = axis.get_legend_handles_labels()
        unique = {
            label if "measured" in label else f"{label} (published)": handle
            for label, handle in zip(labels, handles, strict=True)
        }
        figure.legend(unique.values(), unique.keys(), loc="outside upper center", ncols=3)
        png = _to_png(figure)
    alt = f"F1 of this model with 95% intervals among published models, on {len(names)} of the benchmarks in the table"
    return Plot("published.png", f"{alt} above.", png)


def draw_ablations(report: Mapping[str, Any]) -> Plot:
    """F1 and AUPRC in verdict mode by items, epochs and learning rate, of the report of ``training.ablations``."""
    about = report["about"]
    usual = about["recipe"]["learning_rate"]
    cells = [
        {**cell, "items": cell["items"] or about["training_items"], "learning_rate": cell["learning_rate"] or usual}
        for cell in report["cells"].values()
        if cell["kind"] == "sft" and cell["think_share"] == _DUAL
    ]
    panels = {
        "items": ("items, shown once", [one for one in cells if one["epochs"] == 1 and one["learning_rate"] == usual]),
        "epochs": (
            f"epochs of {_PART} items",
            [one for one in cells if one["items"] == _PART and one["learning_rate"] == usual],
        ),
        "learning_rate": (
            f"learning rate, {_PART} items once",
            [one for one in cells if one["items"] == _PART and one["epochs"] == 1],
        ),
    }
    with _drawing(8.4, 2.8) as figure:
        axes = figure.subplots(1, len(panels), sharey=True)
        for axis, (key, (label, shown)) in zip(axes, panels.items(), strict=True):
            shown.sort(key=lambda one: float(one[key]))
            for metric, name, mark, color in (("f1", "F1", "o", _BLUE), ("auprc", "AUPRC", "s", _ORANGE)):
                found = [(one[key], f) for one in shown if (f := to_interval(one["verdict"][metric]))]
                axis.errorbar(
                    [place for place, _ in found],
                    [100 * f.value for _, f in found],
                    yerr=[[100 * (f.value - f.low) for _, f in found], [100 * (f.high - f.value) for _, f in found]],
                    fmt=f"{mark}-",
                    markersize=4,
                    linewidth=1.2,
                    color=color,
                    label=name,
                )
            axis.set_xscale("log" if key != "epochs" else "linear")
            axis.set_xticks([one[key] for one in shown], [f"{one[key]:g}" for one in shown])
            axis.minorticks_off()
            axis.set_xlabel(label)
        axes[0].set_ylabel("validation split, verdict mode, %")
        axes[0].legend()
        png = _to_png(figure)
    return Plot(
        "ablations.png", "F1 and AUPRC in verdict mode with 95% intervals, by items, epochs and learning rate.", png
    )


def moving_means(values: Sequence[float]) -> list[float]:
    """Means of the last ten values at each place; of fewer at the beginning."""
    windows = (values[max(0, end - _WINDOW) : end] for end in range(1, len(values) + 1))
    return [sum(window) / len(window) for window in windows]


@contextmanager
def _drawing(width: float, height: float) -> Iterator[Figure]:
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise MissingDependencyError("drawing the plots of a card", "release") from exc
    with matplotlib.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def _to_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()
