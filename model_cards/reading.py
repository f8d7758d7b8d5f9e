"""What YAML files hold, as frozen dataclasses, and places in it."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from guardreasoner_moderation.errors import InputError, nearest, shown

ROOT = Path(__file__).parents[1]
"""The checkout."""

NOT_MEASURED = "not measured"
NOT_RECORDED = "not recorded"

Kind = TypeVar("Kind")
_KINDS = {str: "text", float: "finite number"}


def build_rows(kind: type[Kind], rows: Iterable[Mapping[str, Any]], file: Path) -> tuple[Kind, ...]:
    """Mappings as instances of a dataclass.

    Raises:
        InputError: a row is none, has an unknown key (with the nearest known one), or lacks one; or a value is of
            another kind.
    """
    if not isinstance(rows, Iterable) or isinstance(rows, (str, Mapping)):
        raise InputError(f"{file} must hold a list of rows, found {shown(rows)}")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    needed = {name for name, field in fields.items() if _is_needed(field)}
    built = []
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise InputError(f"{file}, row {number}: expected names with values, found {shown(row)}")
        for key in row:
            if key not in fields:
                raise InputError(f"{file}, row {number}: unknown key {shown(key)}{nearest(key, fields)}")
        if missing := sorted(needed - set(row)):
            raise InputError(f"{file}, row {number}: the key {missing[0]} is missing")
        for key, value in row.items():
            if (hints[key] is str and not isinstance(value, str)) or (hints[key] is float and not _is_finite(value)):
                raise InputError(f"{file}, row {number}: {key} must be a {_KINDS[hints[key]]}, found {shown(value)}")
        built.append(kind(**row))
    return tuple(built)


def look_up(content: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path such as ``recipe.learning_rate``; None where there is none."""
    value: Any = content
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value


def shown_path(path: Path) -> str:
    """A path as pages show it: from the root of the checkout; of what lies elsewhere the name only."""
    full = path.resolve()
    return full.relative_to(ROOT).as_posix() if full.is_relative_to(ROOT) else full.name


def _is_finite(value: object) -> bool:
    return (type(value) is float and math.isfinite(value)) or (type(value) is int and abs(value) < 2**53)


def _is_needed(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
