"""Rows into JSONL, CSV and Parquet files, one at a time."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import IO, Any, cast

from guardreasoner_moderation.batch.reading import MAX_COLUMNS
from guardreasoner_moderation.batch.rows import FileFormat, Kind, file_format, gzipped
from guardreasoner_moderation.errors import InputError, shown

Write = Callable[[Mapping[str, Any], Mapping[str, Any]], None]
"""Writes a row: what the input held, and what is added to it."""


def refuse_unwritable(target: Path, columns: Collection[str]) -> None:
    """CSV and Parquet need a list of columns, with names in UTF-8; JSONL does not.

    Raises:
        InputError: there are too many, or a name is no UTF-8.
        MissingDependencyError: Parquet needs pyarrow.
    """
    if file_format(target) is FileFormat.JSONL:
        return
    if len(columns) > MAX_COLUMNS:
        raise InputError(f"the input has more than {MAX_COLUMNS} columns; write JSONL")
    broken = [name for name in columns if name != name.encode(errors="replace").decode()]
    if broken:
        raise InputError(f"the column {shown(broken[0])} has a name that only JSONL can hold")
    if file_format(target) is FileFormat.PARQUET:
        import guardreasoner_moderation.batch.parquet  # noqa: F401 - now, and not when all has been judged


@contextmanager
def writing(
    file: Path, target: Path, *, source: Path, columns: Mapping[str, Kind | None], added: Mapping[str, Kind]
) -> Iterator[Write]:
    """Opens a file for rows, which is complete and on the disk when the context ends.

    Args:
        file: what is written.
        target: what it will be called, which tells its format.
        source: where the rows come from.
        columns: the input's columns and their kinds.
        added: the columns that are added to them.

    Raises:
        MissingDependencyError: Parquet needs pyarrow.
    """
    form = file_format(target)
    with ExitStack() as stack:
        if form is FileFormat.PARQUET:
            yield stack.enter_context(_parquet(file, source, columns, added))
        else:
            stream = stack.enter_context(_bytes_to(file, compressed=gzipped(target)))
            yield _jsonl(stream) if form is FileFormat.JSONL else stack.enter_context(_csv(stream, columns, added))
    flush_to_disk(file)


def flush_to_disk(path: Path) -> None:
    """Waits until a file's content, or a folder's list of names, has reached the disk."""
    if path.is_dir() and os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _bytes_to(file: Path, *, compressed: bool) -> Iterator[IO[bytes]]:
    with file.open("wb") as raw:
        if compressed:
            # Without name and time inside, the same rows are the same bytes.
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as stream:
                yield cast("IO[bytes]", stream)
        else:
            yield raw


def _jsonl(stream: IO[bytes]) -> Write:
    def write(values: Mapping[str, Any], added: Mapping[str, Any]) -> None:
        row: Any = {**values, **added}
        try:
            line = json.dumps(row, ensure_ascii=False, allow_nan=False, default=_plain).encode()
        except ValueError:  # not a number; or half a surrogate pair, which JSON can write as an escape only
            line = json.dumps(_finite(row), default=_plain).encode()
        stream.write(line + b"\n")

    return write


@contextmanager
def _csv(stream: IO[bytes], columns: Mapping[str, Kind | None], added: Mapping[str, Kind]) -> Iterator[Write]:
    text = io.TextIOWrapper(stream, encoding="utf-8", errors="replace", newline="")
    names = [*columns, *added]
    text.write(_csv_line(names))

    def write(values: Mapping[str, Any], more: Mapping[str, Any]) -> None:
        row = {**values, **more}
        text.write(_csv_line([_cell(row.get(name)) for name in names]))

    yield write
    text.flush()
    text.detach()


def _csv_line(cells: Sequence[str]) -> str:
    """A row as RFC 4180 quotes it, with the line end of Unix.

    Of line ends the csv module quotes those that it ends rows with; to its reader a bare carriage return is one too.
    """
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue().removesuffix("\r\n") + "\n"


def _cell(value: object) -> str:
    """A value as text: as JSON writes it, but strings without quotes, and null as nothing."""
    if value is None:
        return ""
    plain = value if isinstance(value, (str, int, float, list, dict)) else _plain(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False, default=_plain)


@contextmanager
def _parquet(
    file: Path, source: Path, columns: Mapping[str, Kind | None], added: Mapping[str, Kind]
) -> Iterator[Write]:
    from guardreasoner_moderation.batch.parquet import ParquetExtender, ParquetWriter

    if file_format(source) is FileFormat.PARQUET:
        with closing(ParquetExtender(file, source, added)) as extender:
            yield lambda values, more: extender.write(more)
        return
    kinds: dict[str, Kind | None] = {**columns, **added}
    texts = [name for name, kind in columns.items() if kind in (None, Kind.TEXT)]
    numbers = [name for name, kind in columns.items() if kind is Kind.NUMBER]
    with closing(ParquetWriter(file, kinds)) as writer:

        def write(values: Mapping[str, Any], more: Mapping[str, Any]) -> None:
            row = {**values, **more}
            for name in texts:
                if row.get(name) is not None:
                    row[name] = _cell(row[name]).encode(errors="replace").decode()
            for name in numbers:
                if row.get(name) is not None:
                    row[name] = float(row[name])  # Arrow rounds no whole number that a float cannot hold
            writer.write(row)

        yield write


def _finite(value: Any) -> Any:
    """The value with null for what is not a number, or infinite: JSON has no form for these."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, list) else value


def _plain(value: object) -> str:
    """What JSON has no form for: bytes in Base64, times in ISO 8601, all else (such as decimals) as text."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return str(value.isoformat()) if hasattr(value, "isoformat") else str(value)
