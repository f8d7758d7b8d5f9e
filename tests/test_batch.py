"""The course of a job: order, going on, retrying, refusing, and the command."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from batches import COMPACT, InstantRunner, guard_that_knows, read_jsonl, some_rows, without_seconds, write_jsonl
from typer.testing import CliRunner

from guardreasoner_moderation import EngineError, InputError, MissingDependencyError, ModerationError, Moderator, cli
from guardreasoner_moderation.batch import Columns, LocalRunner, Progress, judge_file
from guardreasoner_moderation.batch.journal import Done, Journal, read_job
from guardreasoner_moderation.batch.pending import Pending
from guardreasoner_moderation.batch.progress import describe, duration
from guardreasoner_moderation.engines.scripted import ScriptedEngine
from guardreasoner_moderation.prompts import Prompt


class Counting:
    """A guard that notes what it is asked, and breaks down at the ``fails_after``-th text."""

    def __init__(self, fails_after: int = 10**9, **options: Any) -> None:
        self.asked: list[str] = []
        self._fails_after = fails_after
        self.guard = Moderator.from_engine(ScriptedEngine(self._reply), COMPACT, **options)

    def _reply(self, prompt: Prompt) -> str:
        if len(self.asked) >= self._fails_after:
            raise KeyboardInterrupt
        self.asked.append(prompt.text.split("number ")[1].split()[0])
        return " harmful" if "bomb" in prompt.text else " unharmful"


def judge(source: Path, target: Path, guard: Any = None, **settings: Any) -> Any:
    return judge_file(source, target, guard or guard_that_knows(), **{"mode": "verdict", **settings})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "in.jsonl", some_rows(50))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def test_rows_are_judged_by_length_within_a_window_and_written_in_order(source: Path, target: Path) -> None:
    counting = Counting()
    judge(source, target, LocalRunner(counting.guard, rows_at_once=4), window_size=20)
    lengths = [len(row["prompt"]) for row in some_rows(50)]
    asked = [int(number) for number in counting.asked]
    assert sorted(asked) == list(range(50))
    assert [sorted(asked[start : start + 20]) == list(range(start, start + 20)) for start in (0, 20)] == [True] * 2
    assert [lengths[number] for number in asked[:20]] == sorted(lengths[:20])
    assert [row["id"] for row in read_jsonl(target)] == list(range(50))
    assert [row["moderation"]["flagged"] for row in read_jsonl(target)] == [number % 5 == 0 for number in range(50)]


def test_an_interrupted_job_goes_on_and_judges_no_row_twice(source: Path, target: Path) -> None:
    first = Counting(fails_after=23)
    with pytest.raises(KeyboardInterrupt):
        judge(source, target, LocalRunner(first.guard, rows_at_once=4), window_size=10)
    assert not target.exists()
    second = Counting()
    seen: list[Progress] = []
    summary = judge(source, target, LocalRunner(second.guard, rows_at_once=4), window_size=16, on_progress=seen.append)
    assert sorted(map(int, first.asked[:20] + second.asked)) == list(range(50))  # 20: whole groups of 4, and of 2
    assert (summary.rows, summary.judged) == (50, 30)
    assert (seen[0].done, seen[0].before, seen[-1].done, seen[-1].flagged) == (20, 20, 50, 10)
    judge(source, target.with_name("whole.jsonl"), Counting().guard)
    assert without_seconds(target) == without_seconds(target.with_name("whole.jsonl"))


def test_a_finished_job_is_not_done_again(source: Path, target: Path) -> None:
    first = judge(source, target)
    before = target.stat().st_mtime_ns
    counting = Counting()
    for settings in ({}, {"overwrite": True}, {"retry_errors": True}):
        again = judge(source, target, counting.guard, **settings)
        assert (again.counts(), again.judged) == (first.counts(), 0)
    assert target.stat().st_mtime_ns == before
    assert counting.asked == []
    record = json.loads(target.with_name("out.jsonl.job.json").read_text())
    assert (record["rows"], record["flagged"], record["job"]["mode"]) == (50, 10, "verdict")


def begin(source: Path, target: Path, **settings: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        judge(source, target, LocalRunner(Counting(fails_after=9).guard, rows_at_once=4), **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "think"}, "mode was 'verdict' and is now 'think'"),
        ({"thresholds": 0.9}, "thresholds was None and is now 0.9"),
        ({"prefix": "guard"}, "prefix was 'moderation' and is now 'guard'"),
        ({"max_reasoning_tokens": 5}, "max_reasoning_tokens was None and is now 5"),
        ({"columns": Columns("id")}, "columns was {'prompt': 'prompt'} and is now {'prompt': 'id'}"),
        ({"guard": InstantRunner()}, "model was"),
    ],
)
def test_work_is_not_continued_with_other_settings(
    source: Path, target: Path, settings: dict[str, Any], message: str
) -> None:
    begin(source, target)
    with pytest.raises(InputError, match=r"delete .*unfinished to begin anew") as caught:
        judge(source, target, **settings)
    assert message in str(caught.value)
    assert judge(source, target).rows == 50  # what was done is still there


def test_work_is_not_continued_with_another_input(source: Path, target: Path) -> None:
    begin(source, target)
    write_jsonl(source, some_rows(51))
    with pytest.raises(InputError, match="the input has changed"):
        judge(source, target)


def test_an_input_that_changes_on_the_way_is_noticed(source: Path, target: Path) -> None:
    def append(progress: Progress) -> None:
        if progress.done == 50:
            write_jsonl(source, some_rows(51))

    with pytest.raises(InputError, match="has changed while it was judged"):
        judge(source, target, on_progress=append)
    assert not target.exists()


def test_an_output_that_is_there_is_not_lost(source: Path, target: Path) -> None:
    target.write_text("precious")
    with pytest.raises(InputError, match="is there already; delete it, or pass --overwrite"):
        judge(source, target)
    assert target.read_text() == "precious"
    assert not target.with_name("out.jsonl.unfinished").exists()
    begin(source, target, overwrite=True)
    assert target.read_text() == "precious"
    with pytest.raises(InputError, match="is there already"):
        judge(source, target)
    assert judge(source, target, overwrite=True).rows == 50
    assert len(read_jsonl(target)) == 50
    with pytest.raises(InputError, match="is there already"):
        judge(source, target, mode="think")
    assert judge(source, target, mode="think", overwrite=True).rows == 50


def test_errors_are_retried_alone(source: Path, target: Path) -> None:
    summary = judge(source, target, guard_that_knows(fails_on="bomb"))
    assert (summary.flagged, summary.unjudged) == (10, 10)
    assert read_jsonl(target)[5]["moderation"]["error"] == "the engine broke down"
    counting = Counting()
    summary = judge(source, target, counting.guard, retry_errors=True)
    assert sorted(map(int, counting.asked)) == list(range(0, 50, 5))
    assert (summary.flagged, summary.unjudged, summary.judged) == (10, 0, 10)
    assert [row["id"] for row in read_jsonl(target)] == list(range(50))
    assert all("error" not in row["moderation"] for row in read_jsonl(target))
    assert judge(source, target, retry_errors=True).judged == 0


@pytest.mark.parametrize("ending", ["csv", "parquet", "csv.gz"])
def test_errors_are_retried_in_other_formats(source: Path, tmp_path: Path, ending: str) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    target, whole = tmp_path / f"out.{ending}", tmp_path / f"whole.{ending}"
    judge(source, target, guard_that_knows(fails_on="bomb"))
    assert judge(source, target, retry_errors=True).unjudged == 0
    judge(source, whole)
    copies = []
    for number, file in enumerate((target, whole)):
        judge(file, tmp_path / f"{number}.jsonl", InstantRunner(), columns=Columns("prompt"), prefix="again")
        rows = read_jsonl(tmp_path / f"{number}.jsonl")
        copies.append([{key: row[key] for key in row if not key.endswith("_seconds")} for row in rows])
    assert copies[0] == copies[1]


def test_an_unfinished_job_is_finished_before_its_errors_are_retried(source: Path, target: Path) -> None:
    begin(source, target)
    summary = judge(source, target, guard_that_knows(fails_on="word bomb"), retry_errors=True)
    assert summary.unjudged > 0  # retried, and failed again
    assert judge(source, target, retry_errors=True).unjudged == 0


def test_only_what_the_job_wrote_itself_is_retried(source: Path, target: Path) -> None:
    judge(source, target, guard_that_knows(fails_on="bomb"))
    with pytest.raises(InputError, match="judged otherwise: mode was 'verdict' and is now 'think'"):
        judge(source, target, mode="think", retry_errors=True)
    lines = target.read_text().splitlines(keepends=True)
    target.write_text("".join(reversed(lines)))
    with pytest.raises(InputError, match="is there already"):
        judge(source, target, retry_errors=True)


def test_two_processes_do_not_work_on_one_output(source: Path, target: Path) -> None:
    def another(progress: Progress) -> None:
        with pytest.raises(InputError, match="another process is at work"):
            judge(source, target)

    assert judge(source, target, on_progress=another).rows == 50


def test_a_full_disk_is_one_sentence_and_loses_nothing(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Journal, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    begin(source, target)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_write", full)
        with pytest.raises(ModerationError, match=r"No space left.*is kept"):
            judge(source, target)
    assert judge(source, target).judged == 42


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "verdit"}, "did you mean 'verdict'"),
        ({"thresholds": 2}, "from 0 to 1"),
        ({"max_reasoning_tokens": 0}, "at least 1"),
        ({"window_size": 0}, "at least 1"),
        ({"prefix": " "}, "must be a word"),
        ({"columns": Columns("prompt", "respons")}, "no response column 'respons'"),
        ({"columns": Columns(response="prompt")}, "name the column of the prompts too"),
        ({"columns": Columns("prompt", messages="prompt")}, "a messages column goes without"),
    ],
)
def test_wrong_settings(source: Path, target: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        judge(source, target, **settings)
    assert not list(target.parent.glob("out*"))


def test_a_torn_or_foreign_line_ends_the_journal_there(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    with Journal(file, {"mode": "think"}) as journal:
        journal.append([(1, {"flagged": True, "error": "x"}), (0, None)])
    whole = file.read_bytes()
    for torn in (
        b'[2,{"flag',
        b"\0" * 100,
        b'[2,{"flagged":false}]',
        b"[0,null]\n",
        b'["2",null]\n',
        b"{}\n",
        b"[2,7]\n",
    ):
        file.write_bytes(whole + torn)
        with Journal(file, {}) as journal:
            assert (len(journal.done), journal.flagged, journal.unjudged) == (2, 1, 1)
            journal.append([(2, {"flagged": False})])
            assert [result is None for result in journal.results()] == [True, False, False]
        file.write_bytes(whole)
    file.write_bytes(whole[:10])
    assert read_job(file) is None
    with Journal(file, {"mode": "auto"}) as journal:
        assert len(journal.done) == 0
    assert read_job(file) == {"mode": "auto"}


def test_done_rows_are_kept_as_a_border_and_a_few_beyond() -> None:
    done = Done()
    for number in (1, 3, 0, 2, 7):
        done.add(number)
    assert (done.frontier, done.beyond, len(done)) == (4, {7}, 5)
    assert [number in done for number in (3, 4, 7)] == [True, False, True]


def test_progress_as_a_line() -> None:
    assert describe(Progress(1000, 0, 0, 0, 0), 0.0) == "0 of 1,000 rows, 0 flagged"
    line = "600 of 1,000 rows, 50.0 rows/s, 8 s left, 30 flagged, 2 not judged"
    assert describe(Progress(1000, 600, 100, 30, 2), 10.0) == line
    assert [duration(seconds) for seconds in (9.6, 130, 12000)] == ["10 s", "2 min", "3 h 20 min"]


def test_the_length_of_a_row_that_cannot_be_judged_is_nothing() -> None:
    assert Pending(0, error="x").characters == 0


# The command, as a user runs it, with the real embedded model.


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "guardreasoner_moderation.cli", "batch", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_says_by_its_exit_code_that_rows_were_not_judged(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text,answer\nHow do I bake bread?,Mix flour and water.\nHello,\n,Hi\n")
    files = (tmp_path / "in.csv", tmp_path / "out.jsonl")
    columns = ("--prompt-column", "text", "--response-column", "answer")
    done = run(*files, *columns, "--mode", "verdict")
    assert done.returncode == 3
    assert "out.jsonl: 3 rows, 1 flagged (33.3%)\n  not judged, and therefore flagged: 1;" in done.stdout
    rows = read_jsonl(tmp_path / "out.jsonl")
    assert [row["moderation"]["response"] is None for row in rows] == [False, True, True]
    assert [row["moderation"]["flagged"] for row in rows] == [False, False, True]
    assert rows[0]["moderation"]["model"] == "embedded"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("in.jsonl", "out.xlsx"), "unknown ending '.xlsx'"),
        (("in.jsonl", "out.jsonl", "--prompt-column", "promt"), "did you mean 'prompt'"),
        (("in.jsonl", "out.jsonl", "--mode", "thnk"), "did you mean 'think'"),
        (("in.jsonl", "out.jsonl", "--model", "embeded"), "did you mean 'embedded'"),
        (("in.jsonl", "out.jsonl", "--engine", "rey"), "unknown engine 'rey'"),
        (("in.jsonl", "out.jsonl", "--batch-size", "0"), "batch_size must be a whole number of at least 1, found 0"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, arguments: tuple[str, ...], message: str
) -> None:
    write_jsonl(tmp_path / "in.jsonl", [{"prompt": "Hello"}])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["guardreasoner", "batch", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == cli.EXIT_ERROR
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))


def test_ray_that_is_not_installed_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    source = write_jsonl(tmp_path / "in.jsonl", [{"prompt": "Hello"}])
    done = CliRunner().invoke(cli.app, ["batch", str(source), str(tmp_path / "out.jsonl"), "--engine", "ray"])
    assert isinstance(done.exception, MissingDependencyError)
    assert "guardreasoner-moderation[ray]" in str(done.exception)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_the_real_command_killed_and_run_again(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"id": n, "prompt": f"What is {n} times {n}?"} for n in range(8)])
    arguments = (source, tmp_path / "out.jsonl", "--mode", "verdict", "--batch-size", "1", "--window-size", "4")
    command = [sys.executable, "-m", "guardreasoner_moderation.cli", "batch", *map(str, arguments)]
    journal = tmp_path / "out.jsonl.unfinished" / "journal.jsonl"
    process = subprocess.Popen(command)
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") > 1):
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not (tmp_path / "out.jsonl").exists()
    done = run(*arguments, "--json")
    assert done.returncode == 0
    assert 0 < json.loads(done.stdout)["judged"] < 8
    assert [row["id"] for row in read_jsonl(tmp_path / "out.jsonl")] == list(range(8))


def test_a_runner_that_fails_leaves_what_was_done(source: Path, target: Path) -> None:
    class Failing(InstantRunner):
        def run(self, rows: Any, how: Any) -> Any:
            for number, judged in enumerate(super().run(rows, how)):
                if number == 3:
                    raise EngineError("the cluster is gone")
                yield judged

    with pytest.raises(EngineError, match="the cluster is gone"):
        judge(source, target, Failing(), window_size=5)
    assert judge(source, target, InstantRunner()).judged == 35
