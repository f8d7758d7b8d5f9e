"""What a row of a file is, and which files there are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guardreasoner_moderation.errors import InputError, nearest, shown
from guardreasoner_moderation.results import StrEnum

_ENDINGS = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet")


class FileFormat(StrEnum):
    """How a file holds its rows."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


class Kind(StrEnum):
    """What all values of a column are; ``text`` also where they are of several kinds, or lists and objects."""

    BOOLEAN = "boolean"
    INTEGER = "integer"
    NUMBER = "number"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file.

    Attributes:
        number: its place among the rows, from 0.
        where: its place for a person, such as "line 7" (lines count from 1, a CSV's heading included).
        values: from column to value; empty or not complete when ``error`` is set.
        error: why it could not be read.
    """

    number: int
    where: str
    values: dict[str, Any]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    """What a file holds.

    Attributes:
        rows: how many.
        columns: from each column, in order of appearance, to its kind; None when it holds no value, or in Parquet,
            whose columns have types of their own.
    """

    rows: int
    columns: dict[str, Kind | None] = field(default_factory=dict)


def file_format(file: Path) -> FileFormat:
    """The format that a file's name tells.

    Raises:
        InputError: the name ends otherwise.
    """
    name = file.name.lower()
    if not name.endswith(_ENDINGS):
        found = "".join(file.suffixes[-2:] if name.endswith(".gz") else file.suffixes[-1:])
        raise InputError(f"{file} has an unknown ending {shown(found)}{nearest(found, _ENDINGS)}")
    return FileFormat(name.removesuffix(".gz").rsplit(".", 1)[-1])


def gzipped(file: Path) -> bool:
    """Whether a file's name says that it is compressed."""
    return file.name.lower().endswith(".gz")


def refuse_twins(file: Path, names: Iterable[str]) -> None:
    """Two columns of one name cannot be told apart.

    Raises:
        InputError: there are two.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{file} has two columns of the name {shown(name)}")
        seen.add(name)


def widened(kind: Kind | None, value: object) -> Kind | None:
    """The kind of a column of ``kind`` that also holds ``value``."""
    if value is None:
        return kind
    own = Kind.TEXT
    if isinstance(value, bool):
        own = Kind.BOOLEAN
    elif isinstance(value, int):
        own = Kind.INTEGER if -(2**63) <= value < 2**63 else Kind.TEXT
    elif isinstance(value, float):
        own = Kind.NUMBER
    if kind is None or kind is own:
        return own
    return Kind.NUMBER if {kind, own} == {Kind.INTEGER, Kind.NUMBER} else Kind.TEXT
