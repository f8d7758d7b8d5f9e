"""The comparison of configurations: the papers' against ours, parameter by parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guardreasoner_moderation.errors import InputError, nearest
from model_cards.reading import NOT_RECORDED, build_rows, look_up, read_yaml
from model_cards.record import RunRecord

CONFIGURATIONS = Path(__file__).with_name("configurations.yaml")


@dataclass(frozen=True, slots=True)
class Column:
    """A configuration beside ours, where its figures are from, and what stands for those that are not given there."""

    key: str
    title: str
    source: str
    absent: str


@dataclass(frozen=True, slots=True)
class Parameter:
    """One row: the values of the columns by their keys, and the places of ours in a run."""

    name: str
    values: Mapping[str, Any]
    ours: Sequence[str]

    def of(self, record: RunRecord) -> str:
        """Our value."""
        items = sum(row.train for row in record.data)
        data = {"items": f"{items} items of {len(record.data)} sources"} if items else {}
        content = {"run": record.run, "adapter": record.config, "data": data}
        found = (look_up(content, place) for place in self.ours)
        return next((_shown(value) for value in found if value is not None), NOT_RECORDED)


def read_configurations(file: Path = CONFIGURATIONS) -> tuple[Sequence[Column], Sequence[Parameter]]:
    """The columns and rows.

    Raises:
        InputError: a row has a key that is no column (with the nearest known one), or lacks ``parameter`` or ``ours``.
    """
    content = read_yaml(file)
    columns = build_rows(Column, content["columns"], file)
    known = {"parameter", "ours", *(column.key for column in columns)}
    parameters = []
    for number, row in enumerate(content["rows"], 1):
        for key in row:
            if key not in known:
                raise InputError(f"{file}, row {number}: unknown key {key!r}{nearest(str(key), known)}")
        if "parameter" not in row or "ours" not in row:
            raise InputError(f"{file}, row {number}: parameter and ours must be given")
        values = {key: value for key, value in row.items() if key not in ("parameter", "ours")}
        parameters.append(Parameter(row["parameter"], values, row["ours"]))
    return columns, parameters


def render_configurations(record: RunRecord, file: Path = CONFIGURATIONS) -> str:
    """The table in Markdown, with its sources."""
    columns, parameters = read_configurations(file)
    lines = [f"| parameter | {' | '.join(column.title for column in columns)} | this run |"]
    lines.append("|---" * (len(columns) + 2) + "|")
    for parameter in parameters:
        cells = [_shown(parameter.values.get(column.key, column.absent)) for column in columns]
        lines.append(f"| {parameter.name} | {' | '.join(cells)} | {parameter.of(record)} |")
    lines += ["", "Sources: " + "; ".join(f"{column.title}: {column.source}" for column in columns) + "."]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_shown(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return "; ".join(_shown(inner) for inner in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
