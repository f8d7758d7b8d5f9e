"""Preference pairs: two answers of a model to one item, the right one chosen, the wrong one rejected.

One JSON object a line: the item in the format of :mod:`training.data`, ``chosen`` and ``rejected`` with the labels,
category and reasoning of the two answers in the same keys, ``weight``, how many answers were ``right`` and ``wrong``,
and the ``model`` that gave them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from training.data import LabelledInteraction, judgement_row, read_judgement, read_row, read_rows, to_row


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """One pair.

    Attributes:
        item: with its true labels.
        chosen, rejected: the item with the labels, category and reasoning of an answer, so that an example is built of
            either as of any item.
        weight: alpha of HS-DPO.
        right, wrong: of the model's answers.
        model: who gave them.
    """

    item: LabelledInteraction
    chosen: LabelledInteraction
    rejected: LabelledInteraction
    weight: float
    right: int
    wrong: int
    model: str


def read_pairs(file: Path) -> list[PreferencePair]:
    """Reads a file of pairs.

    Raises:
        InputError: a line is not JSON or lacks something; the message names file and line.
    """
    return read_rows(file, _read_pair, "pairs")


def pair_row(pair: PreferencePair) -> dict[str, Any]:
    """The object that :func:`read_pairs` reads back."""
    return {
        **to_row(pair.item),
        "chosen": judgement_row(pair.chosen),
        "rejected": judgement_row(pair.rejected),
        "weight": pair.weight,
        "right": pair.right,
        "wrong": pair.wrong,
        "model": pair.model,
    }


def _read_pair(row: dict[str, Any]) -> PreferencePair:
    item = read_row(row)
    chosen, rejected = (replace(item, **read_judgement(row[side])) for side in ("chosen", "rejected"))
    for side, answer in (("chosen", chosen), ("rejected", rejected)):
        if not answer.can_think:
            raise ValueError(f"the {side} answer lacks reasoning")
    return PreferencePair(
        item, chosen, rejected, float(row["weight"]), int(row["right"]), int(row["wrong"]), str(row["model"])
    )
