"""YAML files that people write, read strictly: recipes, claims, configurations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from guardreasoner_moderation.errors import InputError, brief, shown

_LONGEST = 1 << 18  # bytes; PyYAML takes seconds for as many


def read_yaml(file: Path) -> Any:
    """The value in a YAML file.

    Raises:
        InputError: the file cannot be read, is too large, not UTF-8 or not YAML, or has a key twice.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Takes no key twice: yaml would take the last of two values."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            keys = [part.value for part, _ in node.value if isinstance(part, yaml.ScalarNode) and part.value != "<<"]
            if len(set(keys)) < len(keys):
                (twin, _), *_ = Counter(keys).most_common(1)
                raise yaml.constructor.ConstructorError(None, None, f"the key {shown(twin)} stands there twice")
            return super().construct_mapping(node, deep)

    try:
        if file.stat().st_size > _LONGEST:
            raise InputError(f"{file} is larger than {_LONGEST >> 10} KiB")
        return yaml.load(file.read_text(encoding="utf-8-sig"), Loader)  # noqa: S506 - a SafeLoader
    except InputError:
        raise
    except OSError as exc:
        raise InputError(f"{file} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise InputError(f"{file} is not UTF-8 text") from exc
    except RecursionError as exc:
        raise InputError(f"{file} is nested too deeply") from exc
    except yaml.YAMLError as exc:
        raise InputError(f"{file} is not valid YAML: {_told(exc)}") from exc
    # What its constructors raise for numbers, dates and tags that are none.
    except (ValueError, KeyError, IndexError, AttributeError, TypeError, OverflowError) as exc:
        raise InputError(f"{file} holds a value that cannot be read: {brief(str(exc))}") from exc


def _told(exc: Any) -> str:
    """Its problem and place, in one line."""
    mark = getattr(exc, "problem_mark", None)
    problem = brief(getattr(exc, "problem", None) or str(exc))
    return problem if mark is None else f"{problem}, line {mark.line + 1}, column {mark.column + 1}"
