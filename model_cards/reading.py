"""YAML files read strictly, into mappings and frozen dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from guardreasoner_moderation.errors import InputError, nearest

ROOT = Path(__file__).parents[1]
"""The checkout."""

NOT_MEASURED = "not measured"
NOT_RECORDED = "not recorded"

Kind = TypeVar("Kind")


def read_yaml(file: Path) -> Any:
    """Reads a YAML file.

    Raises:
        InputError: the file cannot be read, or is not YAML.
    """
    import yaml

    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise InputError(f"{file} cannot be read: {exc.strerror}") from exc
    except yaml.YAMLError as exc:
        raise InputError(f"{file} is not YAML: {exc}") from exc


def build_rows(kind: type[Kind], rows: Iterable[Mapping[str, Any]], file: Path) -> tuple[Kind, ...]:
    """Mappings as instances of a dataclass.

    Raises:
        InputError: a row has an unknown key (with the nearest known one) or lacks one.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    needed = {name for name, field in fields.items() if _is_needed(field)}
    built = []
    for number, row in enumerate(rows, 1):
        for key in row:
            if key not in fields:
                raise InputError(f"{file}, row {number}: unknown key {key!r}{nearest(str(key), fields)}")
        if missing := sorted(needed - set(row)):
            raise InputError(f"{file}, row {number}: the key {missing[0]} is missing")
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


def _is_needed(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
