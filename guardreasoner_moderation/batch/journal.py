"""What has been judged so far, on the disk: an append-only file that a killed process leaves in a usable state.

The first line says what is judged and how; each other line is the number of a row and its result:

    {"input": {...}, "mode": "verdict", ...}
    [0,{"flagged":false,...}]
    [2,{"flagged":true,...}]

Rows come nearly in order: those of one window may change places. A line that was cut off when the process died, and
whatever is not as it should be, is dropped with all that follows it, and judged again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

from guardreasoner_moderation.batch.writing import flush_to_disk
from guardreasoner_moderation.errors import ModerationError

Judged: TypeAlias = tuple[int, Mapping[str, Any] | None]
"""The number of a row and its result; None where the result of an earlier run stays."""

_FLUSH_SECONDS = 1.0  # a power cut costs what was judged in so long; a killed process loses nothing that was written


@dataclass(slots=True)
class Done:
    """Which rows are done: all before ``frontier``, and those of ``beyond``, which are few."""

    frontier: int = 0
    beyond: set[int] = field(default_factory=set)

    def add(self, number: int) -> None:
        """Notes a row."""
        self.beyond.add(number)
        while self.frontier in self.beyond:
            self.beyond.remove(self.frontier)
            self.frontier += 1

    def copy(self) -> Done:
        """The same rows, to be handed on."""
        return Done(self.frontier, set(self.beyond))

    def __contains__(self, number: int) -> bool:
        return number < self.frontier or number in self.beyond

    def __len__(self) -> int:
        return self.frontier + len(self.beyond)


class Journal:
    """The file, open for more lines. A context manager."""

    def __init__(self, file: Path, job: Mapping[str, Any]) -> None:
        """Opens the journal of a job, or begins it.

        Args:
            file: the journal; if it is there, it is this job's (see :func:`read_job`).
            job: what is judged and how.
        """
        self.done = Done()
        self.flagged = 0
        self.unjudged = 0
        self._file = file
        begun = file.exists() and read_job(file) is not None
        end = self._load() if begun else 0
        self._stream = file.open("r+b" if begun else "wb", buffering=0)
        self._stream.seek(end)
        self._stream.truncate()
        if not begun:
            self._write(_line(job))
            self._flush()
            flush_to_disk(file.parent)
        self._flushed = time.monotonic()

    def append(self, judged: Iterable[Judged]) -> None:
        """Adds rows, none of which is done. They survive the end of this process from here on.

        Raises:
            ModerationError: see :meth:`refuse_removed`.
        """
        self.refuse_removed()
        lines = []
        for number, result in judged:
            lines.append(_line([number, result]))
            self._count(number, result)
        self._write(b"".join(lines))
        if time.monotonic() - self._flushed >= _FLUSH_SECONDS:
            self._flush()

    def refuse_removed(self) -> None:
        """Checks that the file is where it was opened.

        Raises:
            ModerationError: somebody has removed it, or put another in its place.
        """
        if os.name == "nt":  # Windows removes no open files
            return
        try:
            there = os.path.samestat(os.stat(self._file), os.fstat(self._stream.fileno()))
        except FileNotFoundError:
            there = False
        if not there:
            raise ModerationError(
                f"{self._file} was removed while the job was running, and with it what had been judged; "
                "run the command again to begin anew"
            )

    def results(self) -> Iterator[Mapping[str, Any] | None]:
        """The results in the order of their rows, when all are done."""
        waiting: dict[int, Mapping[str, Any] | None] = {}
        expected = 0
        for _, (number, result) in _entries(self._file):
            waiting[number] = result
            while expected in waiting:
                yield waiting.pop(expected)
                expected += 1

    def close(self) -> None:
        """Brings everything to the disk."""
        if not self._stream.closed:
            self._flush()
            self._stream.close()

    def remove(self) -> None:
        """Ends the journal of a job that is finished."""
        self._stream.close()
        self._file.unlink()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _load(self) -> int:
        """Counts the rows that are done, and returns where the next line goes."""
        end = len(_first_line(self._file))
        for size, (number, result) in _entries(self._file):
            if number in self.done:
                break
            self._count(number, result)
            end += size
        return end

    def _count(self, number: int, result: Mapping[str, Any] | None) -> None:
        self.done.add(number)
        self.flagged += result is not None and bool(result["flagged"])
        self.unjudged += result is not None and result.get("error") is not None

    def _write(self, content: bytes) -> None:
        rest = memoryview(content)
        while rest:  # an unbuffered file may take a part only
            rest = rest[self._stream.write(rest) :]

    def _flush(self) -> None:
        os.fsync(self._stream.fileno())
        self._flushed = time.monotonic()


def read_job(file: Path) -> dict[str, Any] | None:
    """What a journal is about; None when its first line was never completed."""
    try:
        job = json.loads(_first_line(file))
    except ValueError:
        return None
    return job if isinstance(job, dict) else None


def done_rows(file: Path) -> int:
    """How many rows a journal has results for."""
    return sum(1 for _ in _entries(file))


def _first_line(file: Path) -> bytes:
    with file.open("rb") as stream:
        line = stream.readline()
    return line if line.endswith(b"\n") else b""


def _entries(file: Path) -> Iterator[tuple[int, Judged]]:
    """Length in bytes and content of each line after the first, as far as they are whole."""
    with file.open("rb") as stream:
        stream.readline()
        for line in stream:
            try:
                number, result = json.loads(line)
            except (ValueError, TypeError):
                return
            sound = result is None or (isinstance(result, dict) and "flagged" in result)
            if not sound or type(number) is not int or number < 0 or not line.endswith(b"\n"):
                return
            yield len(line), (number, result)


def _line(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"
