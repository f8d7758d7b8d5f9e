"""How much of a benchmark a model has seen: its prompts that also occur in training data.

    python -m evaluation.overlap --data-dir DATA --training-data TRAIN.jsonl ...

A prompt is seen if a training prompt has the same words, or nearly so (:mod:`texts.similarity`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from evaluation.benchmarks import BENCHMARKS
from evaluation.items import Item, read_rows
from evaluation.loading import find_file, load_file
from guardreasoner_moderation.errors import InputError
from texts.similarity import NEAR, SeenPrompts


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many of a benchmark's items have a prompt that training data has.

    Attributes:
        items: of the benchmark.
        exact: with the same words.
        near: with nearly the same words, and not exact.
    """

    items: int
    exact: int
    near: int

    @property
    def share(self) -> float:
        """Share of the items, 0 to 1, that were seen."""
        return (self.exact + self.near) / self.items


def measure_overlap(items: Sequence[Item], seen: SeenPrompts) -> Overlap:
    """Counts the items whose prompt was seen."""
    exact = [seen.has(item.interaction.prompt) for item in items]
    near = sum(
        not same and seen.similarity(item.interaction.prompt) >= NEAR for item, same in zip(items, exact, strict=True)
    )
    return Overlap(len(items), sum(exact), near)


def read_training_prompts(files: Sequence[Path]) -> SeenPrompts:
    """The prompts of training files, tables with a column ``prompt``.

    Raises:
        InputError: a file cannot be read or has a row without a prompt.
    """
    prompts = []
    for file in files:
        for number, row in enumerate(read_rows(file), 1):
            if not isinstance(row.get("prompt"), str):
                raise InputError(f"{file}, row {number}: there is no text in the column 'prompt'")
            prompts.append(row["prompt"])
    return SeenPrompts(prompts)


def main(
    data_dir: Annotated[Path, typer.Option(help="Folder of benchmark files.")],
    training_data: Annotated[list[Path], typer.Option(help="Training file; may be given several times.")],
) -> None:
    """Print how much of each benchmark in a folder training data has."""
    try:
        seen = read_training_prompts(training_data)
        for benchmark in BENCHMARKS.values():
            file = find_file(benchmark, data_dir)
            if file is not None:
                found = measure_overlap(load_file(benchmark, file).items, seen)
                typer.echo(
                    f"{benchmark.name:<24}{found.items:>6} items, seen {100 * found.share:5.1f}%: "
                    f"{found.exact} exact, {found.near} nearly"
                )
    except InputError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(2) from exc


if __name__ == "__main__":
    typer.run(main)
