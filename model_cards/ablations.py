"""The tables of the ablations, rendered from what ``python -m training.ablations ... --report`` wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluation.finished import read_object
from guardreasoner_moderation.errors import InputError
from model_cards.reading import NOT_MEASURED, ROOT
from model_cards.results import read_interval, to_interval
from texts.strict_yaml import read_yaml

GRID = ROOT / "training" / "ablations.yaml"
RESULTS = ROOT / "evaluation" / "results" / "ablations.json"
_MODES = ("verdict", "think")
_KINDS = {"hs_dpo": "hard-sample DPO after `{}`", "difficult": "difficult items again, after `{}`"}


def render_ablations(grid: Path = GRID, results: Path = RESULTS) -> str:
    """All cells of the grid with their figures, and the comparisons, in Markdown; what is missing is not measured.

    Raises:
        InputError: a file is damaged.
    """
    cells = read_yaml(grid)["cells"]
    measured: Mapping[str, Any] = read_object(results) if results.exists() else {"cells": {}, "claims": {}, "about": {}}
    lines = [
        "| cell | items | epochs | reasoning shown | tokens | hours | mode | n | F1 | accuracy | AUPRC | ECE |",
        "|---|--:|--:|---|--:|--:|---|--:|--:|--:|--:|--:|",
    ]
    try:
        for cell in cells:
            lines += _rows(cell, measured["cells"].get(cell["name"]))
        lines += ["", "| claim | first against second | n | F1, points | AUPRC, points |", "|---|---|--:|--:|--:|"]
        for claim, found in measured["claims"].items():
            lines += [_difference(claim, one) for one in found["comparisons"]]
        if not measured["claims"]:
            lines.append(f"| {NOT_MEASURED} | | | | |")
        lines += ["", _note(measured["about"])]
    except (KeyError, TypeError, ValueError) as exc:
        raise InputError(f"{results} is not what training.ablations writes: {exc!r}") from exc
    return "\n".join(lines)


def _rows(cell: Mapping[str, Any], found: Mapping[str, Any] | None) -> list[str]:
    """One row for each mode that a cell was measured in."""
    if cell.get("start"):
        shown = _KINDS[cell["kind"]].format(cell["start"])
    else:
        share = f"to {100 * cell.get('think_share', 0.5):g}% of the items"
        shown = share + (f", {cell['sentences']} sentence a task" if cell.get("sentences") else "")
        shown += f", learning rate {cell['learning_rate']:g}" if cell.get("learning_rate") else ""
    passes = "-" if cell.get("kind") == "hs_dpo" else cell.get("epochs", 1)
    head = [f"`{cell['name']}`", cell.get("items") or "all", passes, shown]
    if found is None:
        return [_line(*head, *[NOT_MEASURED] * 2, "-", *[NOT_MEASURED] * 5)]
    rows = []
    for mode in _MODES:
        if figures := found.get(mode):
            f1, auprc = (to_interval(figures[key]) for key in ("f1", "auprc"))
            accuracy, ece = (f"{100 * figures[key]:.1f}" for key in ("accuracy", "calibration_error"))
            cost = (f"{found['tokens']:,}", found["hours"])
            rows.append(_line(*head, *cost, mode, figures["n"], f1, accuracy, auprc, ece))
    return rows


def _difference(claim: str, found: Mapping[str, Any]) -> str:
    keys = ("difference", "auprc_difference")
    points = [read_interval(found[key], f"the {key} of {claim}").points for key in keys]
    return _line(claim.replace("_", " "), found["run"], found["n"], *points)


def _note(about: Mapping[str, Any]) -> str:
    if not about:
        return "The ablations of this version were not measured."
    packages = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return (
        f"Percent, [{about['intervals']}]. {about['training_items']} training items in all, data SHA-256 "
        f"{about['data_sha256'][:12]}, seed {about['seed']}, one run of each cell; {about['hardware']}, {packages}, "
        f"commit {str(about['commit'])[:12]}. All figures are of harmful requests; scores are not calibrated."
    )


def _line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"
