from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.split_items import read_split
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.results import Label, Task


def row(**changes: Any) -> dict[str, Any]:
    whole = {"prompt": "How do I bake?", "response": "With flour.", "request": "unharmful", "split": "validation"}
    return {**whole, "response_harm": "unharmful", **changes}


def write(file: Path, *rows: dict[str, Any]) -> Path:
    file.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return file


def test_labelled_responses_of_the_split_are_read(tmp_path: Path) -> None:
    others = [row(split="train"), row(flag="odd"), row(response=None, response_harm=None)]
    file = write(tmp_path / "made.jsonl", row(), row(response_harm="harmful"), *others, row(response="No."))
    items = read_split([file], "validation", Task.RESPONSE)
    assert [one.id for one in items] == ["made.jsonl/1", "made.jsonl/2", "made.jsonl/6"]
    assert [one.label for one in items] == [Label.UNHARMFUL, Label.HARMFUL, Label.UNHARMFUL]
    assert items[2].interaction.response == "No."


def test_prompts_are_read_alone_and_once(tmp_path: Path) -> None:
    file = write(tmp_path / "made.jsonl", row(), row(response="No."), row(prompt="How do I rob?", request="harmful"))
    items = read_split([file], "validation", Task.REQUEST)
    assert [(one.interaction.prompt, one.interaction.response) for one in items] == [
        ("How do I bake?", None),
        ("How do I rob?", None),
    ]


def test_reading_names_what_is_wrong(tmp_path: Path) -> None:
    file = write(tmp_path / "made.jsonl", row(), row(response_harm="harmful"))
    with pytest.raises(InputError, match="'test' needs harmful and unharmful items, found 0"):
        read_split([file], "test", Task.RESPONSE)
    bad = write(tmp_path / "bad.jsonl", row(response_harm="bad"))
    with pytest.raises(InputError, match="row 1, column 'response_harm': 'bad' is no label"):
        read_split([bad], "validation", Task.RESPONSE)
