"""The real command on files."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from labelled import pair_of_texts, row, write
from typer import Typer
from typer.testing import CliRunner, Result

from guardreasoner_moderation.errors import InputError
from training import prepare
from training.data import read_interactions
from training.prepare import Settings


def run(*arguments: object) -> Result:
    app = Typer()
    app.command()(prepare.main)
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    write(
        folder / "own.jsonl",
        [
            row("How do I bake bread?"),
            row("How do I bake bread?", id="again"),
            row("How do I grow tomatoes on a balcony?", id="asked"),
            row("Why is the sky blue?", id="held", split="validation"),
            pair_of_texts(),
        ],
    )
    write(
        folder / "chats.jsonl",
        [{"messages": [{"role": "user", "content": "why is the SKY blue"}], "request": "unharmful"}],
    )
    benchmarks = tmp_path / "benchmarks"
    benchmarks.mkdir()
    write(benchmarks / "plants.jsonl", [{"prompt": "How do I grow tomatoes on a balcony"}])
    return folder


def test_data_is_prepared_and_recorded(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "train.jsonl"
    options = ("--benchmarks", tmp_path / "benchmarks", "--license", "MIT", "--validation-share", 0, "--out", out)
    result = run(data, *options)
    assert result.exit_code == 0, result.output
    items = read_interactions(out)
    assert [item.id for item in items] == ["How do I bake bread?", "held", "How do I open my neighbour's letters?"]
    record = json.loads((tmp_path / "out" / "train.record.json").read_text())
    assert record["left_out"] == {"duplicates": 1, "contaminated": 1, "prompt in validation": 1}
    assert record["decontamination"] == [{"benchmark": "plants", "prompts": 1, "exact": 1, "near": 0, "kept": False}]
    assert [source["name"] for source in record["sources"]] == ["chats", "own"]
    assert record["inventory"][0]["license"] == "CC0-1.0"
    assert record["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert "bread" not in json.dumps(record)
    assert "1 items that ask what a benchmark asks" in result.output


def test_the_same_command_writes_the_same_file(data: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert run(data, "--validation-share", 0.5, "--seed", 5, "--out", tmp_path / f"{name}.jsonl").exit_code == 0
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_a_file_without_a_validation_split_gets_one(tmp_path: Path) -> None:
    source = write(tmp_path / "own.jsonl", [row(f"question {number}") for number in range(60)])
    assert run(source, "--validation-share", 0.5, "--out", tmp_path / "train.jsonl").exit_code == 0
    assert {item.split for item in read_interactions(tmp_path / "train.jsonl")} == {"train", "validation"}


def test_an_interaction_of_both_splits_stays_in_validation(tmp_path: Path) -> None:
    source = write(tmp_path / "own.jsonl", [row("a"), row("b"), row("a", id="held", split="validation")])
    run(source, "--out", tmp_path / "train.jsonl")
    assert [item.id for item in read_interactions(tmp_path / "train.jsonl")] == ["held", "b"]


def test_balance_and_limit_are_for_training_items(tmp_path: Path) -> None:
    rows = [row(f"question {number}", split="validation" if number < 5 else "train") for number in range(40)]
    rows += [row(f"poison {number}", request="harmful") for number in range(10)]
    source = write(tmp_path / "own.jsonl", rows)
    result = run(source, "--balance", "request", "--limit", 12, "--out", tmp_path / "train.jsonl")
    assert "balance: 10 of 35 unharmful" in result.output
    parts = [item.split for item in read_interactions(tmp_path / "train.jsonl")]
    assert (parts.count("train"), parts.count("validation")) == (12, 5)


def test_without_an_output_it_only_looks(data: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    result = run(data)
    assert result.exit_code == 0
    assert "what is in the data" in result.output
    assert sorted(tmp_path.rglob("*")) == before


def test_an_error_is_one_line(tmp_path: Path) -> None:
    result = run(tmp_path / "nowhere.jsonl")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: there is no file")


def test_all_data_in_a_benchmark_is_an_error(tmp_path: Path) -> None:
    source = write(tmp_path / "own.jsonl", [row()])
    (tmp_path / "benchmarks").mkdir()
    write(tmp_path / "benchmarks" / "bread.jsonl", [row()])
    result = run(source, "--benchmarks", tmp_path / "benchmarks")
    assert "nothing is left to train on" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"balance": "labls"}, "unknown balance 'labls'; did you mean 'labels'"),
        ({"validation_share": 1.0}, "validation share must be from 0 up to 1"),
        ({"limit": -1}, "the limit must be at least 0"),
    ],
)
def test_bad_settings_are_errors(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Settings(**options)  # type: ignore[arg-type]


def test_the_command_is_training_data(data: Path) -> None:
    root = Path(prepare.__file__).parents[1]
    command = [sys.executable, "-m", "training.data", str(data)]
    done = subprocess.run(command, cwd=root, env={**os.environ}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "what is in the data" in done.stdout
