"""What a result looks like in a row: one object in JSONL, columns of plain values in CSV and Parquet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from guardreasoner_moderation.batch.rows import FileFormat, Kind
from guardreasoner_moderation.errors import InputError, shown
from guardreasoner_moderation.results import Task

Result = Mapping[str, Any]
"""What ``ModerationResult.to_dict`` returns."""

FLAT: Mapping[str, Kind] = {
    "flagged": Kind.BOOLEAN,
    **{name: kind for task in Task for name, kind in ((task.value, Kind.TEXT), (f"{task.value}_score", Kind.NUMBER))},
    "category": Kind.TEXT,
    "reasoning": Kind.TEXT,
    "mode": Kind.TEXT,
    "model": Kind.TEXT,
    "prompt_tokens": Kind.INTEGER,
    "completion_tokens": Kind.INTEGER,
    "seconds": Kind.NUMBER,
    "error": Kind.TEXT,
}
"""The columns of CSV and Parquet, to which the prefix and ``_`` are added. Reasoning has one step a line."""


class VerdictColumns:
    """The columns that judging adds to a file."""

    def __init__(self, form: FileFormat, prefix: str) -> None:
        self._nested = form is FileFormat.JSONL
        self._prefix = prefix
        self.kinds: dict[str, Kind] = (
            {prefix: Kind.TEXT} if self._nested else {f"{prefix}_{name}": kind for name, kind in FLAT.items()}
        )

    def refuse_taken(self, names: Iterable[str]) -> None:
        """The input may not have a column that is to be added.

        Raises:
            InputError: it has one.
        """
        taken = [name for name in names if name in self.kinds]
        if taken:
            raise InputError(
                f"the input has a column {shown(taken[0])} already, and the verdicts would take its place; "
                f"choose another --prefix than {shown(self._prefix)}"
            )

    def of(self, result: Result) -> dict[str, Any]:
        """A result as values of these columns."""
        if self._nested:
            return {self._prefix: result}
        flat: dict[str, Any] = {name: result.get(name) for name in FLAT}
        steps: list[str] = []
        for task in Task:
            verdict = result.get(task.value) or {}
            flat[task.value], flat[f"{task.value}_score"] = verdict.get("label"), verdict.get("score")
            steps += verdict.get("reasoning", ())
        flat["reasoning"] = "\n".join(steps)
        flat |= result.get("usage", {})
        return {f"{self._prefix}_{name}": flat[name] for name in FLAT}

    def kept(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values of these columns in a row that was written before."""
        return {name: values.get(name) for name in self.kinds}

    def flagged(self, added: Mapping[str, Any]) -> bool:
        """Whether the values of these columns say so; in a CSV file they are text."""
        return str(self._field(added, "flagged")).lower() == "true"

    def category(self, added: Mapping[str, Any]) -> str | None:
        """The category in the values of these columns."""
        return self._field(added, "category") or None

    def error(self, added: Mapping[str, Any]) -> str | None:
        """The error in the values of these columns."""
        return self._field(added, "error") or None

    def _field(self, added: Mapping[str, Any], name: str) -> Any:
        return added[self._prefix].get(name) if self._nested else added[f"{self._prefix}_{name}"]
