"""How often the int8 engine's verdicts equal those of the same weights in float32, or those of another engine.

python -m evaluation.quantization interactions.jsonl written.jsonl --split validation --out quantization.json
python -m evaluation.quantization interactions.jsonl written.jsonl --against llamacpp:guard.gguf --out llamacpp.json
"""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from guardreasoner_moderation import InputError, Moderator
from guardreasoner_moderation.engines.ctranslate2 import CTranslate2Engine
from guardreasoner_moderation.models import LoadedModel, converted, load_model
from guardreasoner_moderation.results import ModerationResult, Task


def main(
    files: Annotated[list[Path], typer.Argument(help="JSONL with prompt, response and split.")],
    out: Annotated[Path, typer.Option(help="File for the figures.")],
    split: Annotated[str, typer.Option(help="The rows to take.")] = "validation",
    model: Annotated[str, typer.Option(help="An adapter of the embedded base.")] = "embedded",
    limit: Annotated[int, typer.Option(help="Take so many rows, drawn at random with a fixed seed; 0 for all.")] = 0,
    against: Annotated[
        str | None, typer.Option(help="ENGINE:MODEL to compare with, such as llamacpp:guard.gguf; default: float32.")
    ] = None,
) -> None:
    """Compare int8 with float32, or with another engine, in verdict mode."""
    lines = [line for file in files for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    rows = [json.loads(line) for line in lines]
    items = [(row["prompt"], row["response"]) for row in rows if row["split"] == split]
    if 0 < limit < len(items):
        items = random.Random(0).sample(items, limit)
    if not items:
        raise InputError(f"no row has the split {split!r}")
    light = load_model(model)
    other = _float32(light) if against is None else _named(against)
    results: list[list[ModerationResult]] = []
    for one in (light, other):
        with Moderator.from_engine(one.engine, one.spec) as guard:
            results.append(guard.classify_batch(items, mode="verdict", on_error="raise"))
    figures = {"model": model, "weights_sha256": light.sha256, "items": len(items), **compare(*results)}
    if against is not None:
        figures = {"against": against.partition(":")[0], "against_sha256": other.sha256, **figures}
    out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    typer.echo(json.dumps(figures, indent=2))


def _float32(light: LoadedModel) -> LoadedModel:
    if light.folder is None or light.sha256 is None or light.spec.base is None:
        raise InputError(f"{light.name} is not an adapter of the embedded base")
    exact = CTranslate2Engine(converted(light.folder, light.sha256, base=light.spec.base, quantization=None))
    return replace(light, engine=exact)


def _named(against: str) -> LoadedModel:
    engine, colon, model = against.partition(":")
    if not colon:
        raise InputError(f"--against takes ENGINE:MODEL, such as llamacpp:guard.gguf, found {against!r}")
    return load_model(model, engine=engine)


def compare(ours: list[ModerationResult], exact: list[ModerationResult]) -> dict[str, Any]:
    """For each task the number of verdicts, the share of equal ones, and the mean and largest difference of scores."""
    count: Counter[Task] = Counter()
    equal: Counter[Task] = Counter()
    differences: dict[Task, list[float]] = {}
    for one, other in zip(ours, exact, strict=True):
        for (task, verdict), (_, reference) in zip(one.verdicts(), other.verdicts(), strict=True):
            count[task] += 1
            equal[task] += verdict.label is reference.label
            differences.setdefault(task, []).append(abs(verdict.score - reference.score))
    figures: dict[str, Any] = {
        task.value: {
            "n": count[task],
            "equal": round(equal[task] / count[task], 4),
            "mean_difference": round(sum(differences[task]) / count[task], 4),
            "largest_difference": round(max(differences[task]), 4),
        }
        for task in Task
        if count[task]
    }
    return {"equal": round(sum(equal.values()) / sum(count.values()), 4), **figures}


if __name__ == "__main__":
    typer.run(main)
