"""What a trial found, as ``reliability/results/*.json`` records it and ``docs/reliability.md`` shows it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from evaluation.runs import write_json
from evaluation.summary import hardware, versions

Value: TypeAlias = str | int | float | None


@dataclass(frozen=True, slots=True)
class Trial:
    """One kind of attack, fault or input, tried many times.

    Attributes:
        name: what was tried, in the words of a reader: "kill -9 of the engine's process".
        tried: how often.
        failed: how often what is promised did not hold. Where nothing is promised (whether a verdict changes), None.
        figures: what was measured besides, by column of the table, such as ``{"verdicts changed": 0.04}``. A share is
            a number from 0 to 1 in a column whose name says of what; seconds and megabytes are named in the column.
    """

    name: str
    tried: int
    failed: int | None = None
    figures: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Record:
    """A table of trials, made by one command.

    Attributes:
        title: heading of the section, such as "Hostile texts: structure".
        promise: one or two sentences: what must hold in each trial, and what counts as failed.
        command: what anyone runs to make it anew.
        trials: the rows; all with the same columns of figures.
        notes: sentences below the table.
        versions, hardware: of the machine where it was run.
        weights: SHA-256 of the adapter, where the figures are about its verdicts.
    """

    title: str
    promise: str
    command: str
    trials: Sequence[Trial]
    notes: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=versions)
    hardware: str = field(default_factory=hardware)
    weights: str | None = None

    def save(self, file: Path) -> None:
        """Replaces the file in one move."""
        write_json(file, asdict(self))

    @classmethod
    def load(cls, file: Path) -> Record:
        """A record that :meth:`save` wrote.

        Raises:
            OSError, ValueError, KeyError, TypeError: there is none, or not in this form.
        """
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return cls(**{**content, "trials": [Trial(**trial) for trial in content["trials"]]})
