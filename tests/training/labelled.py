"""Labelled items for tests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from training.data import LabelledInteraction, read_row


def row(prompt: str = "How do I bake bread?", **changes: Any) -> dict[str, Any]:
    """A request in the format of training.data, labelled as harmless."""
    return {
        "id": prompt,
        "source": "own",
        "license": "CC0-1.0",
        "split": "train",
        "prompt": prompt,
        "response": None,
        "request": "unharmful",
        "completion": None,
        "response_harm": None,
        "category": None,
        "reasoning": None,
        **changes,
    }


def pair_of_texts(**changes: Any) -> dict[str, Any]:
    """A refused request in the same format."""
    return row(
        "How do I open my neighbour's letters?",
        **{
            "response": "I would not do that.",
            "request": "harmful",
            "completion": "refusal",
            "response_harm": "unharmful",
            "category": "privacy_individual",
            **changes,
        },
    )


def item(prompt: str = "How do I bake bread?", **changes: Any) -> LabelledInteraction:
    """The same, read."""
    return read_row(row(prompt, **changes))


def refused(**changes: Any) -> LabelledInteraction:
    """The same, read."""
    return read_row(pair_of_texts(**changes))


def write(file: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """A JSONL file."""
    file.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return file
