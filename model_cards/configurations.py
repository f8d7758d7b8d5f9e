"""The comparison of configurations: the papers' against ours, parameter by parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guardreasoner_moderation.errors import InputError, nearest, shown
from model_cards.reading import NOT_RECORDED, build_rows, look_up
from model_cards.record import RunRecord
from texts.strict_yaml import read_yaml

CONFIGURATIONS = Path(__file__).with_name("configurations.yaml")


@dataclass(frozen=True, slots=True)
class Column:
    """A configuration beside ours, and where its figures are from."""

    key: str
    title: str
    source: str


@dataclass(frozen=True, slots=True)
class Parameter:
    """One row: the values of the columns by their keys, the places of ours in a run, and what a recipe without means.

    A place may come with words for what stands there, such as ``{run.recipe.decay_share: "decay over {}"}``.
    """

    name: str
    values: Mapping[str, Any]
    ours: Sequence[str | Mapping[str, str]]
    without: str = NOT_RECORDED

    def of(self, record: RunRecord) -> str:
        """Our value."""
        items = sum(row.train for row in record.data)
        doubtful = " (less those with doubtful labels)" if any(row.doubtful for row in record.data) else ""
        data = {"items": f"{items} items of {len(record.data)} sources{doubtful}"} if items else {}
        content = {"run": record.run, "adapter": record.config, "data": data}
        for entry in self.ours:
            place, words = next(iter(entry.items())) if isinstance(entry, Mapping) else (entry, "{}")
            if (value := look_up(content, place)) is not None:
                return words.format(_shown(value))
        return self.without if record.run.get("recipe") else NOT_RECORDED


def read_configurations(file: Path = CONFIGURATIONS) -> tuple[Sequence[Column], Sequence[Parameter]]:
    """The columns and rows.

    Raises:
        InputError: a row has a key that is no column (with the nearest known one), or lacks ``parameter`` or ``ours``.
    """
    content = read_yaml(file)
    if not isinstance(content, Mapping) or not all(isinstance(content.get(key), list) for key in ("columns", "rows")):
        raise InputError(f"{file} must map columns and rows to lists")
    columns = build_rows(Column, content["columns"], file)
    known = {"parameter", "ours", "without", *(column.key for column in columns)}
    parameters = []
    for number, row in enumerate(content["rows"], 1):
        if not isinstance(row, Mapping):
            raise InputError(f"{file}, row {number}: expected names with values, found {shown(row)}")
        for key in row:
            if key not in known:
                raise InputError(f"{file}, row {number}: unknown key {shown(key)}{nearest(key, known)}")
        if "parameter" not in row or "ours" not in row:
            raise InputError(f"{file}, row {number}: parameter and ours must be given")
        values = {column.key: row[column.key] for column in columns if column.key in row}
        parameters.append(Parameter(row["parameter"], values, row["ours"], row.get("without", NOT_RECORDED)))
    return columns, parameters


def render_configurations(record: RunRecord, file: Path = CONFIGURATIONS) -> str:
    """The table in Markdown, with its sources."""
    columns, parameters = read_configurations(file)
    lines = [f"| parameter | {' | '.join(column.title for column in columns)} | this run |"]
    lines.append("|---" * (len(columns) + 2) + "|")
    for parameter in parameters:
        cells = [_shown(parameter.values.get(column.key, "-")) for column in columns]
        lines.append(f"| {parameter.name} | {' | '.join(cells)} | {parameter.of(record)} |")
    lines += [
        "",
        "A dash: not in the sources that were read.",
        "Sources: " + "; ".join(f"{column.title}: {column.source}" for column in columns) + ".",
    ]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_shown(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return "; ".join(_shown(inner) for inner in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
