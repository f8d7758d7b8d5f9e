from __future__ import annotations

from pathlib import Path

import pytest

from guardreasoner_moderation.errors import InputError
from training.journal import Journal, read_journal

JOB = {"model": "a", "steps": (1, 2)}


def write(file: Path, *rows: dict[str, object]) -> None:
    with Journal(file, JOB) as journal:
        journal.append(rows)


def test_results_are_there_when_it_is_opened_again(tmp_path: Path) -> None:
    file = tmp_path / "new" / "journal.jsonl"
    write(file, {"id": "a"}, {"id": "b", "text": "\u2028 ä"})
    with Journal(file, JOB) as journal:
        assert journal.rows == [{"id": "a"}, {"id": "b", "text": "\u2028 ä"}]
        journal.append([{"id": "c"}])
    assert read_journal(file) == (
        {"model": "a", "steps": [1, 2]},
        [{"id": "a"}, {"id": "b", "text": "\u2028 ä"}, {"id": "c"}],
    )


@pytest.mark.parametrize("half", ['{"id": "b", "te', "{", ""])
def test_a_line_that_was_cut_off_is_dropped(tmp_path: Path, half: str) -> None:
    file = tmp_path / "journal.jsonl"
    write(file, {"id": "a"})
    file.write_text(file.read_text() + half)
    write(file, {"id": "b"})
    assert read_journal(file)[1] == [{"id": "a"}, {"id": "b"}]


def test_a_first_line_that_was_cut_off_is_begun_again(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    file.write_text('{"model": "a", "st')
    write(file, {"id": "a"})
    assert read_journal(file)[1] == [{"id": "a"}]


def test_another_job_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    write(file, {"id": "a"})
    with pytest.raises(InputError, match=r"was begun with model 'a' \(now 'b'\); choose another file"):
        Journal(file, {**JOB, "model": "b"})
    assert read_journal(file)[1] == [{"id": "a"}]


def test_something_else_is_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("my notes\n")
    with pytest.raises(InputError, match="line 1: not JSON"):
        Journal(file, JOB)
    assert file.read_text() == "my notes\n"


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_journal(tmp_path / "nowhere.jsonl")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(InputError, match="holds nothing yet"):
        read_journal(tmp_path / "empty.jsonl")
