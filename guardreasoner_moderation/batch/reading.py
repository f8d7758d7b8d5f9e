"""Rows out of JSONL, CSV and Parquet files, one at a time.

A row that cannot be read, while the rows after it can, is a row with an error. Where it is no longer known where the
next row begins, the whole file is an error.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from guardreasoner_moderation import strict_json
from guardreasoner_moderation.batch.rows import (
    FileFormat,
    Kind,
    Row,
    Survey,
    file_format,
    gzipped,
    refuse_twins,
    widened,
)
from guardreasoner_moderation.checks import encodable
from guardreasoner_moderation.errors import InputError

MAX_COLUMNS = 10_000  # a table that is wider is a mistake; the names of its columns must fit into memory
_LONGEST_LINE = 1 << 28  # bytes of a row of JSONL: a small compressed file may hold a line of any length
_LONGEST_FIELD = 1 << 28  # characters of one CSV field; the csv module's own limit is 131,072


def read_rows(file: Path, only: Collection[str] | None = None) -> Iterator[Row]:
    """The rows of a file, in order; only a few of them are in memory at a time. Empty lines are no rows.

    Args:
        file: JSONL, CSV or Parquet, by its name.
        only: the columns that are needed. Parquet files then read no others; the other formats read all the same.

    Raises:
        InputError: the file is missing, damaged, cut short, not UTF-8, or not of its format.
        MissingDependencyError: Parquet needs pyarrow.
    """
    form = file_format(file)
    if form is FileFormat.PARQUET:
        from guardreasoner_moderation.batch.parquet import parquet_rows

        return parquet_rows(file, only)
    return _jsonl_rows(file) if form is FileFormat.JSONL else _csv_rows(file)


def survey(file: Path) -> Survey:
    """Reads a file once, so that what is wrong with it shows before anything is judged.

    Of a Parquet file only the footer is read.

    Raises:
        InputError, MissingDependencyError: as for :func:`read_rows`; or no row at all can be read.
    """
    if file_format(file) is FileFormat.PARQUET:
        from guardreasoner_moderation.batch.parquet import survey_parquet

        return survey_parquet(file)
    columns: dict[str, Kind | None] = {}
    if file_format(file) is FileFormat.CSV:
        columns = dict.fromkeys(_csv_header(file), Kind.TEXT)
    rows = errors = 0
    first = None
    for row in read_rows(file):
        rows += 1
        if row.error is not None:
            errors += 1
            first = first or row.error
            continue
        for name, value in row.values.items():
            if name in columns or len(columns) <= MAX_COLUMNS:
                columns[name] = widened(columns.get(name), value)
    if rows and errors == rows:
        raise InputError(f"no row of {file} can be read; {first}")
    return Survey(rows, columns)


@contextmanager
def _bytes_of(file: Path) -> Iterator[IO[bytes]]:
    """The file's content, uncompressed; what goes wrong while it is read becomes an error of this package."""
    try:
        with file.open("rb") as raw:
            if raw.read(2) in (b"\xff\xfe", b"\xfe\xff"):
                raise InputError(f"{file} is UTF-16; save it as UTF-8")
            raw.seek(0)
            if gzipped(file):
                with gzip.open(raw) as stream:
                    yield cast("IO[bytes]", stream)
            else:
                yield raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise InputError(f"{file} is damaged or cut short: {exc}") from exc
    except FileNotFoundError as exc:
        raise InputError(f"there is no file {file}") from exc
    except OSError as exc:
        raise InputError(f"cannot read {file}: {exc.strerror or exc}") from exc


def _jsonl_rows(file: Path) -> Iterator[Row]:
    with _bytes_of(file) as stream:
        number = 0
        for count, line in enumerate(iter(lambda: stream.readline(_LONGEST_LINE + 1), b""), 1):
            if len(line) > _LONGEST_LINE:
                raise InputError(f"{file}, line {count}: longer than {_LONGEST_LINE >> 20} MiB")
            text = line.removeprefix(b"\xef\xbb\xbf") if count == 1 else line
            if text.strip():
                yield _jsonl_row(number, f"line {count}", text)
                number += 1


def _jsonl_row(number: int, where: str, line: bytes) -> Row:
    try:
        values = strict_json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as exc:
        return Row(number, where, {}, f"{where}: not UTF-8 text: {exc.reason} at byte {exc.start + 1}")
    except json.JSONDecodeError as exc:
        return Row(number, where, {}, f"{where}: not JSON: {exc.msg} at character {exc.colno}")
    except strict_json.UnreadableError as exc:
        return Row(number, where, {}, f"{where}: not readable: {exc}")
    if not isinstance(values, dict):
        return Row(number, where, {}, f"{where}: expected a JSON object, found {type(values).__name__}")
    return Row(number, where, values)


@contextmanager
def _csv_of(file: Path) -> Iterator[Any]:
    # The limit belongs to the whole process, so it is raised and never lowered.
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
    with _bytes_of(file) as stream:
        # Bytes that are no UTF-8 become lone surrogates, so that one bad row does not end the reading.
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        reader = csv.reader(text, strict=True)
        try:
            yield reader
        except csv.Error as exc:
            raise InputError(
                f"{file}, line {reader.line_num}: {exc}. Where its quotes do not match, rows cannot be told apart"
            ) from exc


def _csv_header(file: Path) -> list[str]:
    with _csv_of(file) as reader:
        header: list[str] = next(reader, [])
    if not header:
        raise InputError(f"{file} has no line with the names of its columns")
    if not encodable("".join(header)):
        raise InputError(f"{file} is not UTF-8 text: the names of its columns cannot be read")
    refuse_twins(file, header)
    return header


def _csv_rows(file: Path) -> Iterator[Row]:
    header = _csv_header(file)
    with _csv_of(file) as reader:
        next(reader)
        number, last = 0, reader.line_num
        for fields in reader:
            where, last = f"line {last + 1}", reader.line_num
            if not fields:
                continue
            error = None
            if len(fields) != len(header):
                error = f"{where}: {len(fields)} fields, but {len(header)} columns"
            elif not all(map(encodable, fields)):
                error = f"{where}: not UTF-8 text"
            yield Row(number, where, dict(zip(header, fields, strict=False)), error)
            number += 1
