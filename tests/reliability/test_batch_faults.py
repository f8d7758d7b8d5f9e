"""Every fault once or twice, on real processes; ``reliability.batch_faults`` is the long form."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from guardreasoner_moderation.batch.journal import Journal
from reliability import batch_faults as faults
from reliability.jobs import Job, Losses, losses, write_rows

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals and a fork server")


def test_killed_at_random_moments(tmp_path: Path) -> None:
    trial = faults.killed(tmp_path, kills=2, rows=60, embedded=False)
    assert (trial.tried, trial.failed) == (2, 0)


def test_a_second_run_is_refused_and_the_lock_of_a_killed_one_is_free(tmp_path: Path) -> None:
    assert faults.two_runs(tmp_path, tries=1).failed == 0


def test_many_runs_at_once_do_the_job_once(tmp_path: Path) -> None:
    assert faults.many_at_once(tmp_path, tries=2).failed == 0


@pytest.mark.parametrize("ending", ["jsonl", "csv.gz", "parquet"])
def test_a_full_disk_is_told_and_loses_nothing(tmp_path: Path, ending: str) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    try:
        trial = faults.full_disk(tmp_path, ending=ending, step=3)
    except PermissionError as exc:
        pytest.skip(str(exc))
    assert trial.tried > 1
    assert trial.failed == 0


def test_files_that_are_removed_underneath_are_told(tmp_path: Path) -> None:
    assert faults.removed(tmp_path, tries=1).failed == 0


def test_an_input_that_changes_is_refused(tmp_path: Path) -> None:
    assert faults.input_changed(tmp_path, tries=1).failed == 0


def test_an_input_that_is_removed_is_told(tmp_path: Path) -> None:
    assert faults.input_removed(tmp_path, tries=1).failed == 0


def test_a_journal_cut_anywhere_is_gone_on_with(tmp_path: Path) -> None:
    assert faults.journal_cut(tmp_path / "cut", rows=4, step=37).failed == 0


def test_what_may_not_be_read_or_written_is_told(tmp_path: Path) -> None:
    assert faults.permission_denied(tmp_path).failed == 0


def test_a_loss_is_found(tmp_path: Path) -> None:
    job = Job(write_rows(tmp_path / "in.jsonl", 10), tmp_path / "out.jsonl")
    assert losses(job, 10) == Losses(lost=10)
    job.run_here()
    assert losses(job, 10) == Losses()
    lines = job.target.read_text().splitlines(keepends=True)
    job.target.write_text("".join([*lines[:4], lines[3], *lines[5:]]).replace('"flagged": true', '"flagged": false'))
    assert losses(job, 10) == Losses(lost=1, twice=1, wrong=2)


def test_a_fault_that_costs_rows_counts_as_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Journal, "_load", lambda journal: 0)  # forgets what was done, and cuts the job's line off
    assert faults.journal_cut(tmp_path / "cut", rows=4, step=100).failed > 0
