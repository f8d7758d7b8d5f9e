"""A job that is killed goes on where it ended: real processes, SIGKILL."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from batches import measure, read_jsonl, run_to_end, some_rows, start, without_seconds, work, work_and_die, write_jsonl

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals and a fork server")


def reference(source: Path, settings: dict[str, Any], guard: dict[str, Any]) -> list[dict[str, Any]]:
    """What an undisturbed run writes."""
    target = source.with_name("reference.jsonl")
    run_to_end(work, source, target, settings, guard)
    return without_seconds(target)


def test_killed_at_twenty_random_moments_the_output_is_complete(tmp_path: Path) -> None:
    rows = 600
    source = write_jsonl(tmp_path / "in.jsonl", some_rows(rows))
    settings: dict[str, Any] = {"window_size": 8}
    expected = reference(source, settings, {})
    target = tmp_path / "out.jsonl"
    journal = tmp_path / "out.jsonl.unfinished" / "journal.jsonl"
    dice = random.Random(0)
    sizes: list[int] = []
    while len(sizes) < 20:
        process = start(work, source, target, settings, {"pace": 0.001})
        grown = (journal.stat().st_size if journal.exists() else 0) + dice.randrange(3000)
        while process.is_alive() and not target.exists() and (not journal.exists() or journal.stat().st_size < grown):
            time.sleep(0.001)
        time.sleep(dice.uniform(0, 0.02))
        process.kill()
        process.join()
        if target.exists():  # on a busy machine it may be done before all kills
            run_to_end(work, source, target, settings, {})
            assert without_seconds(target) == expected
            target.unlink()
        else:
            sizes.append(journal.stat().st_size)
    assert len(set(sizes)) > 5  # it was killed at different places
    run_to_end(work, source, target, settings, {})
    assert without_seconds(target) == expected
    assert [row["id"] for row in read_jsonl(target)] == list(range(rows))
    assert sorted(file.name for file in tmp_path.glob("out*")) == ["out.jsonl", "out.jsonl.job.json"]


def steps_of(source: Path, target: Path, settings: dict[str, Any], guard: dict[str, Any]) -> int:
    counted = target.with_name("counted")
    run_to_end(work_and_die, source, target, settings, guard, -1, counted)
    return int(counted.read_text())


def test_killed_before_each_operation_on_files_the_output_is_complete(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", some_rows(8))
    settings: dict[str, Any] = {"window_size": 4}
    expected = reference(source, settings, {})
    (tmp_path / "trial").mkdir()
    count = steps_of(source, tmp_path / "trial" / "out.jsonl", settings, {})
    assert count > 10
    for step in range(count):
        folder = tmp_path / f"step-{step}"
        folder.mkdir()
        target = folder / "out.jsonl"
        process = start(work_and_die, source, target, settings, {}, step, None)
        process.join()
        assert process.exitcode == -9
        run_to_end(work, source, target, settings, {})
        assert without_seconds(target) == expected, f"killed before step {step}"
        assert sorted(file.name for file in folder.iterdir()) == ["out.jsonl", "out.jsonl.job.json"]


def test_killed_before_each_operation_of_a_retry_the_output_is_complete(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", some_rows(8))
    settings: dict[str, Any] = {"window_size": 4}
    expected = reference(source, settings, {})
    retry = {**settings, "retry_errors": True}

    def with_errors(folder: Path) -> Path:
        folder.mkdir()
        run_to_end(work, source, folder / "out.jsonl", settings, {"fails_on": "bomb"})
        assert [bool(row["moderation"].get("error")) for row in read_jsonl(folder / "out.jsonl")].count(True) == 2
        return folder / "out.jsonl"

    count = steps_of(source, with_errors(tmp_path / "trial"), retry, {})
    for step in range(count):
        target = with_errors(tmp_path / f"step-{step}")
        process = start(work_and_die, source, target, retry, {}, step, None)
        process.join()
        assert process.exitcode == -9
        run_to_end(work, source, target, retry, {})
        assert without_seconds(target) == expected, f"killed before step {step}"
        assert sorted(file.name for file in target.parent.iterdir()) == ["out.jsonl", "out.jsonl.job.json"]


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    peaks = []
    for count in (500, 5_000):
        source = write_jsonl(tmp_path / f"{count}.jsonl", [{"prompt": "x", "text": "y" * 4000} for _ in range(count)])
        run_to_end(measure, source, tmp_path / f"{count}.out.jsonl", tmp_path / "report")
        peaks.append(float((tmp_path / "report").read_text()))
    assert peaks[1] < peaks[0] + 6, peaks  # MiB; the longer file has 20 of text
