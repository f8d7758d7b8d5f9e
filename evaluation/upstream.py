"""Scores the authors' own generations with both scorers, beside the figures that they published.

    python -m evaluation.upstream --data-dir DATA -o evaluation/results/upstream.md

DATA holds ``generations/1B/*.jsonl`` and ``generations/3B/*.jsonl``, as the authors' repository has them under
``data/test``. The Markdown file and a JSON file of the same name are written; neither holds any text of the data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from evaluation.intervals import Estimate, estimate
from evaluation.metrics import Metric, values
from evaluation.scorers import READERS, Generation, Scored, Scorer, read_generations, score
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.results import Task

PUBLISHED = Path(__file__).with_name("published.json")

CELLS: Mapping[str, tuple[str, Task]] = {
    "SimpleSafetyTests": ("SimpleSafetyTests", Task.REQUEST),
    "AegisSafetyTest": ("AegisSafetyTest", Task.REQUEST),
    "HarmBenchPrompt": ("HarmBenchPrompt", Task.REQUEST),
    "HarmBenchResponse": ("HarmBenchResponse", Task.RESPONSE),
    "XSTestReponseHarmful": ("XSTestResponseHarmful", Task.RESPONSE),  # spelt so by the authors
    "XSTestResponseRefusal": ("XSTestResponseRefusal", Task.COMPLETION),
}
"""From the name of a generations file to benchmark and task, in the paper's order."""

SIZES = ("1B", "3B")


@dataclass(frozen=True, slots=True)
class Cell:
    """One model on one benchmark.

    Attributes:
        size: of the model.
        benchmark: as in ``published.json``.
        task: what is asked.
        published, published_items: the paper's F1 in percent and its number of items.
        scored: by each scorer.
        f1: by each scorer, 0 to 1.
        recovered, recovered_right: items that only the strict scorer can read, and how many of them it reads rightly.
        read_otherwise: items that both can read, with different answers.
    """

    size: str
    benchmark: str
    task: Task
    published: float
    published_items: int
    scored: Mapping[Scorer, Scored]
    f1: Mapping[Scorer, Estimate]
    recovered: int
    recovered_right: int
    read_otherwise: int


def read_cell(size: str, benchmark: str, task: Task, generations: Sequence[Generation]) -> Cell:
    """Scores one file."""
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    scored = {scorer: score(scorer, generations, task) for scorer in Scorer}
    answers = {scorer: [read(generation.text, task) for generation in generations] for scorer, read in READERS.items()}
    rows = list(zip(generations, answers[Scorer.STRICT], answers[Scorer.UPSTREAM], strict=True))
    recovered = [(generation, ours) for generation, ours, theirs in rows if theirs is None and ours is not None]
    return Cell(
        size=size,
        benchmark=benchmark,
        task=task,
        published=published["f1"][f"GuardReasoner {size}"][benchmark],
        published_items=published["items"][benchmark],
        scored=scored,
        f1={scorer: estimate(scored[scorer].outcomes)[Metric.F1] for scorer in Scorer},
        recovered=len(recovered),
        recovered_right=sum(ours is generation.label for generation, ours in recovered),
        read_otherwise=sum(ours is not theirs for _, ours, theirs in rows if ours and theirs),
    )


def read_cells(data_dir: Path) -> list[Cell]:
    """Scores every generations file.

    Raises:
        InputError: a file is missing or cannot be read.
    """
    cells = []
    for size in SIZES:
        for name, (benchmark, task) in CELLS.items():
            generations = read_generations(data_dir / "generations" / size / f"{name}.jsonl", task)
            cells.append(read_cell(size, benchmark, task, generations))
    return cells


def explain(cell: Cell) -> str:
    """Why the three figures of a cell differ, from its counts."""
    upstream, strict = cell.scored[Scorer.UPSTREAM], cell.scored[Scorer.STRICT]
    sentences = []
    if not upstream.unjudged and not strict.unjudged and not cell.read_otherwise:
        sentences.append("Both scorers read every output alike.")
    if upstream.unjudged:
        fates = []
        if upstream.dropped:
            fates.append(f"drops {upstream.dropped}")
        if upstream.counted_twice:
            fates.append(f"counts {upstream.counted_twice} twice as wrong")
        sentences.append(f"The upstream scorer cannot read {_outputs(upstream.unjudged)}: it {' and '.join(fates)}.")
        if cell.recovered:
            sentences.append(
                f"The strict scorer finds the answer of {cell.recovered} of them elsewhere in the text, "
                f"{cell.recovered_right} of these rightly."
            )
    if strict.unjudged:
        sentences.append(f"The strict scorer counts {_outputs(strict.unjudged)} without an answer once as wrong.")
    if cell.read_otherwise:
        sentences.append(
            f"{_outputs(cell.read_otherwise).capitalize()} with two different answers: the upstream scorer takes the "
            "first, the strict scorer the last."
        )
    gap = cell.published - _percent(cell.f1[Scorer.UPSTREAM].value)
    if abs(gap) < 0.005:
        sentences.append("The paper's figure is the upstream scorer's.")
    else:
        sentences.append(
            f"The paper's figure is {abs(gap):.2f} {'higher' if gap > 0 else 'lower'}, where one more false alarm "
            f"would cost {_false_alarm_cost(upstream):.2f}: the released script does not give it on the released "
            "outputs."
        )
        if cell.published_items != upstream.items:
            sentences.append(f"It names {cell.published_items} items; the released file has {upstream.items}.")
    return " ".join(sentences)


def render(cells: Sequence[Cell]) -> str:
    """The Markdown page."""
    rows = [
        "| model | benchmark | n | paper (published) | upstream scorer | unread: dropped + counted twice "
        "| strict scorer [95% interval] | unjudged |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for cell in cells:
        upstream, strict = cell.scored[Scorer.UPSTREAM], cell.scored[Scorer.STRICT]
        f1 = cell.f1[Scorer.STRICT]
        rows.append(
            f"| GuardReasoner {cell.size} | {cell.benchmark} | {upstream.items} | {cell.published:.2f} "
            f"| {_percent(cell.f1[Scorer.UPSTREAM].value):.2f} "
            f"| {upstream.unjudged}: {upstream.dropped} + {upstream.counted_twice} "
            f"| {_percent(f1.value):.2f} [{_percent(f1.low):.1f}, {_percent(f1.high):.1f}] | {strict.unjudged} |"
        )
    notes = [f"- **{cell.size}, {cell.benchmark}.** {explain(cell)}" for cell in cells]
    return "\n".join([_INTRODUCTION, *rows, "", "## Where the figures differ, and why", "", *notes]) + "\n"


def to_json(cells: Sequence[Cell]) -> dict[str, Any]:
    """The figures of the page, for other programs."""

    def plain(cell: Cell, scorer: Scorer) -> dict[str, Any]:
        scored = cell.scored[scorer]
        return {
            "f1": cell.f1[scorer].to_json(),
            "accuracy": round(values(scored.outcomes)[Metric.ACCURACY], 6),
            "unjudged": scored.unjudged,
            "dropped": scored.dropped,
            "counted_twice": scored.counted_twice,
        }

    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    return {
        "generations": "released by the authors of arXiv 2501.18492, scored here",
        "published": {"status": published["status"], "source": published["source"]},
        "cells": [
            {
                "model": f"GuardReasoner {cell.size}",
                "benchmark": cell.benchmark,
                "task": cell.task.value,
                "n": cell.scored[Scorer.STRICT].items,
                "published_f1_percent": cell.published,
                "published_items": cell.published_items,
                **{scorer.value: plain(cell, scorer) for scorer in Scorer},
                "recovered": cell.recovered,
                "recovered_right": cell.recovered_right,
                "read_otherwise": cell.read_otherwise,
            }
            for cell in cells
        ],
    }


def main(
    data_dir: Annotated[Path, typer.Option(help="Folder that holds generations/1B and generations/3B.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Markdown file to write; a JSON file goes beside it.")
    ] = None,
) -> None:
    """Score the authors' generations with both scorers."""
    try:
        cells = read_cells(data_dir)
    except InputError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(2) from exc
    page = render(cells)
    if output is None:
        typer.echo(page)
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page, encoding="utf-8")
    output.with_suffix(".json").write_text(json.dumps(to_json(cells), indent=1) + "\n", encoding="utf-8")


def _false_alarm_cost(scored: Scored) -> float:
    """How many points of F1 one more false alarm would cost."""
    outcomes = scored.outcomes
    hits = int((outcomes.labels & (outcomes.predictions == 1)).sum())
    wrong = int((outcomes.labels != (outcomes.predictions == 1)).sum())
    return 200 * hits * (1 / (2 * hits + wrong) - 1 / (2 * hits + wrong + 1))


def _percent(share: float) -> float:
    return 100 * share


def _outputs(count: int) -> str:
    return "1 output" if count == 1 else f"{count} outputs"


_INTRODUCTION = """# The authors' generations under two scorers

The generations that the authors of GuardReasoner (arXiv 2501.18492) released for their 1B and 3B models on six of the
13 benchmarks, scored twice. F1 in percent; harmful, or refusal, is the positive class. Nothing was generated here.

- **paper**: the figure published in arXiv 2501.18492v2, not measured here.
- **upstream scorer**: the rules of the authors' published script, for comparison only. It reads the last 300
  characters, drops what it cannot read if the label is harmful, and counts it twice as wrong otherwise.
- **strict scorer**: ours. It reads the whole text; an item without an answer is unjudged and counts once as wrong.

This page is written by `python -m evaluation.upstream`.
"""


if __name__ == "__main__":
    typer.run(main)
