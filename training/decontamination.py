"""Taking out of training data what benchmarks ask: prompts that are the same or nearly so.

What is near is told by :mod:`texts.similarity`, as in ``evaluation.overlap``: after this, that measures nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from guardreasoner_moderation.errors import InputError, nearest
from texts.similarity import NEAR, SeenPrompts
from training.data import LabelledInteraction
from training.sources import ENDINGS, read_prompts


@dataclass(frozen=True, slots=True)
class Found:
    """What training data shares with one benchmark.

    Attributes:
        benchmark: its name.
        prompts: how many prompts it has.
        exact: items whose prompt has the same words as one of them.
        near: items whose prompt is nearly one of them, and not exactly.
        kept: the items were left in, since the benchmark is declared as trained on.
    """

    benchmark: str
    prompts: int
    exact: int
    near: int
    kept: bool = False


def decontaminate(
    items: Sequence[LabelledInteraction], benchmarks: Mapping[str, Sequence[str]], trained_on: Iterable[str] = ()
) -> tuple[list[LabelledInteraction], list[Found]]:
    """The items whose prompt is in no benchmark, and what was found.

    Args:
        items: of all splits.
        benchmarks: from a name to the prompts.
        trained_on: names of benchmarks that are counted, but whose prompts stay. No figure on them may then be
            reported as of unseen data.

    Raises:
        InputError: there is no benchmark of a name in ``trained_on``.
    """
    trained_on = set(trained_on)
    for name in trained_on - benchmarks.keys():
        raise InputError(f"there is no benchmark {name!r}{nearest(name, benchmarks)}")
    # One look at all benchmarks clears nearly every item; what is exact is near too.
    everything = SeenPrompts(prompt for prompts in benchmarks.values() for prompt in prompts)
    suspects = [item for item in items if everything.similarity(item.interaction.prompt) >= NEAR]
    dropped: set[str] = set()
    found = []
    for name, prompts in benchmarks.items():
        seen = SeenPrompts(prompts)
        exact = {item.id for item in suspects if seen.has(item.interaction.prompt)}
        near = {item.id for item in suspects if seen.similarity(item.interaction.prompt) >= NEAR} - exact
        kept = name in trained_on
        found.append(Found(name, len(prompts), len(exact), len(near), kept))
        if not kept:
            dropped |= exact | near
    return [item for item in items if item.id not in dropped], found


def read_benchmarks(folder: Path) -> dict[str, list[str]]:
    """The prompts of every benchmark file of a folder, by the file's name without its ending.

    Raises:
        InputError: there is none, or one cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder of benchmarks {folder}")
    files = sorted(file for file in folder.iterdir() if file.name.lower().endswith(ENDINGS))
    if not files:
        raise InputError(f"{folder} holds no benchmark file ({', '.join(ENDINGS)})")
    return {file.name.split(".")[0]: read_prompts(file) for file in files}
