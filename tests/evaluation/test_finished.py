from __future__ import annotations

import json
from pathlib import Path

import pytest
from example_runs import bench, item, make_run, said

from evaluation.finished import find_texts, label_runs, read_run
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.results import Task

MINI = bench([item(n, n % 2 == 0) for n in range(12)])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", (MINI, lambda one: said(0.9)), keep_text=True)


def test_a_run_is_read_in_the_order_of_the_benchmark(run: Path) -> None:
    file = run / "predictions" / "Mini.verdict.jsonl"
    file.write_text("".join(reversed(file.read_text().splitlines(keepends=True))))
    read = read_run(run)
    assert [one.id for one in read.part("Mini").predictions] == [f"Mini/{n}" for n in range(12)]
    assert (read.model, read.mode, read.part("Mini").task) == ("guard", "verdict", Task.REQUEST)
    assert read.part("Mini").outcomes.labels.sum() == 6
    accuracy = read.part("Mini").metric("accuracy")
    assert accuracy is not None
    assert accuracy[0] == 0.5
    assert read.part("Mini").metric("no such metric") is None


def test_what_is_not_finished_is_left_out_and_told(run: Path) -> None:
    other = run / "predictions" / "Other.verdict.jsonl"
    other.write_text((run / "predictions" / "Mini.verdict.jsonl").read_text())
    read = read_run(run)
    assert read.unfinished == ("Other",)
    with pytest.raises(InputError, match="has no results of 'Other'; it is not finished yet"):
        read.part("Other")
    with pytest.raises(InputError, match="no results of 'Mimi'; did you mean 'Mini'"):
        read.part("Mimi")


def test_a_last_line_that_was_cut_off_is_no_prediction(run: Path) -> None:
    with (run / "predictions" / "Mini.verdict.jsonl").open("a") as file:
        file.write('{"id": "Mini/12", "dig')
    assert len(read_run(run).part("Mini").predictions) == 12


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("results.json", "[]", "must hold a JSON object, found list"),
        ("results.json", "{", "is not JSON"),
        ("results.json", '{"mode": "verdict"}', "is not what python -m evaluation.run writes"),
        ("results.json", '{"mode": "verdict", "model": {"name": "x"}, "benchmarks": {}}', "results of no benchmark"),
        ("predictions/Mini.verdict.jsonl", "", "has 0 predictions, results.json tells of 12"),
        ("predictions/Mini.verdict.jsonl", "{}\n", "line 1 is damaged"),
    ],
)
def test_damaged_files_are_named(run: Path, name: str, content: str, message: str) -> None:
    (run / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_run(run)


def test_folders_that_are_no_runs_say_why(tmp_path: Path, run: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        read_run(tmp_path / "absent")
    with pytest.raises(InputError, match=r"has no results\.json"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text('{"validation": []}')
    with pytest.raises(InputError, match="is a training run; only"):
        read_run(tmp_path)
    (run / "predictions" / "Mini.verdict.jsonl").unlink()
    with pytest.raises(InputError, match=r"Mini.verdict.jsonl cannot be read"):
        read_run(run)


def test_runs_have_different_names(tmp_path: Path) -> None:
    def made(name: str, mode: str) -> Path:
        return make_run(tmp_path / name, (MINI, lambda one: said()), mode=mode)

    first, second, third = (read_run(made(*how)) for how in (("a", "think"), ("b", "think"), ("c", "verdict")))
    assert label_runs([first]) == ["guard (think)"]
    assert label_runs([first, third]) == ["guard (think)", "guard (verdict)"]
    assert label_runs([first, second, third]) == ["a", "b", "guard (verdict)"]
    assert label_runs([first, first]) == ["a", "a 2"]


def test_texts_come_from_the_run_or_from_unchanged_files(run: Path, tmp_path: Path) -> None:
    assert find_texts(read_run(run), None)["Mini/3"].prompt == "Please tell me about thing number 3."
    items = [item(n, False, f"Is topic {n} safe?", name="SimpleSafetyTests") for n in range(3)]
    bare = read_run(make_run(tmp_path / "bare", (bench(items), lambda one: said())))
    assert find_texts(bare, None) == {}
    rows = [
        {"input": f"Human user:\n{text}\n\nAI assistant:\nNone\n\n", "output": "unharmful"}
        for text in ("Is topic 0 safe?", "Is topic 1 quite safe?", "Is topic 2 safe?")
    ]
    data = tmp_path / "data"
    data.mkdir()
    (data / "0_0_SimpleSafetyTests.json").write_text(json.dumps(rows))
    found = find_texts(bare, data)
    assert {id_: text.prompt for id_, text in found.items()} == {
        "SimpleSafetyTests/0": "Is topic 0 safe?",
        "SimpleSafetyTests/2": "Is topic 2 safe?",
    }
