"""A run's curves: training loss, and validation loss, F1 and calibration error, as JSON and as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from guardreasoner_moderation.results import Task
from training.run_folder import RECORD_FILE

_SMOOTHING = 20  # steps in a running mean of the loss


def curves_of(record: dict[str, Any]) -> dict[str, Any]:
    """The curves of a run record: for each a list of (step, value)."""
    losses = record["losses"]
    looks = record["validation"]
    means = [sum(losses[max(0, end - _SMOOTHING) : end]) / min(end, _SMOOTHING) for end in range(1, len(losses) + 1)]
    curves: dict[str, Any] = {
        "training loss": [[step, round(value, 5)] for step, value in enumerate(means, 1)],
        "validation loss": [[look["step"], look["loss"]] for look in looks],
    }
    for figure in ("f1", "auprc", "calibration_error"):
        for task in Task:
            curve = [[look["step"], look[task][figure]] for look in looks if task in look]
            if curve:
                curves[f"{task} {figure}"] = curve
    return curves


def write_curves(out: Path) -> None:
    """Writes ``curves.json`` and ``curves.png`` from the run folder's record."""
    from matplotlib.figure import Figure

    record = json.loads((out / RECORD_FILE).read_text(encoding="utf-8"))
    curves = curves_of(record)
    (out / "curves.json").write_text(json.dumps(curves) + "\n", encoding="utf-8")
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    panels = figure.subplots(1, 3)
    for axes, title, shown in (
        (panels[0], "loss", ("training loss", "validation loss")),
        (panels[1], "F1 on validation", tuple(f"{task} f1" for task in Task)),
        (panels[2], "expected calibration error on validation", tuple(f"{task} calibration_error" for task in Task)),
    ):
        for name in shown:
            if name in curves:
                steps, values = zip(*curves[name], strict=True)
                axes.plot(steps, values, label=name, marker="." if len(steps) < 40 else "")
        axes.axvline(record["best"]["step"], color="0.7", linewidth=1, zorder=0)
        axes.set(title=title, xlabel="step")
        axes.legend(frameon=False, fontsize="small")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out / "curves.png", dpi=110)
