"""How good the verdict mode is on the validation split, while a run goes on and at its end."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from guardreasoner_moderation.results import LABELS, Label, Task
from training.data import Example
from training.verdict_figures import verdict_figures

if TYPE_CHECKING:
    from guardreasoner_moderation.checkpoint import Checkpoint
    from training.packed import PassWorkers


@dataclass(frozen=True, slots=True)
class Answer:
    """One label slot of one item: the truth, the model's probability of the risky label, and the kind of item."""

    task: Task
    risky: bool
    score: float
    style: str


def validate(
    workers: PassWorkers,
    model: Any,
    examples: Sequence[Example],
    styles: Sequence[str],
    checkpoint: Checkpoint,
    token_budget: int,
    precision: str,
) -> dict[str, Any]:
    """Figures of the verdict mode, each label judged after the true ones before it.

    Args:
        workers: that run the passes.
        model: the base model with its adapter, with packed attention.
        examples: in verdict mode.
        styles: the kind of each example, for figures of their own.
        checkpoint: whose tokenizer the examples were made with.
        token_budget: tokens of one forward pass.
        precision: the recipe's.

    Returns:
        :func:`figures_of` the answers.
    """
    import torch

    from training.packed import autocast, logits_at, pack

    def first_token(label: Label) -> int:
        ids: list[int] = checkpoint.tokenizer.encode(f" {label.value}").ids
        return ids[0]

    style_of = {id(example): style for example, style in zip(examples, styles, strict=True)}

    def one_pass(run: list[Example]) -> list[Answer]:
        batch = pack(run)
        slots = [
            (path[position - 1], task, label, style_of[id(example)])
            for path, example in zip(batch.paths, run, strict=True)
            for position, task, label in example.labels
        ]
        with torch.inference_mode(), autocast(precision):
            logits = logits_at(model, batch, torch.tensor([row for row, *_ in slots])).float()
        answers = []
        for row, (_, task, label, style) in zip(logits, slots, strict=True):
            risky, other = (row[first_token(word)].item() for word in LABELS[task])
            answers.append(Answer(task, label is LABELS[task][0], 1 / (1 + math.exp(other - risky)), style))
        return answers

    model.eval()
    answers = list(chain.from_iterable(workers.run(one_pass, sorted(examples, key=len), token_budget)))
    model.train()
    return figures_of(answers)


def figures_of(answers: Sequence[Answer]) -> dict[str, Any]:
    """What a run records of one look.

    Returns:
        ``loss``: mean negative log-likelihood of the true labels, which chooses the best checkpoint; for each task
        :func:`training.verdict_figures.verdict_figures`; and under ``styles`` the count, recall and false alarms of
        each kind of item, of requests (and of responses, where it has some).
    """
    likelihoods = [answer.score if answer.risky else 1 - answer.score for answer in answers]
    figures: dict[str, Any] = {
        "loss": round(-sum(math.log(max(one, 1e-12)) for one in likelihoods) / max(len(likelihoods), 1), 4)
    }
    for task in Task:
        mine = [answer for answer in answers if answer.task is task]
        if not mine:
            continue
        figures[task.value] = verdict_figures([one.risky for one in mine], [one.score for one in mine])
    figures["styles"] = _by_style([answer for answer in answers if answer.task is not Task.COMPLETION])
    return figures


def _by_style(answers: Sequence[Answer]) -> dict[str, Any]:
    groups: dict[str, dict[str, list[Answer]]] = defaultdict(lambda: defaultdict(list))
    for answer in answers:
        groups[answer.style][answer.task.value].append(answer)
    return {
        style: {
            task: {
                "n": len(group),
                "recall": _share([answer for answer in group if answer.risky]),
                "false_alarms": _share([answer for answer in group if not answer.risky]),
            }
            for task, group in tasks.items()
        }
        for style, tasks in sorted(groups.items())
    }


def _share(answers: Sequence[Answer]) -> float | None:
    return round(sum(answer.score >= 0.5 for answer in answers) / len(answers), 4) if answers else None
