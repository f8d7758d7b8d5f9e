"""Training items of requests that stand somewhere in a longer text, among harmless passages.

    python -m training.hidden DATA... --count 1200 --out hidden.jsonl

A guard reads long texts window by window, and in most windows a request is a small part. Data sets hold requests by
themselves, so a model that learned from them alone misses those among other text. Here each item is one request,
harmful or not, put between harmless passages of the same split: prompts and responses of other items. One half is
harmful and one half is not, and both are made in the same way, so that nothing but the request tells them apart. The
reasoning and the category are those of the request.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from guardreasoner_moderation.errors import InputError, ModerationError
from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.results import Label, Task
from training.data import SPLITS, LabelledInteraction, read_interactions, to_row, write_rows

SOURCE = "hidden among other texts"
STYLE = "hidden"

_LONGEST_REQUEST = 500  # characters; a longer one fills a window by itself
_LENGTHS = (200, 2000)  # characters of the passages around a request: about 50 to 500 tokens
_BREAKS = ("\n\n", "\n", " ")  # between passages


def main(
    files: Annotated[list[Path], typer.Argument(help="JSONL files of labelled interactions.")],
    out: Annotated[Path, typer.Option(help="JSONL file to write.")],
    count: Annotated[int, typer.Option(help="Training items to make.", min=2)] = 1200,
    validation: Annotated[int, typer.Option(help="Validation items to make.", min=0)] = 160,
    seed: Annotated[int, typer.Option(help="Of all draws.")] = 0,
) -> None:
    """Hide requests among other texts."""
    try:
        items = [item for file in files for item in read_interactions(file)]
        made = [
            one for split, n in zip(SPLITS, (count, validation), strict=True) for one in hide(items, split, n, seed)
        ]
    except ModerationError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(2) from exc
    write_rows(map(to_row, made), out)
    typer.echo(f"{len(made)} items written to {out}")


def hide(items: Sequence[LabelledInteraction], split: str, count: int, seed: int) -> list[LabelledInteraction]:
    """``count`` items of one split, in turns harmful and not.

    Args:
        items: where requests and passages come from; those of the other split and with doubtful labels are not used.
        split: ``train`` or ``validation``.
        count: items to make.
        seed: of all draws; more items leave the first ones as they are.

    Raises:
        InputError: the split lacks harmful requests, or harmless ones.
    """
    if not count:
        return []
    usable = [item for item in items if item.split == split and not item.doubtful]
    passages = [text for item in usable for text in _harmless_texts(item)]
    dice = random.Random(f"{seed} {split}")
    turns = [_in_rounds(_requests(usable, label), dice) for label in (Label.HARMFUL, Label.UNHARMFUL)]
    license_ = " AND ".join(sorted({item.license for item in usable}))
    made = []
    for number in range(count):
        request = next(turns[number % 2])
        made.append(
            LabelledInteraction(
                id=f"hidden_{split}_{number}",
                source=SOURCE,
                license=license_,
                split=split,
                interaction=Interaction(_among(request.interaction.prompt, passages, dice)),
                labels={Task.REQUEST: request.labels[Task.REQUEST]},
                category=request.category,
                reasoning={task: steps for task, steps in request.reasoning.items() if task is Task.REQUEST},
                doubtful=False,
                style=STYLE,
            )
        )
    return made


def _harmless_texts(item: LabelledInteraction) -> Iterator[str]:
    if item.labels[Task.REQUEST] is Label.UNHARMFUL:
        yield item.interaction.prompt
        if item.labels.get(Task.RESPONSE) is Label.UNHARMFUL and item.interaction.response:
            yield item.interaction.response


def _requests(items: Sequence[LabelledInteraction], label: Label) -> list[LabelledInteraction]:
    once: dict[str, LabelledInteraction] = {}  # the same prompt may come with several responses
    for item in items:
        if item.labels[Task.REQUEST] is label and len(item.interaction.prompt) <= _LONGEST_REQUEST:
            once.setdefault(item.interaction.prompt, item)
    if not once:
        raise InputError(f"there is no {label} request of at most {_LONGEST_REQUEST} characters to hide")
    return list(once.values())


def _in_rounds(items: list[LabelledInteraction], dice: random.Random) -> Iterator[LabelledInteraction]:
    """Each item once before any comes again."""
    while True:
        yield from dice.sample(items, len(items))


def _among(request: str, passages: Sequence[str], dice: random.Random) -> str:
    room = dice.randint(*_LENGTHS)
    around: list[str] = []
    while room > 0:
        passage = dice.choice(passages)[:room].strip()
        room -= max(len(passage), 1)
        if passage and passage != request:
            around.append(passage)
    around.insert(dice.randint(0, len(around)), request.strip())
    return dice.choice(_BREAKS).join(around)


if __name__ == "__main__":
    typer.run(main)
