"""What ``auto`` mode gains and costs: verdict first, reasoning only where the score is uncertain.

    python -m evaluation.auto_mode interactions.jsonl training/datasets/written.jsonl \
        --split validation --limit 200 --out evaluation/results/auto_mode.json

Every prompt is judged in verdict, think and auto mode, one after the other, each alone. Other bounds than the model's
own are computed from the first two: a prompt takes the verdict's answer and time outside of the bounds, and think
mode's inside, since auto mode hands its first pass on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from evaluation.items import Item, draw_sample
from evaluation.judging import Advance, shown_progress, work
from evaluation.runs import write_json
from evaluation.shares import Share
from evaluation.split_items import read_split
from evaluation.summary import hardware, versions
from guardreasoner_moderation.errors import EngineError, ModerationError
from guardreasoner_moderation.moderator import Moderator
from guardreasoner_moderation.results import LABELS, Mode, Task

BOUNDS = ((0.45, 0.55), (0.4, 0.6), (0.3, 0.7), (0.2, 0.8), (0.1, 0.9), (0.05, 0.95))
"""Bounds whose trade-off is computed."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One prompt in one mode: its score, whether it was flagged and reasoned about, and the seconds that it took."""

    score: float
    flagged: bool
    reasoned: bool
    seconds: float


def judge(guard: Moderator, item: Item, mode: Mode) -> Judged:
    """Judges a prompt alone.

    Raises:
        EngineError: it was not judged.
    """
    started = time.perf_counter()
    result = guard.classify(item.interaction.prompt, mode=mode)
    seconds = time.perf_counter() - started
    verdict = result.request
    if verdict is None:
        raise EngineError(f"{item.id} was not judged: {result.error}")
    return Judged(verdict.score, result.flagged, bool(verdict.reasoning), seconds)


def simulate(verdict: Judged, think: Judged, bounds: tuple[float, float]) -> Judged:
    """What auto mode with these bounds would have done."""
    return think if bounds[0] <= verdict.score <= bounds[1] else verdict


def summarise(items: Sequence[Item], judged: Sequence[Judged]) -> dict[str, Any]:
    """Share reasoned about, F1 and accuracy of the harmful label, and latency in seconds."""
    risky = LABELS[Task.REQUEST][0]
    truth = np.array([item.label is risky for item in items])
    flagged = np.array([one.flagged for one in judged])
    hits = int((truth & flagged).sum())
    p50, p95 = np.quantile([one.seconds for one in judged], [0.5, 0.95])
    return {
        "reasoned": Share(sum(one.reasoned for one in judged), len(judged)).to_json(),
        "accuracy": Share(int((truth == flagged).sum()), len(items)).to_json(),
        "f1": round(2 * hits / max(1, int(truth.sum() + flagged.sum())), 4),
        "seconds": {
            "mean": round(float(np.mean([one.seconds for one in judged])), 4),
            "p50": round(float(p50), 4),
            "p95": round(float(p95), 4),
        },
    }


def measure(guard: Moderator, items: Sequence[Item], advance: Advance | None = None) -> dict[str, Any]:
    """Figures of the three modes as they are, and of auto mode with other bounds."""
    modes = (Mode.VERDICT, Mode.THINK, Mode.AUTO)
    for mode in modes:
        guard.classify("Hello.", mode=mode)  # the first judgement is slower than the others
    judged: dict[Mode, list[Judged]] = {mode: [] for mode in modes}
    for item in items:
        for mode in modes:  # by turns, so that a machine which is busy for a while slows all of them
            judged[mode].append(judge(guard, item, mode))
            if advance is not None:
                advance(mode, len(judged[mode]), len(items), work(item))
    pairs = list(zip(judged[Mode.VERDICT], judged[Mode.THINK], strict=True))
    return {
        "bounds": list(guard.model.spec.auto_bounds),
        "modes": {mode.value: summarise(items, found) for mode, found in judged.items()},
        "computed": [
            {"bounds": list(bounds), **summarise(items, [simulate(*pair, bounds) for pair in pairs])}
            for bounds in BOUNDS
        ],
    }


def main(
    files: Annotated[list[Path], typer.Argument(help="JSONL with prompt, request and split.")],
    out: Annotated[Path, typer.Option(help="File for the figures.")],
    split: Annotated[str, typer.Option(help="The rows to take.")] = "validation",
    model: Annotated[str, typer.Option(help="Short name, folder or repository id.")] = "embedded",
    limit: Annotated[int, typer.Option(help="Take so many, drawn by label with a fixed seed.", min=2)] = 200,
) -> None:
    """Measure the trade-off of auto mode."""
    try:
        items = draw_sample(read_split(files, split, Task.REQUEST), limit, seed=0)
        with Moderator(model) as guard:
            with shown_progress(3 * sum(map(work, items)), Console(stderr=True)) as advance:
                figures = measure(guard, items, advance)
            about = {"model": model, "weights_sha256": guard.model.sha256, "engine": guard.model.engine.name}
    except ModerationError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(2) from exc
    rows = {"split": split, "files": [file.name for file in files], "items": len(items)}
    write_json(out, {**about, **rows, "versions": versions(), "hardware": hardware(), **figures})
    for name, row in figures["modes"].items():
        share = 100 * row["reasoned"]["value"]
        typer.echo(f"{name}: F1 {100 * row['f1']:.1f}, {row['seconds']['mean']:.3f} s, reasons about {share:.0f}%")


if __name__ == "__main__":
    typer.run(main)
