"""Result tables for people, rendered from committed results files.

    python -m evaluation.tables README.md evaluation/results/README.md

Between the lines ``<!-- results: FILE ... -->`` and ``<!-- end of results -->`` of a Markdown file stands the table of
the results files that the first line names (paths from the repository's root), beside the zero-shot baseline where
``zero_shot.verdict.json`` was measured. A test renders the committed pages again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from evaluation.metrics import Metric
from evaluation.published import read_published
from evaluation.zero_shot import FOLDER, MEANING
from guardreasoner_moderation.results import Task
from texts.marked import fill

ROOT = Path(__file__).parents[1]
ZERO_SHOT = ROOT / "evaluation" / "results" / "zero_shot.verdict.json"
BESIDE = ("LLaMA Guard 3 8B", "GuardReasoner 1B")
"""Published models whose figures stand beside ours."""

_COLUMNS = (Metric.ACCURACY, Metric.F1, Metric.RECALL, Metric.FALSE_POSITIVE_RATE, Metric.AUPRC)
_HEADINGS = ("accuracy", "F1", "recall", "false alarms", "AUPRC")
_BASELINE = {Metric.ACCURACY: "accuracy, zero-shot", Metric.F1: "F1, zero-shot"}


def main(pages: Annotated[list[Path], typer.Argument(help="Markdown files with a results section.")]) -> None:
    """Render the results sections of Markdown files."""
    for page in pages:
        page.write_text(rendered(page.read_text(encoding="utf-8")), encoding="utf-8")


def rendered(text: str) -> str:
    """A page with its results sections rendered anew."""
    zero_shot = json.loads(ZERO_SHOT.read_text(encoding="utf-8")) if ZERO_SHOT.exists() else None

    def section(files: str) -> str:
        return table([json.loads((ROOT / name).read_text(encoding="utf-8")) for name in files.split()], zero_shot)

    return fill(text, "results", section)


def table(runs: Sequence[Mapping[str, Any]], zero_shot: Mapping[str, Any] | None = None) -> str:
    """Markdown of runs, as ``results.json`` holds them: a row for each benchmark and mode, averages, and conditions.

    An average is over the cells of arXiv 2501.18492, table 3, that the model was not trained on, weighted by items.
    The zero-shot baseline, another such run, stands in two columns; its averages are over the same benchmarks.
    """
    published = read_published()["f1"]
    headings = [
        "benchmark",
        "task",
        "mode",
        "n",
        *_HEADINGS,
        "unjudged",
        *(_BASELINE.values() if zero_shot else ()),
        *(f"F1 of {name}, published" for name in BESIDE),
    ]
    lines = [f"| {' | '.join(headings)} |", "|---|---|---|" + "--:|" * (len(headings) - 3)]
    rows = [(name, run["mode"], row) for run in runs for name, row in run["benchmarks"].items()]
    order = list(dict.fromkeys(name for name, _, _ in rows))
    for name, mode, row in sorted(rows, key=lambda entry: (list(Task).index(entry[2]["task"]), order.index(entry[0]))):
        cells = [_cell(row["metrics"].get(metric)) for metric in _COLUMNS]
        others = [str(published[other].get(name, "-")) for other in BESIDE]
        mark = " (trained on)" if row["trained_on"] else ""
        cells += [row["unjudged"], *_baseline(zero_shot, {name: row["n"]}), *others]
        lines.append(_line(f"{name}{mark}", row["task"], mode, row["n"], *cells))
    for task in Task:
        for run in runs:
            if (average := run["averages_unseen"].get(task)) and len(average["benchmarks"]) > 1:
                cells = [_cell(average["metrics"].get(metric)) for metric in _COLUMNS]
                label = f"average of {len(average['benchmarks'])} unseen"
                weights = {name: run["benchmarks"][name]["n"] for name in average["benchmarks"]}
                cells += ["", *_baseline(zero_shot, weights), *("" for _ in BESIDE)]
                lines.append(_line(label, task, run["mode"], average["n"], *cells))
    return "\n".join([*lines, "", *_notes([*runs, zero_shot] if zero_shot else runs)])


def _baseline(zero_shot: Mapping[str, Any] | None, weights: Mapping[str, int]) -> list[str]:
    """The zero-shot figures of one benchmark, or of several their averages, without interval.

    An average is weighted by the items of the run that it stands beside, since the baseline may be of samples.
    """
    if zero_shot is None:
        return []
    rows = zero_shot["benchmarks"]
    if not weights.keys() <= rows.keys():
        return ["-"] * len(_BASELINE)
    if len(weights) == 1:
        [name] = weights
        return [_cell(rows[name]["metrics"].get(metric)) for metric in _BASELINE]
    items = sum(weights.values())
    sums = [sum(n * rows[name]["metrics"][metric][0] for name, n in weights.items()) for metric in _BASELINE]
    return [f"{100 * total / items:.1f}" for total in sums]


def _line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _cell(value: Sequence[float | None] | None) -> str:
    if value is None or value[0] is None:
        return "-"
    point, low, high = (f"{100 * share:.1f}" if share is not None else "?" for share in value)
    return f"{point} [{low}, {high}]"


def _notes(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What every figure needs beside it."""
    notes = []
    for run in runs:
        model = run["model"]
        packages = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
        notes.append(
            f"{run['mode'].capitalize()} mode: model `{model['name']}`, weights {str(model['sha256'])[:12]}, engine "
            f"{model['engine']}, {run['scorer']} scorer, {run['hardware']}, {packages}."
        )
    intervals = " ".join(dict.fromkeys(f"Percent, [{run['intervals']}]." for run in runs))
    about = f" {MEANING}" if any(run["model"]["name"] == FOLDER for run in runs) else ""
    return [f"{intervals} {' '.join(notes)}{about}"]


if __name__ == "__main__":
    typer.run(main)
