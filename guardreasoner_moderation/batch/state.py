"""Files that a job keeps beside its output, and what is known of its course.

OUT                  appears, or is replaced, when every row has a result
OUT.job.json         of a finished job: what was judged, how, the hash of OUT, counts
OUT.unfinished/      until then; to give a job up, delete it
    lock             held by the process that is at work
    journal.jsonl    results so far (retry.jsonl while rows with an error are judged again)
    output           what becomes OUT
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from guardreasoner_moderation.batch.writing import flush_to_disk
from guardreasoner_moderation.cache import read_sha256
from guardreasoner_moderation.errors import InputError

_ATTEMPTS = 100  # to take a lock that a process takes away as it finishes


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is.

    Attributes:
        rows: of the whole file.
        done: of these, in this run and before it.
        before: of those, before this run.
        flagged, unjudged: of the rows that are done. Unjudged rows are flagged too.
    """

    rows: int
    done: int
    before: int
    flagged: int
    unjudged: int


@dataclass(frozen=True, slots=True)
class Summary:
    """A finished job.

    Attributes:
        target: the output.
        rows: how many it has.
        flagged: how many of these are flagged, the unjudged ones included.
        unjudged: how many have an error in place of a verdict.
        categories: how many rows each category has.
        judged: rows of this run; the others were done before it, or keep their earlier results.
        seconds: wall time of this run.
    """

    target: Path
    rows: int
    flagged: int
    unjudged: int
    categories: Mapping[str, int] = field(default_factory=dict)
    judged: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "output": str(self.target),
            **self.counts(),
            "judged": self.judged,
            "seconds": round(self.seconds, 3),
        }

    def __str__(self) -> str:
        share = f" ({self.flagged / self.rows:.1%})" if self.rows else ""
        lines = [f"{self.target}: {self.rows:,} rows, {self.flagged:,} flagged{share}"]
        if self.unjudged:
            lines.append(f"  not judged, and therefore flagged: {self.unjudged:,}; --retry-errors tries them again")
        lines += [f"  {category}: {count:,}" for category, count in self.categories.items()]
        if self.judged:
            rate = self.judged / self.seconds if self.seconds else 0.0
            lines.append(f"  {self.judged:,} rows judged in {self.seconds:,.1f} s, {rate:,.1f} a second")
        elif self.rows:
            lines.append("  all of it was done before")
        return "\n".join(lines)

    def counts(self) -> dict[str, Any]:
        """What is true of the output, whichever runs made it."""
        return {
            "rows": self.rows,
            "flagged": self.flagged,
            "unjudged": self.unjudged,
            "categories": dict(self.categories),
        }


class JobFiles:
    """The files of a job, by the place of its output."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.record = target.with_name(f"{target.name}.job.json")
        self.folder = target.with_name(f"{target.name}.unfinished")
        self.journal = self.folder / "journal.jsonl"
        self.retry = self.folder / "retry.jsonl"
        self.output = self.folder / "output"
        self._lock = self.folder / "lock"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes off the job, and tidies up behind it.

        Raises:
            InputError: a process is at work on it.
        """
        lock, held = self._acquire()
        try:
            yield
        finally:
            with suppress(OSError):
                # Before the release, as the folder may be another process's after it.
                ours = os.path.samestat(held, self._lock.stat())
                if ours and not self.journal.exists() and not self.retry.exists():
                    self.output.unlink(missing_ok=True)
                    self._lock.unlink()
            lock.release()
            with suppress(OSError):  # there is a journal, or another process has begun
                self.folder.rmdir()

    def _acquire(self) -> tuple[BaseFileLock, os.stat_result]:
        """Takes the lock, and makes sure that its file was not removed meanwhile by a process that had it before."""
        lock = FileLock(self._lock)
        for _ in range(_ATTEMPTS):
            self.folder.mkdir(exist_ok=True)
            try:
                self._lock.touch()
                there = self._lock.stat()
                lock.acquire(timeout=0)
                if os.path.samestat(there, self._lock.stat()):
                    return lock, there
            except FileNotFoundError:
                pass
            except Timeout:
                break
            lock.release()
        raise InputError(f"another process is at work on {self.target}")

    def publish(self, job: Mapping[str, Any], summary: Summary) -> None:
        """Makes the written output the job's output, in one step, and records what it is."""
        record = {"job": job, "output_sha256": read_sha256(self.output), **summary.counts()}
        draft = self.folder / "record"
        draft.write_text(json.dumps(record, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        flush_to_disk(draft)
        os.replace(self.output, self.target)  # from here on no room on the disk is needed
        flush_to_disk(self.target.parent)
        os.replace(draft, self.record)
        flush_to_disk(self.target.parent)

    def intact(self, record: Mapping[str, Any]) -> bool:
        """Whether the output is as it was when it was recorded."""
        return self.target.exists() and read_sha256(self.target) == record["output_sha256"]

    def read_record(self) -> dict[str, Any] | None:
        """The record of a finished job, if there is one."""
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return record if isinstance(record, dict) and {"job", "output_sha256"} <= set(record) else None


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """How a job differs from what is asked for now, for a person; empty when it does not."""
    found = []
    for name in {**now, **before}:
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if name == "input":
            found.append("the input has changed")
        elif name == "model" and isinstance(old, Mapping) and isinstance(new, Mapping) and old["name"] == new["name"]:
            found.append(f"the files of the model {old['name']!r} have changed")
        else:
            found.append(f"{name} was {old!r} and is now {new!r}")
    return "; ".join(found)
