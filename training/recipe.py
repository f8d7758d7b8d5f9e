"""Training recipes: YAML files, read strictly."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from guardreasoner_moderation.checks import finite_number, whole_number
from guardreasoner_moderation.errors import InputError, nearest, shown
from texts.strict_yaml import read_yaml

R = TypeVar("R")

PRECISIONS = ("fp32", "bf16", "nf4")


@dataclass(frozen=True, slots=True)
class DataSource:
    """One file of labelled interactions.

    Attributes:
        file: name of a JSONL file in the data folder.
        think_share: share of the items, drawn by the seed, that are shown with their reasoning (and, after the same
            prompt, with the answers alone); the others, and all without reasoning, are shown in verdict mode.
    """

    file: str
    think_share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.think_share <= 1:
            raise InputError(f"think_share must be between 0 and 1, found {self.think_share}")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides a reasoning SFT run, apart from the machine.

    Attributes:
        base: short name of the base model.
        data: what is learned from; the items whose split is ``validation`` are held out.
        max_tokens: items with a longer sequence are left out, and counted.
        rank, alpha: of the LoRA on all linear layers of the decoder; no dropout.
        rank_stabilized: scale the LoRA by alpha / sqrt(rank) in place of alpha / rank (arXiv 2312.03732).
        first_layer: the layers before it get no LoRA, so that no gradient has to reach them.
        epochs: passes over the data.
        max_steps: stop after so many optimiser steps; 0 for all of them.
        batch_size: items of one optimiser step.
        token_budget: tokens of one forward pass; a batch is split to fit, and the budget halved where memory runs out.
        precision: ``fp32``, or ``bf16`` for matrix products in bfloat16 over a base in bfloat16: about twice as fast
            on a processor that has such instructions, or ``nf4`` for these over a base whose matrices were rounded to
            4 bits first, as by QLoRA (:mod:`training.nf4`). The adapter and its optimizer are in float32 in any case.
        learning_rate, weight_decay, max_grad_norm: of AdamW.
        warmup_steps, decay_share: linear warm-up, constant rate, linear decay to zero over that share of the steps at
            the end (arXiv 2404.06395, section 4): unlike a cosine, a run can be cut short before the decay begins.
        label_weight: loss weight of the token that tells a label from the other.
        seed: of the adapter's initialisation, the order and the modes.
        eval_steps: optimiser steps between two looks at the validation split.
        eval_items: how many validation items such a look takes, drawn by the seed, at every look the same. The adapter
            of the look with the least loss is the run's; it is then measured on all items.
        save_minutes: time between two resumable checkpoints.
    """

    base: str
    data: tuple[DataSource, ...]
    max_tokens: int = 640
    rank: int = 16
    alpha: int = 32
    rank_stabilized: bool = False
    first_layer: int = 0
    epochs: int = 1
    max_steps: int = 0
    batch_size: int = 16
    token_budget: int = 1100
    precision: str = "fp32"
    learning_rate: float = 5e-4
    warmup_steps: int = 30
    decay_share: float = 0.4
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    label_weight: float = 10.0
    seed: int = 0
    eval_steps: int = 100
    eval_items: int = 160
    save_minutes: float = 5.0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(f"unknown precision {self.precision!r}{nearest(self.precision, PRECISIONS)}")
        for name in ("max_tokens", "rank", "alpha", "epochs", "batch_size", "token_budget", "eval_steps", "eval_items"):
            whole_number(name, getattr(self, name))
        for name in ("first_layer", "max_steps", "warmup_steps"):
            whole_number(name, getattr(self, name), least=0)


def read_recipe(path: Path) -> Recipe:
    """Reads a recipe of :mod:`training.rsft`; see :func:`read_strictly`."""
    return read_strictly(path, Recipe)


def read_strictly(path: Path, kind: type[R]) -> R:
    """Reads a recipe, of which ``kind`` is the dataclass.

    Raises:
        InputError: all unknown keys (with the nearest known one), missing keys and values of a wrong type, at once.
    """
    content = read_yaml(path)
    problems: list[str] = []
    recipe = _build(kind, content, "", problems)
    if problems:
        raise InputError(f"{path}: " + "; ".join(problems))
    assert isinstance(recipe, kind)  # noqa: S101 - narrows the type; _build reports everything else as a problem
    return recipe


def _build(kind: type[Any], content: Any, where: str, problems: list[str]) -> Any:
    if not isinstance(content, dict):
        problems.append(f"{where or 'the recipe'} must be a mapping, found {type(content).__name__}")
        return None
    hints = typing.get_type_hints(kind)
    known = {field.name: field for field in dataclasses.fields(kind)}
    count = len(problems)
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key not in known:
            name = key[:80] if isinstance(key, str) else shown(key)
            problems.append(f"unknown key {where}{name}{nearest(key, known)}")
        elif typing.get_origin(hints[key]) is tuple:
            inner = typing.get_args(hints[key])[0]
            rows = value if isinstance(value, list) else [value]
            values[key] = tuple(_build(inner, row, f"{where}{key}[{n}].", problems) for n, row in enumerate(rows))
        elif dataclasses.is_dataclass(hints[key]):
            values[key] = _build(typing.cast(type, hints[key]), value, f"{where}{key}.", problems)
        elif hints[key] is float and type(value) in (int, float):
            try:
                values[key] = finite_number(f"{where}{key}", value)
            except InputError as exc:
                problems.append(str(exc))
        elif type(value) is not hints[key]:
            problems.append(f"{where}{key} must be of type {hints[key].__name__}, found {shown(value)}")
        else:
            values[key] = value
    missing = [name for name, field in known.items() if field.default is dataclasses.MISSING and name not in content]
    problems += [f"the key {where}{name} is missing" for name in missing]
    if len(problems) > count:
        return None
    try:
        return kind(**values)
    except InputError as exc:
        problems.append(f"{where.rstrip('.') or 'the recipe'}: {exc}")
        return None
