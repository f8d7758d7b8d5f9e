"""The figures of the ablations: every finished cell, and every comparison whose cells are finished.

The written file holds ``about``, ``cells`` (by name, in the grid's order) and ``claims``: for each the worst of its
comparisons in the keys that ``model_cards/claims.yaml`` tells, and all of them in ``comparisons``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.intervals import RESAMPLES, estimate
from evaluation.intervals import compare as compare_runs
from evaluation.metrics import Metric, Outcomes, collect
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.results import LABELS, Mode, Task
from guardreasoner_moderation.verdicts import Calibration
from training.ablation_cells import CELL_FILE, identify, is_finished, validation_items
from training.ablation_grid import Cell, Comparison, Grid
from training.data import TRAIN, LabelledInteraction
from training.verdict_figures import verdict_figures

METRIC = "F1 of harmful requests"

Scores = Mapping[str, float]
"""From an item's id to the model's probability that its request is harmful."""


def write_report(grid: Grid, pool: Sequence[LabelledInteraction], runs: Path, file: Path) -> None:
    """Writes the figures of the finished cells.

    Raises:
        InputError: no cell is finished, or one is of another grid.
    """
    done = [cell for cell in grid.cells if is_finished(runs / cell.name, identify(cell, grid, pool))]
    if not done:
        raise InputError(f"{runs} holds no finished cell of this grid; run the command without --report first")
    truth = {item.id: item.labels[Task.REQUEST] is LABELS[Task.REQUEST][0] for item in pool}
    records = {cell.name: _read(runs / cell.name / CELL_FILE) for cell in done}
    scores = {
        (cell.name, mode.value): read_scores(runs / cell.name / f"{mode}.jsonl")
        for cell in done
        for mode in grid.modes(cell)
    }
    first = records[done[0].name]
    measured = {mode: len(validation_items(grid, pool, mode)) for mode in Mode if mode is not Mode.AUTO}
    content = {
        "about": {
            "recipe": first["grid"]["recipe"],
            "seed": grid.recipe.seed,
            "training_items": sum(item.split == TRAIN and not item.doubtful for item in pool),
            "validation_items": {mode.value: count for mode, count in measured.items()},
            "data_sha256": first["data_sha256"],
            "intervals": f"95%, percentile bootstrap of {RESAMPLES} resamples of the validation items",
            "runs_of_each_cell": 1,
            **{key: first[key] for key in ("hardware", "versions", "commit")},
        },
        "cells": {cell.name: _describe(cell, grid, records[cell.name], scores, truth) for cell in done},
        "claims": _claims(grid, scores, truth),
    }
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_scores(file: Path) -> Scores:
    """The scores that :func:`training.calibrate.judge_all` kept as log-odds."""
    rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return {row["id"]: Calibration().score(row[Task.REQUEST.value]) for row in rows}


def compare(
    comparison: Comparison, scores: Mapping[tuple[str, str], Scores], truth: Mapping[str, bool]
) -> dict[str, Any]:
    """The differences of two adapters over the items that both were measured on: of F1 at 0.5, and of AUPRC.

    F1 is what the papers compare. AUPRC does not depend on a threshold, so it tells how much of a difference of F1 is
    a shift of uncalibrated scores.
    """
    first, second = (scores[asked] for asked in comparison.asked)
    ids = [name for name in first if name in second]
    a, b = (_outcomes({name: one[name] for name in ids}, truth) for one in (first, second))
    # It tells the second minus the first; a comparison of the grid is the other way round.
    f1, auprc = (compare_runs(b, a, metric).difference.to_json() for metric in (Metric.F1, Metric.AUPRC))
    runs = [f"{cell}, {mode} mode" for cell, mode in comparison.asked]
    return {
        "metric": METRIC,
        "run": ", against ".join(runs),
        "n": len(ids),
        "difference": f1,
        "auprc_difference": auprc,
    }


def _claims(
    grid: Grid, scores: Mapping[tuple[str, str], Scores], truth: Mapping[str, bool]
) -> dict[str, dict[str, Any]]:
    claims = {}
    for claim in dict.fromkeys(comparison.claim for comparison in grid.comparisons):
        wanted = [one for one in grid.comparisons if one.claim == claim]
        if all(asked in scores for one in wanted for asked in one.asked):
            found = [compare(one, scores, truth) for one in wanted]
            claims[claim] = {**min(found, key=lambda one: float(one["difference"][1])), "comparisons": found}
    return claims


def _describe(
    cell: Cell,
    grid: Grid,
    record: Mapping[str, Any],
    scores: Mapping[tuple[str, str], Scores],
    truth: Mapping[str, bool],
) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for mode in grid.modes(cell):
        found = scores[cell.name, mode.value]
        intervals = estimate(_outcomes(found, truth))
        figures[mode.value] = {
            **verdict_figures([truth[name] for name in found], list(found.values())),
            **{metric.value: intervals[metric].to_json() for metric in (Metric.F1, Metric.AUPRC)},
        }
    kept = ("steps", "tokens", "hours", "weights_sha256")
    return {**record["cell"], **{key: record[key] for key in kept}, **figures}


def _outcomes(scores: Scores, truth: Mapping[str, bool]) -> Outcomes:
    """What the scores say at 0.5, in their order."""
    values = list(scores.values())
    return collect([truth[name] for name in scores], [value >= 0.5 for value in values], values)


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content
