"""``guardreasoner batch`` in processes of its own, for trials that kill it or take its files away.

The model is the embedded one, or one that knows a single word: what happens to files does not depend on it, and its
verdicts are known beforehand.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from guardreasoner_moderation import ModerationError, Moderator, cli
from guardreasoner_moderation.batch import LocalRunner, judge_file
from guardreasoner_moderation.batch.reading import read_rows
from guardreasoner_moderation.engines.scripted import ScriptedEngine
from guardreasoner_moderation.models import ModelSpec
from guardreasoner_moderation.prompts import Prompt, PromptFormat

WORD = "bomb"  # makes a text harmful
_PATIENCE = 120  # seconds that a job may take on the busiest machine


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: its exit code (or minus a signal), and its lines on standard error."""

    code: int
    said: tuple[str, ...]

    def refused(self, *words: str) -> bool:
        """Whether it ended with exit code 2 and one sentence that has all of the words."""
        return self.code == cli.EXIT_ERROR and len(self.said) == 1 and all(word in self.said[0] for word in words)


@dataclass(frozen=True, slots=True)
class Job:
    """A command line.

    Attributes:
        source, target: its files.
        options: further options.
        pace: seconds that the scripted model takes for a row.
        embedded: whether the embedded model judges.
    """

    source: Path
    target: Path
    options: tuple[str, ...] = ()
    pace: float = 0.0
    embedded: bool = False

    @property
    def journal(self) -> Path:
        """Where the results are kept while it runs."""
        return self.target.with_name(f"{self.target.name}.unfinished") / "journal.jsonl"

    def at(self, pace: float) -> Job:
        """The same command with a slower model."""
        return replace(self, pace=pace)

    def start(self) -> Running:
        """Starts it."""
        descriptor, log = tempfile.mkstemp(prefix="batch-", suffix=".log")
        os.close(descriptor)
        process = _context().Process(target=_run_command, args=(self, log))
        process.start()
        return Running(self, process, Path(log))

    def run(self) -> Ended:
        """Runs it to its end."""
        return self.start().end()

    def run_here(self) -> Ended:
        """The same work with the scripted model in this process, for many tries to which a process does not matter."""
        try:
            judge_file(self.source, self.target, LocalRunner(_scripted(self.pace), rows_at_once=4), mode="verdict")
        except ModerationError as exc:
            return Ended(cli.EXIT_ERROR, (str(exc),))
        return Ended(0, ())


@dataclass(frozen=True, slots=True)
class Running:
    """A command that has been started."""

    job: Job
    process: BaseProcess
    log: Path

    def wait_for(self, condition: Callable[[], bool]) -> bool:
        """Waits until something is so; False if the command ended before."""
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            if not self.process.is_alive():
                return condition()
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f"{self.job} did not come so far in {_PATIENCE} s")
            time.sleep(0.001)
        return True

    def wait_for_rows(self, more: int = 1) -> bool:
        """Waits until the journal has got so many more rows."""
        before = journal_lines(self.job)
        return self.wait_for(lambda: journal_lines(self.job) >= max(before, 1) + more)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stands still, with its files open and its lock held, whatever others do meanwhile."""
        pid = self.process.pid or 0
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def kill(self) -> Ended:
        """SIGKILL."""
        self.process.kill()
        return self.end()

    def end(self) -> Ended:
        """Waits for the end."""
        self.process.join(_PATIENCE)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise TimeoutError(f"{self.job} did not end in {_PATIENCE} s")
        said = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        self.log.unlink()
        return Ended(self.process.exitcode, tuple(said))


def journal_lines(job: Job) -> int:
    """Lines of the job's journal, of which the first is no row; 0 without one."""
    try:
        return job.journal.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def write_rows(file: Path, count: int, *, padding: int = 0) -> Path:
    """Writes a JSONL file of short texts, every fifth of them harmful; ``padding`` characters stand in a column of
    their own, which is carried through."""
    with file.open("w", encoding="utf-8") as stream:
        for number in range(count):
            text = f"number {number}{' word' * (number * 7 % 40)}{f' {WORD}' * _harmful(number)}"
            stream.write(json.dumps({"id": number, "prompt": text, "note": "x" * padding}) + "\n")
    return file


@dataclass(frozen=True, slots=True)
class Losses:
    """What is wrong with an output."""

    lost: int = 0
    twice: int = 0
    wrong: int = 0

    def __bool__(self) -> bool:
        return bool(self.lost or self.twice or self.wrong)


def losses(job: Job, count: int) -> Losses:
    """Compares the output with the ``count`` rows of :func:`write_rows`: each once, in order, with its verdict."""
    if not job.target.exists():
        return Losses(lost=count)
    rows = [(int(row.values["id"]), _verdict(row.values)) for row in read_rows(job.target)]
    numbers = [number for number, _ in rows]
    there = set(numbers)
    wrong = sum(verdict is None or (not job.embedded and verdict != _harmful(number)) for number, verdict in rows)
    return Losses(
        lost=len(set(range(count)) - there),
        twice=len(numbers) - len(there),
        wrong=wrong + (numbers != sorted(numbers)),
    )


def _harmful(number: int) -> bool:
    return number % 5 == 0


def _verdict(values: dict[str, Any]) -> bool | None:
    """Whether a row is flagged; None where it was not judged."""
    result = values.get("moderation")
    flagged, error = (
        (values["moderation_flagged"], values["moderation_error"])
        if result is None
        else (result["flagged"], result.get("error"))
    )
    return None if error else flagged in (True, "true")


@cache
def _context() -> ForkServerContext:
    """Processes are forked from a clean one that has imported the package already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _run_command(job: Job, log: str) -> None:
    with open(log, "wb") as stream, open(os.devnull, "wb") as nothing:
        os.dup2(stream.fileno(), 2)
        os.dup2(nothing.fileno(), 1)
    _obey_permissions()
    if not job.embedded:
        Moderator.from_pretrained = _scripted(job.pace)  # type: ignore[method-assign]
    sys.argv = ["guardreasoner", "batch", str(job.source), str(job.target), "--mode", "verdict", "--quiet"]
    sys.argv += job.options
    cli.main()


def _obey_permissions() -> None:
    """Makes files' permissions count for root too, by giving up the capabilities to pass over them."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, the lower and then the upper half
    refused = libc.capget(header, sets)
    for number in range(3):
        sets[number] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    if refused or libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capabilities could not be given up")


def _scripted(pace: float) -> Any:
    spec = ModelSpec(prompt_format=PromptFormat.COMPACT, categories=("other",))

    def reply(prompt: Prompt) -> str:
        time.sleep(pace)
        return " harmful\nCategory: other" if WORD in prompt.text else " unharmful"

    def choose(prompt: Prompt, words: Sequence[str]) -> str:
        return words[0 if WORD in prompt.text else 1]

    def load(*_: Any, **__: Any) -> Moderator:
        return Moderator.from_engine(ScriptedEngine(reply, choose=choose), spec)

    return load
