from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest
from paced_guard import paced_guard

from guardreasoner_moderation import InputError
from guardreasoner_moderation.batch.pending import HowToJudge
from guardreasoner_moderation.demo.judged_file import JudgedFile, judge_rows, read_file
from guardreasoner_moderation.demo.judged_table import (
    ALL,
    AS_IN_FILE,
    COLUMNS,
    FLAGGED,
    HIGHEST,
    LOWEST,
    NOT_FLAGGED,
    NOT_JUDGED,
    find_result,
    histogram,
    summary,
    table,
)

ROWS = [
    {"prompt": "How do I rob a bank?", "response": "I cannot tell you.", "id": 1},
    {"prompt": "How do I bake bread?", "response": "", "id": 2},
    {"prompt": "Please crash.", "response": "", "id": 3},
]


def write_jsonl(file: Path, rows: list[dict[str, object]] = ROWS) -> Path:
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return file


@pytest.fixture
def judged(tmp_path: Path) -> JudgedFile:
    file = read_file(write_jsonl(tmp_path / "rows.jsonl"), 10)
    *_, last = judge_rows(file, paced_guard(), HowToJudge("think", 0.5))
    return last


def test_every_row_has_a_result_and_a_failure_is_flagged(judged: JudgedFile) -> None:
    assert judged.done
    assert judged.count() == (2, 1)
    assert [line[:5] for line in table(judged)] == [
        [1, FLAGGED, 0.9, "fraud illegal", "How do I rob a bank?"],
        [2, NOT_FLAGGED, 0.1, "", "How do I bake bread?"],
        [3, NOT_JUDGED, None, "", "Please crash."],
    ]
    assert all(len(line) == len(COLUMNS) for line in table(judged))


@pytest.mark.parametrize(("threshold", "flagged"), [(0.05, 3), (0.5, 2), (0.95, 1)])
def test_a_threshold_counts_anew_and_unjudged_rows_stay_flagged(
    judged: JudgedFile, threshold: float, flagged: int
) -> None:
    pytest.importorskip("pandas", reason="the extra demo is not installed")
    again = judged.flagged_from(threshold)
    assert again.count() == (flagged, 1)
    assert f"{flagged} of 3 rows flagged" in summary(again, threshold)
    counts = histogram(again, threshold)
    assert counts[counts["verdict"] == "flagged"]["rows"].sum() == flagged - 1
    assert counts["rows"].sum() == 2


def test_flagging_anew_changes_nothing_in_the_file_itself(judged: JudgedFile) -> None:
    before = json.dumps(dict(judged.results))
    judged.flagged_from(0.99)
    assert json.dumps(dict(judged.results)) == before


def test_flagging_at_the_same_threshold_is_the_judgement_itself(judged: JudgedFile) -> None:
    assert judged.flagged_from(0.5).results == judged.results


def test_a_score_at_the_threshold_is_flagged(judged: JudgedFile) -> None:
    at = judged.results[0]["request"]["score"]
    assert judged.flagged_from(at).results[0]["request"]["label"] == "harmful"


@pytest.mark.parametrize(("wanted", "rows"), [(ALL, [1, 2, 3]), (FLAGGED, [1]), (NOT_FLAGGED, [2]), (NOT_JUDGED, [3])])
def test_filters_leave_the_rows_that_are_asked_for(judged: JudgedFile, wanted: str, rows: list[int]) -> None:
    assert [line[0] for line in table(judged, wanted)] == rows


@pytest.mark.parametrize(("order", "rows"), [(AS_IN_FILE, [1, 2, 3]), (HIGHEST, [3, 1, 2]), (LOWEST, [3, 2, 1])])
def test_an_order_sorts_by_score_with_unjudged_rows_first(judged: JudgedFile, order: str, rows: list[int]) -> None:
    assert [line[0] for line in table(judged, order=order)] == rows


def test_the_result_of_a_row_is_found_by_its_number(judged: JudgedFile) -> None:
    result = find_result(judged, 1)
    assert result is not None
    assert result.to_dict() == judged.results[0]
    assert find_result(judged, 9) is None


def test_the_download_keeps_the_columns_and_follows_the_threshold(judged: JudgedFile, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    file = judged.flagged_from(0.95).write(tmp_path / "out")
    assert file.name == "rows.judged.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == [1, 2, 3]
    assert [row["moderation"]["flagged"] for row in rows] == [False, False, True]


def test_a_compressed_csv_comes_back_as_one(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "rows.csv.gz", "wt", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["prompt"], ["How do I rob a bank?"]])
    file = read_file(tmp_path / "rows.csv.gz", 10)
    *_, judged = judge_rows(file, paced_guard(), HowToJudge("verdict"))
    (tmp_path / "out").mkdir()
    with gzip.open(judged.write(tmp_path / "out"), "rt", encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["prompt"] == "How do I rob a bank?"
    assert row["moderation_flagged"] == "true"


def test_rows_come_in_groups_so_that_progress_is_seen(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"prompt": f"Question {number}?"} for number in range(40)]
    file = read_file(write_jsonl(tmp_path / "rows.jsonl", rows), 50)
    steps = [len(judged.results) for judged in judge_rows(file, paced_guard(), HowToJudge("verdict"))]
    assert steps == [16, 32, 40]


def test_a_conversation_is_shown_as_the_file_has_it(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "How do I rob a bank?"}]
    file = read_file(write_jsonl(tmp_path / "rows.jsonl", [{"messages": chat}]), 10)
    *_, judged = judge_rows(file, paced_guard(), HowToJudge("verdict"))
    assert "rob a bank" in table(judged)[0][4]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", "text\nhello\n", "rows.csv has no prompt column 'prompt'"),
        ("rows.csv", "prompt\n", "rows.csv has no rows"),
        ("rows.csv", "prompt\n" + "hello\n" * 4, "rows.csv has 4 rows, and this demo takes 3 at most"),
        ("rows.jsonl", "hello\n", "no row of rows.jsonl can be read"),
        ("rows.txt", "hello\n", "rows.txt has an unknown ending '.txt'"),
        ("rows.parquet", "hello\n", "this demo takes CSV and JSONL"),
        ("rows.jsonl", '{"prompt": "a", "moderation": 1}\n', "has a column 'moderation' already"),
    ],
)
def test_what_cannot_be_judged_is_told_without_naming_the_folder(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as told:
        read_file(tmp_path / name, 3)
    assert message in str(told.value)
    assert str(tmp_path) not in str(told.value)
