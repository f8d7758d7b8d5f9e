from __future__ import annotations

import json
from pathlib import Path

import pytest
from samples import REPOSITORY, public_data, write_lines
from typer import Typer
from typer.testing import CliRunner

from evaluation.polarity import MEASURED_READING, main, measure_reading, read_polarity
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.results import Label, Task

APP = Typer()
APP.command()(main)


@pytest.mark.parametrize(
    ("task", "steps", "expected"),
    [
        (Task.REQUEST, ["The user wants a fake invoice.", "It would deceive the victim and steal money."], "harmful"),
        (Task.REQUEST, ["The user asks how to kill a process.", "It is an ordinary programming task."], "unharmful"),
        (Task.REQUEST, ["Nothing here is illegal or dangerous."], "unharmful"),
        (Task.REQUEST, ["The request is not harmful."], "unharmful"),
        (Task.REQUEST, ["The user asks about a table."], None),
        (Task.REQUEST, [], None),
        (Task.COMPLETION, ["The assistant declines to help."], "refusal"),
        (Task.COMPLETION, ["It lists the steps and gives detailed instructions."], "compliance"),
        (Task.COMPLETION, ["The assistant does not refuse; it explains every step."], "compliance"),
        (Task.COMPLETION, ["It won't answer the question."], "refusal"),
        (Task.RESPONSE, ["The reply contains no dangerous or illegal advice."], "unharmful"),
        (Task.RESPONSE, ["The answer facilitates fraud and theft."], "harmful"),
    ],
)
def test_the_last_sentences_tell_the_label(task: Task, steps: list[str], expected: str | None) -> None:
    assert read_polarity(steps, task) == (None if expected is None else Label(expected))


def test_early_sentences_do_not_count() -> None:
    steps = ["Fraud, theft and violence."] + ["It is an ordinary question about cooking."] * 3
    assert read_polarity(steps, Task.REQUEST) is Label.UNHARMFUL


def rows(*more: dict[str, object]) -> list[dict[str, object]]:
    harmful = {
        "request": "harmful",
        "split": "validation",
        "reasoning": {"request": ["It would enable theft and fraud."]},
    }
    open_ended = {"request": "unharmful", "split": "validation", "reasoning": {"request": ["A table is asked about."]}}
    wrong = {"request": "unharmful", "split": "validation", "reasoning": {"request": ["It would enable fraud, theft."]}}
    return [harmful, open_ended, wrong, {**wrong, "flag": "odd"}, {**wrong, "split": "train"}, *more]


def test_reading_is_measured_on_known_labels(tmp_path: Path) -> None:
    measured = measure_reading([write_lines(tmp_path / "known.jsonl", rows())])
    assert list(measured) == ["request"]
    assert (measured["request"]["read"]["count"], measured["request"]["n"]) == (2, 3)
    assert (measured["request"]["right"]["count"], measured["request"]["right"]["of"]) == (1, 2)


def test_measuring_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no labelled reasoning in the split 'test'"):
        measure_reading([write_lines(tmp_path / "known.jsonl", rows())], split="test")
    bad = {"request": "bad", "split": "validation", "reasoning": {"request": ["It is."]}}
    with pytest.raises(InputError, match=r"row 6, column 'request': 'bad' is no label"):
        measure_reading([write_lines(tmp_path / "bad.jsonl", rows(bad))])


def test_the_command_prints_and_writes(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "known.jsonl", rows())
    done = CliRunner().invoke(APP, [str(file), "-o", str(tmp_path / "out.json")])
    assert "request         3 reasonings, read 66.7" in done.output
    assert json.loads((tmp_path / "out.json").read_text())["files"] == ["known.jsonl"]
    failed = CliRunner().invoke(APP, [str(tmp_path / "absent.jsonl")])
    assert failed.exit_code == 2


def test_the_committed_figures_are_what_is_measured() -> None:
    files = [public_data() / "train" / "interactions.jsonl", REPOSITORY / "training" / "datasets" / "written.jsonl"]
    committed = json.loads(MEASURED_READING.read_text())
    assert committed["files"] == [file.name for file in files]
    assert committed["tasks"] == measure_reading(files)
