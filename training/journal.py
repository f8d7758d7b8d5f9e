"""Results as they come, in a JSONL file that a killed process leaves in a usable state.

The first line says what is being done and how; a run that does something else is refused. Each other line is one
result. A line that was cut off when the process died is dropped, and its work done again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from guardreasoner_moderation.errors import InputError


class Journal:
    """The file, open for more lines. A context manager.

    Attributes:
        rows: the results of earlier runs.
    """

    def __init__(self, file: Path, job: Mapping[str, Any]) -> None:
        """Opens the journal of a job, or begins it.

        Args:
            file: the journal.
            job: what is done and how, in plain JSON types.

        Raises:
            InputError: the file holds something else, or another job, or cannot be written.
        """
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            written = file.read_bytes() if file.exists() else b""
            whole = written[: written.rfind(b"\n") + 1]
            lines = read_lines(whole, file)
            job = json.loads(json.dumps(job))  # as it is read back: with lists for tuples
            if lines and lines[0] != job:
                raise InputError(
                    f"{file} was begun with {_difference(lines[0], job)}; choose another file, or remove it"
                )
            self.rows: list[dict[str, Any]] = lines[1:]
            self._stream = file.open("r+b" if lines else "wb")
        except OSError as exc:
            raise InputError(f"{file} cannot be written: {exc.strerror}") from exc
        self._stream.truncate(len(whole))
        self._stream.seek(len(whole))
        if not lines:
            self.append([job])

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds results. They survive the end of this process from here on."""
        self._stream.write(b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows))
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stream.close()


def read_journal(file: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The job of a journal, and its results.

    Raises:
        InputError: there is no such file, or it is no journal.
    """
    try:
        content = file.read_bytes()
    except OSError as exc:
        raise InputError(f"{file} cannot be read: {exc.strerror}") from exc
    lines = read_lines(content[: content.rfind(b"\n") + 1], file)
    if not lines:
        raise InputError(f"{file} holds nothing yet")
    return lines[0], lines[1:]


def read_lines(content: bytes, file: Path) -> list[dict[str, Any]]:
    """The objects of whole lines.

    Raises:
        InputError: a line is none.
    """
    lines = []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError as exc:
            raise InputError(f"{file}, line {number}: not JSON ({exc})") from exc
        if not isinstance(row, dict):
            raise InputError(f"{file}, line {number}: expected an object, found {type(row).__name__}")
        lines.append(row)
    return lines


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return ", ".join(f"{key} {old.get(key)!r} (now {new.get(key)!r})" for key in changed)
