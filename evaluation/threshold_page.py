"""Renders the figures and plots of ``docs/choosing-a-threshold.md`` from the committed results file.

    python -m evaluation.threshold_page

Between the lines ``<!-- thresholds: SECTION -->`` and ``<!-- end of thresholds -->`` of the page stands what
:data:`SECTIONS` makes of ``evaluation/results/thresholds.json``, which :mod:`evaluation.threshold_figures` writes.
Without that file the sections say that nothing was measured. A test renders the committed page again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import typer

from evaluation.finished import read_object
from evaluation.shares import Share
from evaluation.threshold_plots import PLOTS, draw_plot
from evaluation.thresholds import SHOWN, Aim
from guardreasoner_moderation.errors import InputError, ModerationError, nearest
from guardreasoner_moderation.models import weights_sha256
from guardreasoner_moderation.results import Task
from texts.marked import fill

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "choosing-a-threshold.md"
IMAGES = ROOT / "docs" / "images"
FIGURES = ROOT / "evaluation" / "results" / "thresholds.json"
ADAPTER = ROOT / "guardreasoner_moderation" / "adapters" / "smollm2-135m"

MEASURE = "python -m evaluation.threshold_figures DATA/*.jsonl --out evaluation/results/thresholds.json"
SHOWN_THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)
BASE_RATES = (0.5, 0.2, 0.1, 0.05, 0.01, 0.001)

Figures: TypeAlias = Mapping[str, Any]


def main() -> None:
    """Render the page and its plots."""
    try:
        figures = read_figures()
        PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8"), figures), encoding="utf-8")
        if figures is not None:
            for name in PLOTS:
                plot = draw_plot(name, figures["tasks"])
                (IMAGES / f"{plot.name}.png").write_bytes(plot.png)
    except ModerationError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(2) from exc


def read_figures(file: Path = FIGURES, adapter: Path = ADAPTER) -> Figures | None:
    """The figures; None where nothing was measured.

    Raises:
        InputError: they are of a trial, or of other weights than the adapter's.
    """
    if not file.exists():
        return None
    figures = read_object(file)
    if figures["limit"] is not None:
        raise InputError(f"{file} is of a trial with --limit {figures['limit']}; run {MEASURE}")
    if figures["weights_sha256"] != weights_sha256(adapter):
        raise InputError(f"{file} is of other weights than {adapter.name}'s; remove it, or run {MEASURE}")
    return figures


def rendered(text: str, figures: Figures | None) -> str:
    """The page with its sections rendered anew.

    Raises:
        InputError: it asks for a section that there is not.
    """

    def section(name: str) -> str:
        if name not in SECTIONS:
            raise InputError(f"unknown section {name!r} of thresholds{nearest(name, SECTIONS)}")
        if figures is None:
            return f"Not measured for these weights; to do so: `{MEASURE}`."
        return SECTIONS[name](figures)

    return fill(text, "thresholds", section)


def items(figures: Figures) -> str:
    """What was judged, by whom and on what."""
    lines = ["| task | items | of them risky | AUPRC | calibration error | unjudged |", "|---|--:|--:|--:|--:|--:|"]
    for task, row in figures["tasks"].items():
        n = row["risky"] + row["others"]
        share = Share(row["risky"], n).percent(interval=False)
        cells = [_percent(row["metrics"][name]) for name in ("auprc", "calibration_error")]
        lines.append(f"| {task} | {n} | {share} | {' | '.join(cells)} | {row['unjudged']} |")
    packages = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    note = (
        f"Percent, [95% interval]. Verdict mode: model `{figures['model']}`, weights {figures['weights_sha256'][:12]}, "
        f"engine {figures['engine']}, {figures['split']} split, {figures['hardware']}, {packages}."
    )
    return "\n".join([*lines, "", note])


def calibration(_: Figures) -> str:
    """The plot of shares against scores."""
    return _image("calibration")


def rates(figures: Figures) -> str:
    """Plot and table of what each threshold does."""
    lines = ["| task | threshold | flagged | recall | false alarms | precision |", "|---|--:|--:|--:|--:|--:|"]
    for task, row in figures["tasks"].items():
        for threshold in SHOWN_THRESHOLDS:
            hits, alarms = counts_at(row, threshold)
            shares = (
                Share(hits + alarms, row["risky"] + row["others"]),
                Share(hits, row["risky"]),
                Share(alarms, row["others"]),
                Share(hits, hits + alarms),
            )
            flagged, *others = shares
            cells = [flagged.percent(interval=False), *(share.percent() for share in others)]
            lines.append(f"| {task} | {threshold} | {' | '.join(cells)} |")
    return "\n".join([_image("rates"), "", *lines, "", "Percent, [95% interval]."])


def chosen(aim: Aim) -> Callable[[Figures], str]:
    """Tables of the thresholds that reach targets of one kind."""

    def table(figures: Figures) -> str:
        titles = [metric.value.replace("_", " ") for metric in SHOWN]
        lines = [f"| task | target | threshold | {' | '.join(titles)} |", "|---|---|--:|" + "--:|" * len(titles)]
        for task, row in figures["tasks"].items():
            for target, found in row["chosen"].items():
                if not target.startswith(aim):
                    continue
                if found is None:
                    lines.append(f"| {task} | `{target}` | none reaches it |{' - |' * len(titles)}")
                    continue
                threshold = "{:.3f} [{:.3f}, {:.3f}]".format(*found["threshold"])
                cells = [_percent(found[metric]) for metric in SHOWN]
                lines.append(f"| {task} | `{target}` | {threshold} | {' | '.join(cells)} |")
        return "\n".join([*lines, "", "Rates in percent, [95% interval]."])

    return table


def costs(figures: Figures) -> str:
    """The plot of costs, and the thresholds of the lowest."""
    return "\n\n".join([_image("costs"), chosen(Aim.COST)(figures)])


def base_rates(figures: Figures) -> str:
    """Precision of the request's verdict at other shares of harmful texts, at two thresholds."""
    row = figures["tasks"][Task.REQUEST.value]
    strict = row["chosen"]["fpr=0.01"]
    points = {"0.5": _rates_at(row, 0.5)}
    if strict is not None:
        points[f"{strict['threshold'][0]:.3f}"] = (strict["recall"][0], strict["false_positive_rate"][0])
    titles = [f"precision at {name} | flagged of 10,000, wrongly at {name}" for name in points]
    lines = [f"| harmful requests | {' | '.join(titles)} |", "|--:|" + "--:|--:|" * len(points)]
    for base_rate in BASE_RATES:
        cells = []
        for recall, false_alarms in points.values():
            hits, alarms = recall * base_rate, false_alarms * (1 - base_rate)
            cells.append(f"{100 * hits / (hits + alarms):.1f}%" if hits + alarms else "-")
            cells.append(f"{10_000 * (hits + alarms):.0f}, {10_000 * alarms:.0f}")
        lines.append(f"| {100 * base_rate:g}% | {' | '.join(cells)} |")
    measured = "; ".join(
        f"at {name} recall {100 * recall:.1f}%, false alarms {100 * alarms:.1f}%"
        for name, (recall, alarms) in points.items()
    )
    return "\n".join([*lines, "", f"Computed from the validation split: {measured}."])


def example(figures: Figures) -> str:
    """What the command prints of the example file."""
    return f"```text\n{figures['example']['told']}\n```"


SECTIONS: Mapping[str, Callable[[Figures], str]] = {
    "items": items,
    "calibration": calibration,
    "rates": rates,
    "costs": costs,
    "false alarms": chosen(Aim.FPR),
    "recall": chosen(Aim.RECALL),
    "base rates": base_rates,
    "example": example,
}


def counts_at(row: Mapping[str, Any], threshold: float) -> tuple[int, int]:
    """How many risky and how many other items reach a threshold that was counted."""
    return next((hits, alarms) for counted, hits, alarms in row["counts"] if counted == threshold)


def _rates_at(row: Mapping[str, Any], threshold: float) -> tuple[float, float]:
    hits, alarms = counts_at(row, threshold)
    return hits / row["risky"], alarms / row["others"]


def _percent(values: list[float]) -> str:
    return "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * value for value in values))


def _image(name: str) -> str:
    return f"![{PLOTS[name][0]}](images/threshold-{name}.png)"


if __name__ == "__main__":
    typer.run(main)
