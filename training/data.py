"""Labelled interactions, and the token sequences a model learns from.

The file format is one JSON object a line with ``id, source, license, split, prompt, response, request, completion,
response_harm, category, reasoning, flag``; ``reasoning`` maps each task to its steps and may be missing, which leaves
the item to verdict mode. A conversation stands as chat ``messages`` in place of ``prompt`` and ``response``.

    python -m training.data DATA ... --benchmarks BENCHMARKS --out train.jsonl

makes such a file out of others, the Hub's and your own; it is told in :mod:`training.prepare`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from guardreasoner_moderation.errors import InputError, nearest
from guardreasoner_moderation.interactions import Interaction, to_interaction
from guardreasoner_moderation.prompts import (
    ChatTemplate,
    Prompt,
    PromptFormat,
    Span,
    build_prompt,
    target_pieces,
)
from guardreasoner_moderation.results import LABELS, Category, Label, Mode, Task

TRAIN, VALIDATION = SPLITS = ("train", "validation")

Row = TypeVar("Row")

_LABEL_KEYS = {Task.REQUEST: "request", Task.COMPLETION: "completion", Task.RESPONSE: "response_harm"}


@dataclass(frozen=True, slots=True)
class LabelledInteraction:
    """One interaction with its labels and, where somebody wrote it, the reasoning that leads to them.

    ``labels`` lacks the tasks that do not apply: a prompt without a response has a request label only. ``doubtful``
    marks a label that a second reader found plainly wrong. ``style`` is a word of the data's own for a kind of item.
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
    style: str | None = None

    @property
    def can_think(self) -> bool:
        """Whether every task has reasoning to learn from."""
        return all(task in self.reasoning for task in self.labels)


def read_interactions(path: Path) -> list[LabelledInteraction]:
    """Reads a JSONL file of labelled interactions.

    Raises:
        InputError: a line is not JSON, lacks a label or has an unknown one; the message names file and line.
    """
    return read_rows(path, read_row, "interactions")


def read_rows(path: Path, read: Callable[[Any], Row], what: str) -> list[Row]:
    """Reads a JSONL file of ``what``; empty lines count for nothing.

    Args:
        path: the file.
        read: makes a row of the content of a line; its KeyError, ValueError, TypeError or AttributeError is told.
        what: the rows' name, for the error of an empty file.

    Raises:
        InputError: the file cannot be read or holds no row, or a line is not JSON or no row; the message names it.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as exc:
        raise InputError(f"{path} cannot be read: {exc}") from exc
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(read(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            reason = f"the key {exc} is missing" if isinstance(exc, KeyError) else str(exc)
            raise InputError(f"{path}, line {number}: {reason}") from exc
    if not rows:
        raise InputError(f"{path} holds no {what}")
    return rows


def read_row(row: Mapping[str, Any]) -> LabelledInteraction:
    """Reads one object of the format.

    Raises:
        KeyError: a key is missing.
        ValueError: a value is none that its key may have.
    """
    if row["split"] not in SPLITS:
        raise ValueError(f"unknown split {row['split']!r}{nearest(str(row['split']), SPLITS)}")
    texts = ("messages",) if "messages" in row else ("prompt", "response")
    interaction = to_interaction({key: row[key] for key in texts if key in row})
    judgement = read_judgement(row)
    if interaction.response is None and len(judgement["labels"]) > 1:
        raise ValueError("a response is labelled, but there is no response")
    return LabelledInteraction(
        id=row["id"],
        source=row["source"],
        license=row["license"],
        split=row["split"],
        interaction=interaction,
        **judgement,
        doubtful=bool(row.get("flag")),
        style=row.get("style"),
    )


def read_judgement(row: Mapping[str, Any]) -> dict[str, Any]:
    """Labels, category and reasoning of one object, as keywords for :class:`LabelledInteraction`.

    Raises:
        KeyError: there is no request label.
        ValueError: a label, category or task is unknown.
    """
    labels = {}
    for task, key in _LABEL_KEYS.items():
        if row.get(key) is not None:
            label = Label(row[key])
            if label not in LABELS[task]:
                raise ValueError(f"{key} is {label.value!r}; expected {' or '.join(LABELS[task])}")
            labels[task] = label
    if Task.REQUEST not in labels:
        raise KeyError("request")
    return {
        "labels": labels,
        "category": None if row.get("category") is None else Category(row["category"]),
        "reasoning": {Task(task): tuple(steps) for task, steps in (row.get("reasoning") or {}).items() if steps},
    }


def to_row(item: LabelledInteraction) -> dict[str, Any]:
    """The object that :func:`read_row` reads back."""
    row: dict[str, Any] = {"id": item.id, "source": item.source, "license": item.license, "split": item.split}
    interaction = item.interaction
    if interaction.history or interaction.system is not None:
        turns = [
            ("system", interaction.system),
            *((turn.role, turn.text) for turn in interaction.history),
            ("user", interaction.prompt),
            ("assistant", interaction.response),
        ]
        row["messages"] = [{"role": role, "content": text} for role, text in turns if text is not None]
    else:
        row |= {"prompt": interaction.prompt, "response": interaction.response}
    row |= judgement_row(item)
    row["flag"] = item.doubtful
    return row if item.style is None else {**row, "style": item.style}


def judgement_row(item: LabelledInteraction) -> dict[str, Any]:
    """What :func:`read_judgement` reads back."""
    return {
        **{key: item.labels.get(task) for task, key in _LABEL_KEYS.items()},
        "category": item.category,
        "reasoning": {task: list(steps) for task, steps in item.reasoning.items()} or None,
    }


def write_rows(rows: Iterable[Mapping[str, Any]], file: Path) -> None:
    """Writes a JSONL file, which is there whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.new")
    with new.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    os.replace(new, file)


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
    prompt_format: PromptFormat = PromptFormat.COMPACT,
    chat_template: ChatTemplate | None = None,
) -> Example:
    """The example of one item in one mode.

    ``answer_mode=Mode.VERDICT`` under a think prompt gives the answers alone: what an engine forces when a model's
    reasoning came to no answer.

    Of a label the first token carries ``label_weight``: it tells the labels apart, the rest is spelling. The category's
    word counts as text. Where a harmful request has no known category, the line after its label has no weight, so that
    the model is not taught to leave the category out.
    """
    answer_mode = answer_mode or mode
    prompt = build_prompt(item.interaction, prompt_format, mode, chat_template=chat_template, opened_for=answer_mode)
    ids = encode(prompt)
    weights = [0.0] * len(ids)
    labels = []
    tasks = iter(item.labels)
    names_category = prompt_format is PromptFormat.COMPACT and item.labels[Task.REQUEST] is Label.HARMFUL
    unknown_category = names_category and item.category is None
    for text, is_answer in target_pieces(item.labels, item.category, item.reasoning, answer_mode, prompt_format):
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


if __name__ == "__main__":
    import typer

    from training.prepare import main

    typer.run(main)
