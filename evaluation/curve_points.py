"""Writes the curves of runs as numbers, for pages that draw them; no text of an item is in them.

    python -m evaluation.curve_points RUN... --out evaluation/results/score_curves.json

For each run and benchmark with scores: the points of the precision-recall curve, and the share of risky items in bins
of the score with its 95% interval.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from evaluation.curves import calibration_bins, find_curves
from evaluation.finished import FinishedPart, FinishedRun, read_run
from guardreasoner_moderation.errors import ModerationError

_PLACES = 4


def main(
    runs: Annotated[list[Path], typer.Argument(help="Folders of evaluation.run.")],
    out: Annotated[Path, typer.Option(help="File for the curves.")],
) -> None:
    """Write the curves of runs."""
    try:
        curves = collect_points([read_run(run) for run in runs])
    except ModerationError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(2) from exc
    # One curve a line: a change of one shows as one.
    lines = ",\n".join(json.dumps(curve, separators=(",", ":")) for curve in curves)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(f'{{"curves": [\n{lines}\n]}}\n', encoding="utf-8")


def collect_points(runs: Sequence[FinishedRun]) -> list[dict[str, Any]]:
    """One entry for each run and benchmark that has scores on items of both labels."""
    found = ((run, part, _points(part)) for run in runs for part in run.parts.values())
    return [
        {
            "model": run.model,
            "sha256": run.results["model"].get("sha256"),
            "mode": run.mode,
            "benchmark": part.name,
            "task": part.task.value,
            "n": part.summary["n"],
            "trained_on": part.summary["trained_on"],
            **points,
        }
        for run, part, points in found
        if points is not None
    ]


def _points(part: FinishedPart) -> dict[str, Any] | None:
    curves = find_curves(part.outcomes)
    if curves is None:
        return None
    return {
        "prevalence": round(curves.prevalence, _PLACES),
        "precision_recall": [
            [round(float(recall), _PLACES), round(float(precision), _PLACES)]
            for recall, precision in zip(curves.recall, curves.precision, strict=True)
        ],
        "calibration": [
            {"score": round(one.score, _PLACES), **one.risky.to_json()} for one in calibration_bins(part.outcomes)
        ],
    }


if __name__ == "__main__":
    typer.run(main)
