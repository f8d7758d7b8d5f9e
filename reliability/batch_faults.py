"""What ``guardreasoner batch`` does when it is killed, its disk is full, or its files are changed or taken away.

    python -m reliability.batch_faults --out reliability/results/batch_faults.json

Each try makes one fault happen to a real process, looks at what the command says, undoes the fault, runs the same
command again and compares the output with the input. A few minutes; a disk can be filled where root may mount one.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Annotated

import typer

from reliability.jobs import Ended, Job, journal_lines, write_rows
from reliability.record import Record, Trial
from reliability.tally import Tally

_SMALL = ("--window-size", "8", "--batch-size", "4")
_PACE = 0.05  # seconds a row, so that a fault comes in the middle


def killed(folder: Path, *, kills: int, rows: int, embedded: bool) -> Trial:
    """kill -9 at random moments of one job, which is then run to its end; a finished job is begun anew."""
    name = f"kill -9 at a random moment ({'the embedded model' if embedded else 'a scripted model'})"
    tally = Tally(name, rows)
    dice = random.Random(0)
    job = Job(write_rows(folder / "in.jsonl", rows), folder / "out.jsonl", _SMALL, pace=0.002, embedded=embedded)
    done = 0
    while tally.tried < kills:
        running = job.start()
        running.wait_for_rows(dice.randrange(1, 20))
        time.sleep(dice.uniform(0, 0.02))
        running.kill()
        if job.target.exists():  # done before the kill
            again = job.run()
            tally.note(job, again, told=True)
            job.target.unlink()
            done = 0
            continue
        now = journal_lines(job)
        tally.tried += 1
        tally.failed += now < done  # what was done is lost
        done = now
    again = job.run()
    tally.note(job, again, told=True)
    return replace(tally.trial(), tried=kills)


def two_runs(folder: Path, *, tries: int) -> Trial:
    """A second command on the output of a first, which is then killed."""
    tally = Tally("a second run on the same output; the first is then killed", 60)
    for number in range(tries):
        job = _job(folder / f"{number}", tally.rows)
        first = job.at(_PACE).start()
        first.wait_for_rows()
        with first.paused():
            second = job.run()
        first.kill()
        tally.note(job, job.run(), told=second.refused("another process is at work"), what=second)
    return tally.trial()


def many_at_once(folder: Path, *, tries: int, processes: int = 6) -> Trial:
    """The same command started several times at once; those that come too late find the job done."""
    tally = Tally(f"{processes} runs on the same output, started at once", 12)
    dice = random.Random(0)
    for number in range(tries):
        job = _job(folder / f"{number}", tally.rows)
        started = []
        for _ in range(processes):
            started.append(job.start())
            time.sleep(dice.uniform(0, 0.05))
        ended = [running.end() for running in started]
        told = all(one == Ended(0, ()) or one.refused("another process is at work") for one in ended)
        tally.note(job, job.run(), told=told and any(one.code == 0 for one in ended), what=ended)
    return tally.trial()


def full_disk(folder: Path, *, ending: str, rows: int = 40, step: int = 1) -> Trial:
    """A disk with no room, with room for one page, for two, and so on until the job fits.

    Raises:
        PermissionError: this user may not mount a disk.
    """
    tally = Tally(f"a full disk, at every page of the job's files, to {ending}", rows)
    source = write_rows(folder / "in.jsonl", rows, padding=400)
    with small_disk(folder / "disk") as disk:
        for pages in count(0, step):
            job = Job(source, disk / "work" / f"out.{ending}", _SMALL)
            job.target.parent.mkdir()
            ballast = disk / "ballast"
            room = os.statvfs(disk)
            ballast.write_bytes(bytes((room.f_bavail - pages) * room.f_bsize))
            first = job.run()
            if first.code == 0:
                break
            told = first.refused("No space left on device", "is kept") and not job.target.exists()
            ballast.unlink()
            tally.note(job, job.run(), told=told, what=f"{pages} pages, {first}")
            shutil.rmtree(job.target.parent)
    return tally.trial()


@contextmanager
def small_disk(place: Path, kilobytes: int = 1024) -> Iterator[Path]:
    """A disk in memory.

    Raises:
        PermissionError: this user may not mount one, or this is no Linux.
    """
    place.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(place)]
    if not mount or subprocess.run(command, capture_output=True, check=False).returncode:
        raise PermissionError("a disk of its own can be mounted by root on Linux only")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)  # noqa: S607 - where mount is, this is


def removed(folder: Path, *, tries: int) -> Trial:
    """The job's files removed while it runs, or its output after it."""
    tally = Tally("the job's files removed while it runs, or its output afterwards", 60)
    takes: dict[str, Callable[[Job], object]] = {
        "the folder of unfinished work": lambda job: shutil.rmtree(job.journal.parent),
        "the journal": lambda job: job.journal.unlink(),
        "the folder of the output": lambda job: shutil.rmtree(job.target.parent),
    }
    for number in range(tries):
        for what, take in takes.items():
            source = write_rows(folder / f"{number}-{what}.jsonl", tally.rows)
            job = Job(source, folder / f"{number}-{what}" / "out.jsonl", _SMALL)
            job.target.parent.mkdir()
            running = job.at(_PACE).start()
            running.wait_for_rows()
            with running.paused():
                take(job)
            ended = running.end()
            told = ended.refused("was removed while the job was running") and not job.target.exists()
            job.target.parent.mkdir(exist_ok=True)
            tally.note(job, job.run(), told=told, what=f"{what}: {ended}")
        job.target.unlink()
        tally.note(job, job.run(), told=True, what="the finished output")
    return tally.trial()


def input_changed(folder: Path, *, tries: int) -> Trial:
    """The input edited while the job runs or between two runs, and later put back."""
    tally = Tally("the input changed, while the job runs or between two runs", 60)
    edits: dict[str, Callable[[list[bytes]], list[bytes]]] = {
        "one word": lambda lines: [line.replace(b"number 59", b"number 60") for line in lines],
        "a row added": lambda lines: [*lines, lines[-1].replace(b"59", b"60")],
        "rows cut off": lambda lines: lines[:50],
        "rows in another order": lambda lines: lines[::-1],
        "the last line torn": lambda lines: [*lines[:-1], lines[-1][:9]],
    }
    for number in range(tries):
        for what, edit in edits.items():
            for running_on in (True, False):
                job = _job(folder / f"{number}-{what}-{running_on}", tally.rows)
                content = job.source.read_bytes()
                running = job.at(_PACE).start()
                running.wait_for_rows()
                with running.paused() if running_on else nullcontext(running.kill()):
                    job.source.write_bytes(b"".join(edit(content.splitlines(keepends=True))))
                ended = running.end() if running_on else job.run()
                told = ended.refused("has changed", "delete") and not job.target.exists()
                job.source.write_bytes(content)
                tally.note(job, job.run(), told=told, what=f"{what}, running on {running_on}: {ended}")
    return tally.trial()


def input_removed(folder: Path, *, tries: int) -> Trial:
    """The input moved away while the job runs or between two runs, and later put back."""
    tally = Tally("the input removed, while the job runs or between two runs", 60)
    for number in range(tries):
        for running_on in (True, False):
            job = _job(folder / f"{number}-{running_on}", tally.rows)
            running = job.at(_PACE).start()
            running.wait_for_rows()
            with running.paused() if running_on else nullcontext(running.kill()):
                aside = job.source.rename(job.source.with_name("aside"))
            ended = running.end() if running_on else job.run()
            told = ended.refused("o such file" if running_on else "there is no file", str(job.source))
            told = told and not job.target.exists()
            aside.rename(job.source)
            tally.note(job, job.run(), told=told, what=ended)
    return tally.trial()


def journal_cut(folder: Path, *, rows: int = 8, step: int = 1) -> Trial:
    """The journal of an unfinished job cut off at every byte."""
    tally = Tally("the journal of an unfinished job cut off, at every byte", rows)
    job = _job(folder, rows)
    running = job.at(_PACE).start()
    running.wait_for_rows(rows // 2)
    running.kill()
    journal = job.journal.read_bytes()
    for length in range(0, len(journal) + 1, step):
        job = replace(job, target=folder / f"{length}" / "out.jsonl")
        job.journal.parent.mkdir(parents=True)
        job.journal.write_bytes(journal[:length])
        tally.note(job, job.run_here(), told=True, what=f"{length} bytes")
        shutil.rmtree(job.target.parent)
    return tally.trial()


def permission_denied(folder: Path) -> Trial:
    """Files and folders that may not be read or written, at first or from the middle of the job on."""
    tally = Tally("files that may not be read or written", 60)
    first: dict[str, Callable[[Job], Path]] = {
        "the input": lambda job: job.source,
        "the folder": lambda job: job.target.parent,
    }
    later: dict[str, Callable[[Job], Path]] = {
        **first,
        "the folder of unfinished work": lambda job: job.journal.parent,
        "the journal": lambda job: job.journal,
    }
    for begun, cases in ((False, first), (True, later)):
        for what, find in cases.items():
            for mode in (0o000, 0o444, 0o555):
                if mode and what == "the input":  # may be read
                    continue
                job = _job(folder / f"{what}-{mode}-{begun}", tally.rows)
                if begun:
                    running = job.at(_PACE).start()
                    running.wait_for_rows()
                    running.kill()
                closed = find(job)
                before = closed.stat().st_mode
                closed.chmod(mode)
                ended = job.run()
                closed.chmod(before)
                told = ended.refused("ermission denied") and not job.target.exists()
                tally.note(job, job.run(), told=told, what=f"{what}, {mode:o}, begun {begun}: {ended}")
    return tally.trial()


def _job(folder: Path, rows: int) -> Job:
    """A small job in a new folder."""
    folder.mkdir(parents=True)
    return Job(write_rows(folder / "in.jsonl", rows), folder / "out.jsonl", _SMALL)


def main(
    out: Annotated[Path, typer.Option(help="File for the record.")],
    kills: Annotated[int, typer.Option(help="Of the job with the embedded model.", min=1)] = 20,
    rows: Annotated[int, typer.Option(help="Of that job.", min=1)] = 400,
    tries: Annotated[int, typer.Option(help="Of each other fault.", min=1)] = 3,
    cut_step: Annotated[int, typer.Option(help="Bytes between two cuts of the journal.", min=1)] = 1,
) -> None:
    """Make every fault happen, and record what was lost."""
    notes = [
        "Rows are compared with the input: each is there once, in its place, with the verdict of its text. The "
        "scripted model knows the verdicts beforehand; where none is named, it judged.",
    ]
    trials = []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)

        def room(of: str) -> Path:
            (place / of).mkdir()
            return place / of

        faults: Sequence[Callable[[], Trial]] = (
            lambda: killed(room("kill"), kills=kills, rows=rows, embedded=True),
            *(
                lambda ending=ending: full_disk(room(ending), ending=ending)
                for ending in ("jsonl", "csv.gz", "parquet")
            ),
            lambda: removed(room("removed"), tries=tries),
            lambda: input_changed(room("changed"), tries=tries),
            lambda: input_removed(room("gone"), tries=tries),
            lambda: two_runs(room("two"), tries=tries),
            lambda: many_at_once(room("many"), tries=5 * tries),
            lambda: journal_cut(place / "journal", step=cut_step),
            lambda: permission_denied(room("denied")),
        )
        for fault in faults:
            try:
                trials.append(fault())
            except PermissionError as exc:
                notes.append(f"The disk was not filled: {exc}.")
                continue
            typer.echo(f"{trials[-1].name}: {trials[-1].tried} tried, {trials[-1].failed} failed")
    Record(
        title="Files: what happens to a batch job",
        promise=(
            "A job that is stopped by a fault says so in one sentence and by exit code 2, and leaves no OUT that is "
            "not complete. Once the fault is undone, the same command finishes with every row once, in order, and "
            "nothing but OUT and its record is left. All else counts as failed."
        ),
        command="python -m reliability.batch_faults --out reliability/results/batch_faults.json",
        trials=trials,
        notes=notes,
    ).save(out)


if __name__ == "__main__":
    typer.run(main)
