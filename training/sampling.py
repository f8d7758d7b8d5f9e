"""Several random answers of one model to every item: what hard samples are found by.

The reasoning is drawn at random. The labels are those that the model then prefers at its answer slots, without
calibration and without a look at what it would answer at once: a sample is right or wrong by its own reasoning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import typer

from guardreasoner_moderation.engines.base import Sampling
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.models import LoadedModel
from guardreasoner_moderation.moderator import Moderator
from guardreasoner_moderation.results import Category, Mode, ModerationResult
from guardreasoner_moderation.verdicts import DEFAULT_THRESHOLDS
from training.data import LabelledInteraction, judgement_row, read_judgement
from training.journal import Journal

_CHUNK = 32  # items between two saves


@dataclass(slots=True)
class Samples:
    """A model's answers to one item.

    Attributes:
        item: with the true labels.
        right: answers with every label right, each as the item with the model's labels, category and reasoning.
        wrong: answers with a wrong label.
        unusable: answers without a reasoning on every task, or on a part of the item alone.
    """

    item: LabelledInteraction
    right: list[LabelledInteraction]
    wrong: list[LabelledInteraction]
    unusable: int = 0

    @property
    def ambiguous(self) -> bool:
        """Whether the model is now right, now wrong (arXiv 2501.18492, section 2.3)."""
        return bool(self.right and self.wrong)


def unbiased(model: LoadedModel, **settings: Any) -> Moderator:
    """A moderator that takes a model's labels as the model prefers them."""
    spec = replace(model.spec, calibration={}, thresholds=DEFAULT_THRESHOLDS)
    return Moderator.from_engine(model.engine, spec, name=model.name, **settings)


def draw_samples(
    guard: Moderator, items: Sequence[LabelledInteraction], count: int, sampling: Sampling, journal: Journal
) -> None:
    """Lets a model answer every item ``count`` times; answers that the journal has are not drawn again.

    Args:
        guard: of :func:`unbiased`.
        items: what is judged.
        count: answers to each item.
        sampling: temperature and top-p; the seed is that of the first answer, the next one's is one higher.
        journal: where the answers go, one line each.

    Raises:
        InputError: the count is below 2, with which nothing can be both right and wrong.
    """
    if count < 2:
        raise InputError(f"hard samples are found by at least 2 answers to an item, found {count}")
    done = {(row["id"], row["draw"]) for row in journal.rows}
    # Items of a like length go to the engine together.
    ordered = sorted(items, key=lambda item: len(item.interaction.prompt) + len(item.interaction.response or ""))
    with typer.progressbar(length=count * len(items), label="samples") as bar:
        for draw in range(count):
            waiting = [item for item in ordered if (item.id, draw) not in done]
            bar.update(len(items) - len(waiting))
            seeded = replace(sampling, seed=sampling.seed + draw)
            for start in range(0, len(waiting), _CHUNK):
                chunk = waiting[start : start + _CHUNK]
                results = guard.classify_batch([item.interaction for item in chunk], mode=Mode.THINK, sampling=seeded)
                journal.append(
                    {"id": item.id, "draw": draw, **_read_result(item, result)}
                    for item, result in zip(chunk, results, strict=True)
                )
                bar.update(len(chunk))


def read_samples(rows: Iterable[Mapping[str, Any]], items: Sequence[LabelledInteraction]) -> list[Samples]:
    """The answers of a journal, by item; items without any are left out.

    Raises:
        InputError: an answer is to no item.
    """
    known = {item.id: item for item in items}
    found: dict[str, Samples] = {}
    for row in rows:
        if row["id"] not in known:
            raise InputError(f"there are samples of an item {row['id']!r}, which is not in the data")
        item = known[row["id"]]
        samples = found.setdefault(item.id, Samples(item, [], []))
        if row["unusable"] is not None:
            samples.unusable += 1
            continue
        answer = replace(item, **read_judgement(row))
        right = all(answer.labels[task] is label for task, label in item.labels.items())
        (samples.right if right else samples.wrong).append(answer)
    return list(found.values())


def _read_result(item: LabelledInteraction, result: ModerationResult) -> dict[str, Any]:
    """The answer as a line of the journal has it; ``unusable`` says why it cannot be learned from."""
    if result.error is not None:
        return {"unusable": result.error}
    if result.windows:
        return {"unusable": "longer than a window of the model"}
    answer = replace(
        item,
        labels={task: verdict.label for task, verdict in result.verdicts()},
        category=Category(result.category) if result.category in set(Category) else None,
        reasoning={task: verdict.reasoning for task, verdict in result.verdicts() if verdict.reasoning},
    )
    if not answer.can_think:
        return {"unusable": "no reasoning on a task"}
    return {"unusable": None, **judgement_row(answer)}
