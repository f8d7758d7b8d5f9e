"""What each threshold would do: counts on a labelled split, and the thresholds that reach some targets.

    python -m evaluation.threshold_figures DATA/*.jsonl --out evaluation/results/thresholds.json

Everything is judged in verdict mode, for each task on the rows of a split that have its label: requests alone,
completions and responses with their prompts. Of the items only counts are written. ``docs/choosing-a-threshold.md`` is
made of the file (:mod:`evaluation.threshold_page`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from evaluation.curves import calibration_bins
from evaluation.intervals import RESAMPLES, estimate, to_json
from evaluation.items import Item, draw_sample
from evaluation.judging import Advance, shown_progress, work
from evaluation.metrics import Metric, Outcomes, collect
from evaluation.runs import write_text
from evaluation.split_items import read_split
from evaluation.summary import hardware, versions
from evaluation.thresholds import read_target, told, tune
from evaluation.user_files import user_benchmark
from guardreasoner_moderation.errors import InputError, ModerationError
from guardreasoner_moderation.moderator import Moderator
from guardreasoner_moderation.results import LABELS, Task

STEPS = 100
"""Thresholds are counted at 1/100, 2/100, ... of these."""

TARGETS = ("fpr=0.01", "fpr=0.05", "fpr=0.1", "recall=0.8", "recall=0.9", "recall=0.95", "cost=1", "cost=5", "cost=20")
OVERALL = (Metric.AUPRC, Metric.AUROC, Metric.BRIER, Metric.CALIBRATION_ERROR)

EXAMPLE = Path(__file__).parents[1] / "examples" / "labelled.csv"
EXAMPLE_TARGET = "fpr=0.1"

_CHUNK = 128


def judge(guard: Moderator, items: Sequence[Item], task: Task, advance: Advance | None = None) -> Outcomes:
    """What the guard says of items in verdict mode, in their order."""
    risky = LABELS[task][0]
    order = sorted(range(len(items)), key=lambda number: work(items[number]))  # like lengths share engine calls
    scores: list[float | None] = [None] * len(items)
    predictions: list[bool | None] = [None] * len(items)
    for start in range(0, len(order), _CHUNK):
        numbers = order[start : start + _CHUNK]
        results = guard.classify_batch([items[number].interaction for number in numbers], mode="verdict")
        for number, result in zip(numbers, results, strict=True):
            verdict = dict(result.verdicts()).get(task)
            if verdict is not None:
                scores[number], predictions[number] = round(verdict.score, 6), verdict.label is risky
        if advance is not None:
            advance(task, start + len(numbers), len(items), sum(work(items[number]) for number in numbers))
    return collect([item.label is risky for item in items], predictions, scores)


def summarise(outcomes: Outcomes, *, resamples: int = RESAMPLES) -> dict[str, Any]:
    """The figures of one task.

    ``counts`` holds for each threshold how many risky and how many other items reach it; unjudged items are in neither.
    """
    judged = outcomes.predictions >= 0
    labels = outcomes.labels[judged]
    if outcomes.scores is None or labels.all() or not labels.any():
        raise InputError("thresholds need judged items of both labels")
    scores = outcomes.scores[judged]
    thresholds = [step / STEPS for step in range(1, STEPS)]
    measured = estimate(outcomes, resamples=resamples)
    return {
        "risky": int(labels.sum()),
        "others": int((~labels).sum()),
        "unjudged": int((~judged).sum()),
        "metrics": to_json({metric: measured[metric] for metric in OVERALL}),
        "counts": [
            [threshold, int(np.sum(labels & (scores >= threshold))), int(np.sum(~labels & (scores >= threshold)))]
            for threshold in thresholds
        ],
        "calibration": [{"score": round(one.score, 4), **one.risky.to_json()} for one in calibration_bins(outcomes)],
        "chosen": {target: choose(outcomes, target, resamples) for target in TARGETS},
    }


def choose(outcomes: Outcomes, target: str, resamples: int) -> dict[str, Any] | None:
    """The threshold for a target; None where none reaches it."""
    try:
        tuned = tune(outcomes, read_target(target), resamples=resamples)
    except InputError:
        return None
    return {"threshold": tuned.threshold.to_json(), **to_json(tuned.metrics)}


def choose_on_example(guard: Moderator, file: Path) -> dict[str, Any]:
    """What ``evaluation.run --tune-threshold`` prints of the example file."""
    loaded = user_benchmark(file, Task.REQUEST, "prompt=text", "harmful=block,unharmful=allow")
    tuned = tune(judge(guard, loaded.items, Task.REQUEST), read_target(EXAMPLE_TARGET))
    return {"file": file.name, "items": len(loaded.items), "told": told(Task.REQUEST, EXAMPLE_TARGET, tuned)}


def main(
    files: Annotated[list[Path], typer.Argument(help="JSONL with prompt, response, their labels and split.")],
    out: Annotated[Path, typer.Option(help="File for the figures.")],
    split: Annotated[str, typer.Option(help="The rows to take.")] = "validation",
    model: Annotated[str, typer.Option(help="Short name, folder or repository id.")] = "embedded",
    limit: Annotated[
        int | None, typer.Option(help="For a trial: so many items of each task, drawn by label.", min=2)
    ] = None,
    example: Annotated[Path, typer.Option(help="CSV with text and label, for the page's example.")] = EXAMPLE,
) -> None:
    """Measure what each threshold would do."""
    try:
        items = {task: read_split(files, split, task) for task in Task}
        if limit:
            items = {task: draw_sample(found, limit, seed=0) for task, found in items.items()}
        with Moderator(model) as guard:
            total = sum(work(item) for found in items.values() for item in found)
            with shown_progress(total, Console(stderr=True)) as advance:
                tasks = {task.value: summarise(judge(guard, items[task], task, advance)) for task in Task}
            about: dict[str, Any] = {
                "model": model,
                "weights_sha256": guard.model.sha256,
                "engine": guard.model.engine.name,
            }
            about |= {"mode": "verdict", "split": split, "limit": limit, "files": [file.name for file in files]}
            about |= {"versions": versions(), "hardware": hardware(), "example": choose_on_example(guard, example)}
    except ModerationError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(2) from exc
    write_text(out, render({**about, "tasks": tasks}))


def render(figures: Mapping[str, Any]) -> str:
    """JSON with a line for each entry of a task, so that a change of one shows as one."""
    head = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in figures.items() if key != "tasks"]
    tasks = []
    for task, row in figures["tasks"].items():
        entries = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in row.items())
        tasks.append(f" {json.dumps(task)}: {{\n{entries}\n }}")
    return "{\n" + ",\n".join([*head, '"tasks": {\n' + ",\n".join(tasks) + "\n}"]) + "\n}\n"


if __name__ == "__main__":
    typer.run(main)
