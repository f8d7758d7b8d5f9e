"""Rows that wait for a judgement: which columns are judged, and windows of rows on their way to a moderator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from guardreasoner_moderation import strict_json
from guardreasoner_moderation.batch.journal import Done, Judged
from guardreasoner_moderation.batch.reading import read_rows
from guardreasoner_moderation.batch.rows import Row, file_format
from guardreasoner_moderation.batch.verdict_columns import VerdictColumns
from guardreasoner_moderation.errors import InputError, nearest, shown
from guardreasoner_moderation.interactions import Interaction, to_interaction
from guardreasoner_moderation.moderator import Moderator
from guardreasoner_moderation.results import Mode, ModerationResult


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns hold what is judged.

    Where none is named these are ``prompt``, ``response`` and ``system``, as far as they are there, or ``messages`` if
    there is no ``prompt``. Where any is named, only the named ones are read.

    Attributes:
        prompt: what users wrote.
        response: what the assistant answered; a row without a response is a request alone.
        system: system messages.
        messages: conversations: lists of chat messages, or JSON texts of such lists. Goes without the others.
    """

    prompt: str | None = None
    response: str | None = None
    system: str | None = None
    messages: str | None = None

    def named(self) -> dict[str, str]:
        """Columns by what they hold, without those that are not read."""
        pairs = ((entry.name, getattr(self, entry.name)) for entry in fields(self))
        return {name: column for name, column in pairs if column is not None}

    def resolved(self, there: Iterable[str], file: Path) -> Columns:
        """The columns that are read from a file with the columns ``there``.

        Raises:
            InputError: one is missing, or the choice makes no sense.
        """
        known = list(there)
        if not self.named():
            if "prompt" not in known and "messages" in known:
                return Columns(messages="messages")
            found = {name: name for name in ("response", "system") if name in known}
            return Columns(prompt="prompt", **found).resolved(known, file)
        if self.messages is not None and len(self.named()) > 1:
            raise InputError("a messages column goes without prompt, response and system columns")
        if self.messages is None and self.prompt is None:
            raise InputError("name the column of the prompts too")
        for name, column in self.named().items():
            if column not in known:
                raise InputError(f"{file} has no {name} column {shown(column)}{nearest(column, known)}")
        return self


@dataclass(frozen=True, slots=True)
class Pending:
    """A row that is to be judged, or that cannot be, or whose earlier result stays.

    Attributes:
        number: the row's place, from 0.
        interaction: what is judged.
        error: why nothing can be judged. With neither, the earlier result stays.
    """

    number: int
    interaction: Interaction | None = None
    error: str | None = None

    @property
    def characters(self) -> int:
        """Length of what is judged."""
        one = self.interaction
        return 0 if one is None else len(one.prompt) + len(one.response or "")


@dataclass(frozen=True, slots=True)
class PendingRows:
    """The rows of a file that are not done yet.

    Attributes:
        source: the file.
        columns: what is judged; resolved.
        size: rows in a window; so many are in memory.
        done: rows that are left out.
        earlier: a finished output, of which only the rows with an error are judged again; and its prefix.
    """

    source: Path
    columns: Columns
    size: int
    done: Done = field(default_factory=Done)
    earlier: tuple[Path, str] | None = None

    def windows(self) -> Iterator[list[Pending]]:
        """The rows, in order, ``size`` at a time.

        Raises:
            InputError: the file is damaged; the windows before it have been handed out.
        """
        window = []
        for row, stays in self._rows():
            if row.number in self.done:
                continue
            window.append(Pending(row.number) if stays else self._read(row))
            if len(window) == self.size:
                yield window
                window = []
        if window:
            yield window

    def _rows(self) -> Iterator[tuple[Row, bool]]:
        rows = read_rows(self.source, list(self.columns.named().values()))
        if self.earlier is None:
            yield from ((row, False) for row in rows)
            return
        target, prefix = self.earlier
        added = VerdictColumns(file_format(target), prefix)
        for row, old in zip(rows, read_rows(target, added.kinds), strict=True):
            yield row, added.error(old.values) is None

    def _read(self, row: Row) -> Pending:
        error = row.error
        if error is None:
            try:
                return Pending(row.number, self._interaction(row.values))
            except InputError as exc:
                error = f"{row.where}: {exc}"
        # What could not be decoded may be quoted in the error; it must fit into any file.
        return Pending(row.number, error=error.encode(errors="replace").decode())

    def _interaction(self, values: Mapping[str, Any]) -> Interaction:
        if self.columns.messages is not None:
            return to_interaction({"messages": _messages(values, self.columns.messages)})
        prompt = str(self.columns.prompt)
        if values.get(prompt) is None:
            raise InputError(f"no {shown(prompt)} in this row")
        item = {"prompt": values[prompt]}
        for name in ("response", "system"):
            value = values.get(getattr(self.columns, name))
            # CSV cannot tell an empty text from none, so no format does.
            item[name] = None if isinstance(value, str) and not value.strip() else value
        return to_interaction(item)


def _messages(values: Mapping[str, Any], column: str) -> Any:
    value = values.get(column)
    if value is None:
        raise InputError(f"no {shown(column)} in this row")
    if not isinstance(value, str):
        return value
    try:
        return strict_json.loads(value)
    except ValueError as exc:
        raise InputError(f"{shown(column)} is not a list of chat messages in JSON: {exc}") from exc


@dataclass(frozen=True, slots=True)
class HowToJudge:
    """What is passed on to :meth:`Moderator.classify_batch`."""

    mode: str = "think"
    thresholds: Mapping[str, float] | float | None = None
    max_reasoning_tokens: int | None = None


def judge(guard: Moderator, rows: Sequence[Pending], how: HowToJudge) -> list[Judged]:
    """Results for rows, in the form of ``ModerationResult.to_dict``. What cannot be judged is flagged.

    Raises:
        InputError: a setting is wrong.
    """
    asked = [row for row in rows if row.interaction is not None]
    items = [row.interaction for row in asked if row.interaction is not None]
    results = guard.classify_batch(
        items,
        on_error="block",
        mode=how.mode,
        thresholds=how.thresholds,
        max_reasoning_tokens=how.max_reasoning_tokens,
    )
    judged: dict[int, Mapping[str, Any]] = {
        row.number: result.to_dict() for row, result in zip(asked, results, strict=True)
    }
    for row in rows:
        if row.error is not None:
            unjudged = ModerationResult(
                flagged=True, request=None, mode=Mode(how.mode), model=guard.model.name, error=row.error
            )
            judged[row.number] = unjudged.to_dict()
    return [(row.number, judged.get(row.number)) for row in rows]
