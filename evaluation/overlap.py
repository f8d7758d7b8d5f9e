"""How much of a benchmark a model has seen: its prompts that also occur in training data.

    python -m evaluation.overlap --data-dir DATA --training-data TRAIN.jsonl ...

Prompts are compared as lower-case words. A prompt is seen if a training prompt has the same words, or nearly so: if
the Jaccard similarity of their word trigrams is at least one half.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from evaluation.benchmarks import BENCHMARKS
from evaluation.items import Item, read_rows
from evaluation.loading import find_file, load_file
from guardreasoner_moderation.errors import InputError

WORDS_IN_A_GRAM = 3
NEAR = 0.5


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


class SeenPrompts:
    """An index of training prompts."""

    def __init__(self, prompts: Iterable[str]) -> None:
        self._known: set[str] = set()
        self._sizes: list[int] = []
        self._places: dict[str, list[int]] = {}
        for prompt in prompts:
            words = normalise(prompt)
            if words in self._known:
                continue
            self._known.add(words)
            grams = trigrams(words)
            for gram in grams:
                self._places.setdefault(gram, []).append(len(self._sizes))
            self._sizes.append(len(grams))

    def has(self, prompt: str) -> bool:
        """Whether a training prompt has the same words."""
        return normalise(prompt) in self._known

    def similarity(self, prompt: str) -> float:
        """Highest Jaccard similarity of the prompt's trigrams with a training prompt's."""
        grams = trigrams(normalise(prompt))
        shared = Counter(place for gram in grams for place in self._places.get(gram, ()))
        return max((count / (len(grams) + self._sizes[place] - count) for place, count in shared.items()), default=0.0)


def normalise(text: str) -> str:
    """Lower-case words without punctuation, divided by single spaces."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).lower()))


def trigrams(words: str) -> frozenset[str]:
    """All runs of three words; of a shorter text the whole."""
    parts = words.split()
    runs = range(max(1, len(parts) - WORDS_IN_A_GRAM + 1))
    return frozenset(" ".join(parts[start : start + WORDS_IN_A_GRAM]) for start in runs)


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
