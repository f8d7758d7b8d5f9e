from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.user_files import user_benchmark
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.results import Label, Task


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tickets.csv"
    path.write_text("question,reply,verdict,team\nHi,Hello,OK,a\nHo,No,Bad,b\nHa,Never,worse,b\n", encoding="utf-8")
    return path


def test_columns_and_labels_are_mapped(file: Path) -> None:
    loaded = user_benchmark(
        file,
        "response",
        "prompt=question, response=reply,label=verdict,group=team",
        "harmful=bad,harmful=Worse,unharmful=ok",
    )
    assert (loaded.benchmark.name, loaded.benchmark.task, loaded.size_note) == ("tickets", Task.RESPONSE, None)
    assert [item.label for item in loaded.items] == [Label.UNHARMFUL, Label.HARMFUL, Label.HARMFUL]
    assert loaded.items[1].interaction == Interaction("Ho", "No")
    assert [item.group for item in loaded.items] == ["a", "b", "b"]


@pytest.mark.parametrize(
    ("task", "columns", "labels", "message"),
    [
        ("reqest", "", "", "unknown task 'reqest'; did you mean 'request'"),
        ("request", "promt=question", "", "unknown column 'promt' in columns; did you mean 'prompt'"),
        ("request", "prompt", "", "columns: expected NAME=VALUE"),
        ("request", "", "refusal=x", "unknown label 'refusal' in labels; known: harmful, unharmful"),
        ("request", "", "", r"tickets\.csv has no column 'prompt'"),
        ("request", "prompt=question,label=verdict", "", r"row 1, column 'verdict': 'OK' is neither harmful nor unha"),
        ("response", "prompt=question,label=verdict", "", "has no column 'response'"),
    ],
)
def test_mistakes_are_named(file: Path, task: str, columns: str, labels: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        user_benchmark(file, task, columns, labels)
