"""Parquet files, by pyarrow: rows out, rows in. Imported only where a file is one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from guardreasoner_moderation.batch.rows import Kind, Row, Survey, refuse_twins
from guardreasoner_moderation.errors import InputError, MissingDependencyError, brief

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as exc:
    raise MissingDependencyError("Parquet", "batch") from exc

_ROWS_AT_ONCE = 1024  # how many rows are in memory while a file is read
_ROWS_OF_A_GROUP = 4096  # how many are collected before they are written


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """A ``pyarrow.parquet.ParquetFile``; what goes wrong while it is read becomes an error of this package."""
    try:
        with pq.ParquetFile(file) as table:
            refuse_twins(file, table.schema_arrow.names)
            yield table
    except FileNotFoundError as exc:
        raise InputError(f"there is no file {file}") from exc
    except (pa.ArrowException, OSError) as exc:
        raise InputError(f"{file} is damaged, cut short, or no Parquet file: {brief(str(exc))}") from exc


def survey_parquet(file: Path) -> Survey:
    """Rows and columns, from the file's footer."""
    with _opened(file) as table:
        return Survey(table.metadata.num_rows, dict.fromkeys(table.schema_arrow.names))


def parquet_rows(file: Path, only: Collection[str] | None) -> Iterator[Row]:
    """The rows of a file; with ``only``, no other columns are read."""
    with _opened(file) as table:
        names = [name for name in table.schema_arrow.names if only is None or name in only]
        number = 0
        for batch in table.iter_batches(batch_size=_ROWS_AT_ONCE, columns=names):
            for values, problem in _taken_out(_in_microseconds(batch)):
                where = f"row {number + 1}"
                yield Row(number, where, values, None if problem is None else f"{where}: not readable: {problem}")
                number += 1


def _taken_out(batch: Any) -> list[tuple[dict[str, Any], str | None]]:
    """The values of each row, or why Python has no form for one of them: a text is no UTF-8, a time out of range."""
    try:
        return [(values, None) for values in batch.to_pylist()]
    except (ValueError, OverflowError) as exc:
        if batch.num_rows == 1:
            return [({}, brief(str(exc)))]
    return [taken for number in range(batch.num_rows) for taken in _taken_out(batch.slice(number, 1))]


def _in_microseconds(batch: Any) -> Any:
    """Python's times have no nanoseconds; pandas writes them, and pyarrow refuses to drop them unasked."""
    columns = []
    for column in batch.columns:
        kind = column.type
        if pa.types.is_timestamp(kind) and kind.unit == "ns":
            columns.append(column.cast(pa.timestamp("us", kind.tz), safe=False))
        elif pa.types.is_duration(kind) and kind.unit == "ns":
            columns.append(column.cast(pa.duration("us"), safe=False))
        elif pa.types.is_time64(kind) and kind.unit == "ns":
            columns.append(column.cast(pa.time64("us"), safe=False))
        else:
            columns.append(column)
    return pa.record_batch(columns, names=batch.schema.names)


def _arrow_type(kind: Kind | None) -> Any:
    types = {Kind.BOOLEAN: pa.bool_(), Kind.INTEGER: pa.int64(), Kind.NUMBER: pa.float64()}
    return types.get(kind, pa.string()) if kind is not None else pa.string()


class ParquetWriter:
    """Writes rows of known kinds."""

    def __init__(self, file: Path, kinds: Mapping[str, Kind | None]) -> None:
        self._schema = pa.schema([(name, _arrow_type(kind)) for name, kind in kinds.items()])
        self._writer = pq.ParquetWriter(file, self._schema)
        self._rows: list[Mapping[str, Any]] = []

    def write(self, values: Mapping[str, Any]) -> None:
        """Adds a row; columns that it lacks are null."""
        self._rows.append(values)
        if len(self._rows) == _ROWS_OF_A_GROUP:
            self._flush()

    def close(self) -> None:
        """Completes the file."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
            self._rows = []


class ParquetExtender:
    """Copies a Parquet file and gives it more columns. What it holds keeps its types, whatever they are."""

    def __init__(self, file: Path, source: Path, kinds: Mapping[str, Kind | None]) -> None:
        self._rows: list[Mapping[str, Any]] = []
        self._added = [pa.field(name, _arrow_type(kind)) for name, kind in kinds.items()]
        self._opened = _opened(source)
        table = self._opened.__enter__()
        self._batches = table.iter_batches(batch_size=_ROWS_OF_A_GROUP)
        self._writer = pq.ParquetWriter(file, self._with(table.schema_arrow.empty_table()).schema)
        self._batch: Any = None

    def write(self, values: Mapping[str, Any]) -> None:
        """Adds the new columns of the next row."""
        if self._batch is None:
            self._batch = pa.Table.from_batches([next(self._batches)])
        self._rows.append(values)
        if len(self._rows) == self._batch.num_rows:
            self._writer.write_table(self._with(self._batch))
            self._rows, self._batch = [], None

    def close(self) -> None:
        """Completes the file."""
        self._writer.close()
        self._opened.__exit__(None, None, None)

    def _with(self, table: Any) -> Any:
        for field in self._added:
            table = table.append_column(field, pa.array([row[field.name] for row in self._rows], field.type))
        return table
