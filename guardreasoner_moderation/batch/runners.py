"""Who judges the rows: a moderator of this process. :mod:`cluster` has the moderators of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from guardreasoner_moderation.batch.journal import Judged
from guardreasoner_moderation.batch.pending import HowToJudge, PendingRows, judge
from guardreasoner_moderation.cache import read_sha256
from guardreasoner_moderation.models import SPEC_FILE
from guardreasoner_moderation.moderator import Moderator


class Runner(Protocol):
    """Judges windows of rows."""

    def model(self) -> Mapping[str, Any]:
        """Name and hashes of the model, by which work is not continued with another one.

        Raises:
            ModelError, WeightsError, MissingDependencyError: there is no such model, or it cannot run.
        """

    def run(self, rows: PendingRows, how: HowToJudge) -> Iterator[list[Judged]]:
        """Each row of ``rows`` once; rows that are far apart come in their order.

        Raises:
            InputError: a setting is wrong, or the file is damaged.
            EngineError: the runner itself failed. A row that cannot be judged is no such failure.
        """


class LocalRunner:
    """Judges with one moderator, the rows of a window from the shortest to the longest."""

    def __init__(self, guard: Moderator | Callable[[], Moderator], *, rows_at_once: int = 64) -> None:
        """Takes a moderator, or what makes one when it is needed.

        Args:
            guard: the moderator, or a function that makes it.
            rows_at_once: how many rows it is given together; a process that is killed loses at most so many.
        """
        self._guard = guard
        self._rows_at_once = rows_at_once

    def model(self) -> Mapping[str, Any]:
        """See :meth:`Runner.model`."""
        model = self._moderator().model
        return model_facts(model.name, model.folder, model.sha256)

    def run(self, rows: PendingRows, how: HowToJudge) -> Iterator[list[Judged]]:
        """See :meth:`Runner.run`."""
        guard = self._moderator()
        for window in rows.windows():
            # Rows of a like length waste little on padding; the journal puts them back in order.
            order = sorted(window, key=lambda row: row.characters)
            for start in range(0, len(order), self._rows_at_once):
                yield judge(guard, order[start : start + self._rows_at_once], how)

    def _moderator(self) -> Moderator:
        if not isinstance(self._guard, Moderator):
            self._guard = self._guard()
        return self._guard


def model_facts(name: str, folder: Path | None, sha256: str | None) -> dict[str, Any]:
    """Name of a model, and hashes of its weights and of its ``moderation.json``."""
    spec = None if folder is None else folder / SPEC_FILE
    return {
        "name": name,
        "sha256": sha256,
        "spec_sha256": read_sha256(spec) if spec is not None and spec.exists() else None,
    }
