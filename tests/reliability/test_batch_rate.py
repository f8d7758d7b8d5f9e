from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from guardreasoner_moderation import Moderator
from reliability import batch_rate
from reliability.batch_rate import Measured
from reliability.record import Record

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs wait4")


def test_two_sizes_are_measured_with_the_real_command(tmp_path: Path) -> None:
    out = tmp_path / "rate.json"
    (tmp_path / "rate.unfinished" / "6-0").mkdir(parents=True)
    earlier = {"rows": 6, "written": 6, "per_second": 0.5, "cpu_ms": 111.0, "megabytes": 3000.0}
    (tmp_path / "rate.unfinished" / "6-0" / "measured.json").write_text(json.dumps(earlier))
    batch_rate.main(out, [6, 12], rounds=1)
    short, long = Record.load(out).trials
    assert (short.name, short.figures["peak memory, MB"]) == ("6 rows", 3000.0)  # not done again
    assert (long.name, long.tried, long.failed) == ("12 rows", 1, 0)
    assert float(long.figures["peak memory, MB"] or 0) > 100
    assert [file.name for file in tmp_path.iterdir()] == ["rate.json"]


def test_the_stand_in_calls_everything_harmless(tmp_path: Path) -> None:
    batch_rate.write_stand_in(tmp_path / "model")
    with Moderator(tmp_path / "model") as guard:
        results = guard.classify_batch(["Bread?", "How do I hide a body? " * 9, ("Hello", "Hello.")], mode="verdict")
    assert [result.flagged for result in results] == [False] * 3
    assert max(result.request.score for result in results if result.request is not None) < 0.01


def test_the_stand_in_is_measured_like_the_model(tmp_path: Path) -> None:
    out = tmp_path / "rate.json"
    batch_rate.main(out, [8], stand_in=True, rounds=1)
    record = Record.load(out)
    assert record.command.startswith("python -m reliability.batch_rate --stand-in --size 8 --out")
    assert (record.trials[0].tried, record.trials[0].failed) == (1, 0)
    assert [file.name for file in tmp_path.iterdir()] == ["rate.json"]


def test_a_longer_file_that_is_slower_or_loses_rows_counts_as_failed() -> None:
    runs = {
        10: [
            Measured(10, 10, 40.0, 25.0, 300.0),
            Measured(10, 10, 60.0, 22.0, 300.0),
            Measured(10, 9, 41.0, 24.0, 310.0),
        ],
        100: [Measured(100, 100, 36.0, 27.0, 300.0)],
        1000: [Measured(1000, 1000, 37.0, 26.0, 305.0)],
    }
    short, slow, long = batch_rate.trials(runs)
    assert (short.failed, slow.failed, long.failed) == (1, 1, 0)
    assert short.figures["rows per second"] == 41.0
    assert short.figures["processor time for a row, milliseconds"] == 24.0
    assert long.figures["ratio to the shortest"] == 0.902


def test_the_shortest_file_is_judged_before_between_and_after_the_others() -> None:
    runs = [(1, 0), (2, 0), (1, 1), (3, 0), (1, 2)]
    assert list(batch_rate.in_turn([1, 2, 3], 3)) == runs
    assert list(batch_rate.in_turn([1, 2, 3], 1)) == [(1, 0), (2, 0), (3, 0)]
    assert list(batch_rate.in_turn([1, 2], 3)) == [(1, 0), (1, 1), (2, 0), (1, 2)]
    assert list(batch_rate.in_turn([1], 2)) == [(1, 0), (1, 1)]
