"""Labelled items, and how they are read from files: JSON, JSONL, CSV and Parquet, also gzipped.

A file is read into rows, and rows become items by a mapping of columns and labels. Every error names file, row and
column. Rows are counted from 1, without a CSV's heading.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from guardreasoner_moderation.errors import InputError, MissingDependencyError, nearest
from guardreasoner_moderation.interactions import Interaction, to_interaction
from guardreasoner_moderation.results import LABELS, Label, Task

Row: TypeAlias = Mapping[str, Any]

FORMATS = ("json", "jsonl", "csv", "parquet")

USUAL_LABELS: Mapping[Task, Mapping[str, Label]] = {
    Task.REQUEST: {"unsafe": Label.HARMFUL, "safe": Label.UNHARMFUL},
    Task.COMPLETION: {},
    Task.RESPONSE: {"unsafe": Label.HARMFUL, "safe": Label.UNHARMFUL},
}
"""Words that need no mapping, besides the labels themselves. 1 and true are none: they mean "safe" as often."""


@dataclass(frozen=True, slots=True)
class Item:
    """One labelled interaction.

    Attributes:
        id: benchmark and row, such as "ToxicChat/17".
        interaction: what is judged.
        label: the true label of the benchmark's task.
        group: category or source, where the data names one.
    """

    id: str
    interaction: Interaction
    label: Label
    group: str | None = None

    @property
    def digest(self) -> str:
        """Short hash of the texts, by which a changed data file is noticed."""
        texts = f"{self.interaction.prompt}\0{self.interaction.response or ''}"
        return hashlib.sha256(texts.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column holds what.

    Attributes:
        prompt, label: columns that must exist; with ``constant``, no label is read.
        response, group: None when there is no such column.
        flags: label columns of a file that has one for each kind of harm; any set flag means the risky label.
        constant: the label of all rows.
        labels: from a value, in lower case, to the label it means.
        only, drop: column and value, in lower case, of the rows that are kept, and of those that are left out.
        blank: a row whose label is missing is left out, instead of being an error.
    """

    prompt: str = "prompt"
    response: str | None = None
    label: str = "label"
    group: str | None = None
    flags: tuple[str, ...] = ()
    constant: Label | None = None
    labels: Mapping[str, Label] = field(default_factory=dict)
    only: tuple[str, str] | None = None
    drop: tuple[str, str] | None = None
    blank: bool = False


def read_rows(file: Path) -> list[Row]:
    """Reads the rows of a table.

    Raises:
        InputError: the file is missing, empty, damaged or of an unknown kind.
        MissingDependencyError: Parquet needs pyarrow.
    """
    name = file.name.lower().removesuffix(".gz")
    kind = name.rsplit(".", 1)[-1]
    if kind not in FORMATS:
        raise InputError(f"{file} is of no known format{nearest(kind, FORMATS)}")
    try:
        content = file.read_bytes()
        if file.name.lower().endswith(".gz"):
            content = gzip.decompress(content)
        rows = (
            _read_parquet(content, file) if kind == "parquet" else _read_text(content.decode("utf-8-sig"), kind, file)
        )
    except (OSError, EOFError) as exc:
        raise InputError(f"{file} cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc
    except UnicodeDecodeError as exc:
        raise InputError(f"{file} is not UTF-8 text: {exc}") from exc
    if not rows:
        raise InputError(f"{file} holds no rows")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise InputError(f"{file}, row {number}: expected an object with named columns, found {type(row).__name__}")
    return rows


def read_items(
    rows: Sequence[Row], columns: Columns, task: Task, *, name: str, where: str, first: int = 0
) -> list[Item]:
    """Turns rows into items.

    Args:
        rows: of one file.
        columns: which column holds what.
        task: what the labels are about.
        name: of the benchmark, for the items' ids.
        where: the file, for messages.
        first: number of the first row, when a benchmark has several files.

    Raises:
        InputError: a column is missing, a text is empty, or a label cannot be mapped.
    """
    needed = [columns.prompt, *filter(None, (columns.response, columns.group)), *columns.flags]
    needed += [columns.label] if columns.constant is None and not columns.flags else []
    needed += [pair[0] for pair in (columns.only, columns.drop) if pair]
    known = {key for row in rows for key in row}  # JSON may leave out a column where it is null
    for column in needed:
        if column not in known:
            raise InputError(f"{where} has no column {column!r}{nearest(column, known)}")
    items = []
    for number, row in enumerate(rows, 1):
        place = f"{where}, row {number}"
        if columns.only and _plain(row.get(columns.only[0])) != columns.only[1]:
            continue
        if columns.drop and _plain(row.get(columns.drop[0])) == columns.drop[1]:
            continue
        label = _read_label(row, columns, task, place)
        if label is None:
            continue
        response = row.get(columns.response) if columns.response else None
        group = row.get(columns.group) if columns.group else None
        interaction = _read_interaction(row.get(columns.prompt), response, task, place, columns)
        items.append(Item(f"{name}/{first + number - 1}", interaction, label, None if group is None else str(group)))
    return items


def draw_sample(items: Sequence[Item], limit: int, seed: int) -> list[Item]:
    """A fixed sample of at most ``limit`` items, in their order, with the labels' shares of the whole.

    The same items, limit and seed give the same sample. Each label keeps at least one item.

    Raises:
        InputError: there are more labels than the limit.
    """
    if limit >= len(items):
        return list(items)
    by_label: dict[Label, list[int]] = {}
    for number, item in enumerate(items):
        by_label.setdefault(item.label, []).append(number)
    if limit < len(by_label):
        raise InputError(f"a sample needs at least {len(by_label)} items, one of each label; found a limit of {limit}")
    quotas = {label: max(1, limit * len(numbers) // len(items)) for label, numbers in by_label.items()}
    while sum(quotas.values()) < limit:  # to the label that rounding down has cost most
        quotas[max(quotas, key=lambda label: limit * len(by_label[label]) / len(items) - quotas[label])] += 1
    rng = random.Random(seed)
    drawn = [number for label, numbers in by_label.items() for number in rng.sample(numbers, quotas[label])]
    return [items[number] for number in sorted(drawn)]


def map_label(value: Any, task: Task, labels: Mapping[str, Label], place: str, column: str) -> Label:
    """The label that a value means.

    Raises:
        InputError: it means none; the message names the place, the column and how to map it.
    """
    risky, other = LABELS[task]
    known = {risky.value: risky, other.value: other, **USUAL_LABELS[task], **labels}
    label = known.get(_plain(value))
    if label not in (risky, other):
        raise InputError(
            f"{place}, column {column!r}: {str(value).strip()[:40]!r} is neither {risky} nor {other}; "
            f"map it, as in {risky}=VALUE,{other}=VALUE"
        )
    return label


def _read_label(row: Row, columns: Columns, task: Task, place: str) -> Label | None:
    if columns.constant is not None:
        return columns.constant
    if columns.flags:
        return LABELS[task][0 if any(_plain(row.get(flag)) in ("1", "true") for flag in columns.flags) else 1]
    value = row.get(columns.label)
    if columns.blank and _plain(value) in ("", "none", "null"):
        return None
    return map_label(value, task, columns.labels, place, columns.label)


def _read_interaction(prompt: Any, response: Any, task: Task, place: str, columns: Columns) -> Interaction:
    if isinstance(response, str) and not response.strip():
        response = None
    if response is None and task is not Task.REQUEST:
        column = f", column {columns.response!r}" if columns.response else ""
        raise InputError(f"{place}{column}: there is no response, which the {task} task is about")
    try:
        return to_interaction(Interaction(prompt, response))
    except InputError as exc:
        raise InputError(f"{place}, column {columns.prompt!r}: {exc}") from exc


def _plain(value: Any) -> str:
    """A value as a word: 1.0, "1" and 1 are alike, and so are True and "true"."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip().lower()


def _read_text(text: str, kind: str, file: Path) -> list[Row]:
    if kind == "csv":
        csv.field_size_limit(2**31 - 1)  # the default, 131,072 characters, is less than a long text
        rows: list[Row] = list(csv.DictReader(io.StringIO(text, newline="")))
        for number, row in enumerate(rows, 1):
            if None in row:
                raise InputError(f"{file}, row {number} has more columns than the heading")
        return rows
    if kind == "json":
        try:
            content = json.loads(text) if text.strip() else []
        except ValueError as exc:
            raise InputError(f"{file} is not JSON: {exc}") from exc
        if not isinstance(content, list):
            raise InputError(f"{file} must hold a JSON list of rows, found {type(content).__name__}")
        return content
    rows = []
    for number, line in enumerate(text.split("\n"), 1):  # splitlines() would split at U+2028 too
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as exc:
                raise InputError(f"{file}, row {number}: not JSON ({exc})") from exc
    return rows


def _read_parquet(content: bytes, file: Path) -> list[Row]:
    try:
        import pyarrow  # type: ignore[import-not-found, import-untyped, unused-ignore]
        from pyarrow import parquet  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as exc:
        raise MissingDependencyError("reading Parquet", "eval") from exc
    try:
        rows: list[Row] = parquet.read_table(pyarrow.BufferReader(content)).to_pylist()
    except pyarrow.ArrowException as exc:
        raise InputError(f"{file} is not a Parquet file: {exc}") from exc
    return rows
