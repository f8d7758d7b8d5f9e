"""Labelled interactions, and the token sequences a model learns from.

The file format is one JSON object a line with ``id, source, license, split, prompt, response, request, completion,
response_harm, category, reasoning, flag``; ``reasoning`` maps each task to its steps and may be missing, which leaves
the item to verdict mode.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.interactions import Interaction, to_interaction
from guardreasoner_moderation.prompts import Prompt, PromptFormat, Span, build_prompt, target_pieces
from guardreasoner_moderation.results import LABELS, Category, Label, Mode, Task

_LABEL_KEYS = {Task.REQUEST: "request", Task.COMPLETION: "completion", Task.RESPONSE: "response_harm"}


@dataclass(frozen=True, slots=True)
class LabelledInteraction:
    """One interaction with its labels and, where somebody wrote it, the reasoning that leads to them.

    ``labels`` lacks the tasks that do not apply: a prompt without a response has a request label only. ``doubtful``
    marks a label that a second reader found plainly wrong.
    """

    id: str
    source: str
    license: str
    split: str
    interaction: Interaction
    labels: Mapping[Task, Label]
    category: Category | None
    reasoning: Mapping[Task, tuple[str, ...]]
    doubtful: bool

    @property
    def can_think(self) -> bool:
        """Whether every task has reasoning to learn from."""
        return all(task in self.reasoning for task in self.labels)


def read_interactions(path: Path) -> list[LabelledInteraction]:
    """Reads a JSONL file of labelled interactions.

    Raises:
        InputError: a line is not JSON, lacks a label or has an unknown one; the message names file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as exc:
        raise InputError(f"{path} cannot be read: {exc}") from exc
    items = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            items.append(_read_row(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            reason = f"the key {exc} is missing" if isinstance(exc, KeyError) else str(exc)
            raise InputError(f"{path}, line {number}: {reason}") from exc
    if not items:
        raise InputError(f"{path} holds no interactions")
    return items


def _read_row(row: Mapping[str, Any]) -> LabelledInteraction:
    labels = {}
    for task, key in _LABEL_KEYS.items():
        if row.get(key) is not None:
            label = Label(row[key])
            if label not in LABELS[task]:
                raise ValueError(f"{key} is {label.value!r}; expected {' or '.join(LABELS[task])}")
            labels[task] = label
    if Task.REQUEST not in labels:
        raise KeyError("request")
    return LabelledInteraction(
        id=row["id"],
        source=row["source"],
        license=row["license"],
        split=row["split"],
        interaction=to_interaction({"prompt": row["prompt"], "response": row.get("response")}),
        labels=labels,
        category=None if row.get("category") is None else Category(row["category"]),
        reasoning={Task(task): tuple(steps) for task, steps in (row.get("reasoning") or {}).items() if steps},
        doubtful=bool(row.get("flag")),
    )


@dataclass(frozen=True, slots=True)
class Example:
    """One sequence to learn from.

    Attributes:
        ids: token ids of prompt and target.
        weights: the loss weight of each token; 0 in the prompt.
        labels: (position, task, label) of each label's first token.
    """

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    labels: tuple[tuple[int, Task, Label], ...]

    def __len__(self) -> int:
        return len(self.ids)


def build_example(
    item: LabelledInteraction,
    mode: Mode,
    encode: Callable[[Prompt], list[int]],
    eos_id: int,
    *,
    answer_mode: Mode | None = None,
    label_weight: float = 1.0,
) -> Example:
    """The ``compact`` example of one item in one mode.

    ``answer_mode=Mode.VERDICT`` under a think prompt gives the answers alone: what an engine forces when a model's
    reasoning came to no answer.

    Of a label the first token carries ``label_weight``: it tells the labels apart, the rest is spelling. The category's
    word counts as text. Where a harmful request has no known category, the line after its label has no weight, so that
    the model is not taught to leave the category out.
    """
    answer_mode = answer_mode or mode
    ids = encode(build_prompt(item.interaction, PromptFormat.COMPACT, mode, opened_for=answer_mode))
    weights = [0.0] * len(ids)
    labels = []
    tasks = iter(item.labels)
    unknown_category = item.labels[Task.REQUEST] is Label.HARMFUL and item.category is None
    for text, is_answer in target_pieces(item.labels, item.category, item.reasoning, answer_mode):
        piece = encode(Prompt((Span(text),)))
        first = rest = 1.0
        if is_answer and text.strip() in set(Label):
            labels.append((len(ids), next(tasks), Label(text.strip())))
            first = label_weight
        elif unknown_category and len(labels) == 1:
            first = rest = 0.0
        weights += [first] + [rest] * (len(piece) - 1)
        ids += piece
    return Example((*ids, eos_id), (*weights, 1.0), tuple(labels))
