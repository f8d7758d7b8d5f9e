"""An uploaded file and its verdicts: read, judged group by group, flagged anew at any threshold, written."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from guardreasoner_moderation.batch.pending import Columns, HowToJudge, PendingRows
from guardreasoner_moderation.batch.reading import read_rows, survey
from guardreasoner_moderation.batch.rows import FileFormat, Kind, Row, file_format, gzipped
from guardreasoner_moderation.batch.runners import LocalRunner
from guardreasoner_moderation.batch.verdict_columns import VerdictColumns
from guardreasoner_moderation.batch.writing import writing
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.moderator import Moderator
from guardreasoner_moderation.results import LABELS, Task

HARM = (Task.REQUEST, Task.RESPONSE)
PREFIX = "moderation"
_ROWS_AT_ONCE = 16  # few, so that progress is seen

Result = dict[str, Any]
"""What ``ModerationResult.to_dict`` returns."""


@dataclass(frozen=True, slots=True, eq=False)
class JudgedFile:
    """The rows of a file, as far as they have results. Equal only to itself, so that Gradio can tell what is new.

    Attributes:
        file: where the rows come from.
        columns: its columns and their kinds.
        judged: which of them hold what is judged.
        rows: all rows, in order.
        results: the result of each row by its number; rows that are not judged yet are absent.
    """

    file: Path
    columns: Mapping[str, Kind | None]
    judged: Columns
    rows: tuple[Row, ...]
    results: Mapping[int, Result] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether every row has a result."""
        return len(self.results) == len(self.rows)

    def flagged_from(self, threshold: float) -> JudgedFile:
        """The same with verdicts as they are when requests and responses are harmful from ``threshold``.

        A row that could not be judged stays flagged. Only rows that were harmful when they were judged have a category.
        """
        return replace(self, results={number: _flag(result, threshold) for number, result in self.results.items()})

    def scores(self) -> list[float]:
        """Of every judged row the score that decides whether it is flagged: the higher one of request and response."""
        return [score for result in self.results.values() if (score := harm_score(result)) is not None]

    def count(self) -> tuple[int, int]:
        """How many rows are flagged, and how many of these could not be judged."""
        flagged = sum(bool(result["flagged"]) for result in self.results.values())
        return flagged, sum("error" in result for result in self.results.values())

    def write(self, folder: Path) -> Path:
        """Writes the judged rows and their verdicts into a folder, in the format of the input (``docs/batch.md``)."""
        form = file_format(self.file)
        ending = f".{form}{'.gz' if gzipped(self.file) else ''}"
        target = folder / f"{self.file.name[: -len(ending)]}.judged{ending}"
        added = VerdictColumns(form, PREFIX)
        with writing(target, target, source=self.file, columns=self.columns, added=added.kinds) as write:
            for row in self.rows:
                if row.number in self.results:
                    write(row.values, added.of(self.results[row.number]))
        return target


def read_file(file: Path, max_rows: int) -> JudgedFile:
    """Reads an uploaded file.

    Args:
        file: JSONL or CSV, perhaps compressed, with the columns that :class:`guardreasoner_moderation.batch.Columns`
            names.
        max_rows: how many rows it may have.

    Raises:
        InputError: it is damaged, has no rows, too many, or no column that could be judged. The message names the file
            without its folder.
    """
    try:
        if file_format(file) is FileFormat.PARQUET:
            raise InputError(f"{file} is a Parquet file; this demo takes CSV and JSONL, guardreasoner batch all three")
        found = survey(file)
        if not found.rows:
            raise InputError(f"{file} has no rows")
        if found.rows > max_rows:
            raise InputError(
                f"{file} has {found.rows:,} rows, and this demo takes {max_rows:,} at most; "
                "guardreasoner batch judges files of any length"
            )
        judged = Columns().resolved(found.columns, file)
        VerdictColumns(file_format(file), PREFIX).refuse_taken(found.columns)
        return JudgedFile(file, found.columns, judged, tuple(read_rows(file)))
    except InputError as exc:
        raise InputError(str(exc).replace(str(file), file.name)) from exc


def judge_rows(judged: JudgedFile, guard: Moderator, how: HowToJudge) -> Iterator[JudgedFile]:
    """Judges the rows, shortest first, and hands out what there is after each group.

    Raises:
        InputError: a setting is wrong.
    """
    pending = PendingRows(judged.file, judged.judged, size=len(judged.rows))
    results = dict(judged.results)
    for group in LocalRunner(guard, rows_at_once=_ROWS_AT_ONCE).run(pending, how):
        results |= {number: dict(result) for number, result in group if result is not None}
        yield replace(judged, results=dict(results))


def harm_score(result: Mapping[str, Any]) -> float | None:
    """The higher score of request and response; None where a row could not be judged."""
    scores = [float(verdict["score"]) for task in HARM if (verdict := result.get(task.value))]
    return max(scores, default=None)


def texts_of(row: Row, judged: Columns) -> Sequence[str]:
    """Prompt and response of a row as they are shown; of a conversation all of it, and an empty response."""
    if judged.messages is not None:
        return str(row.values.get(judged.messages) or ""), ""
    return tuple("" if name is None else str(row.values.get(name) or "") for name in (judged.prompt, judged.response))


def _flag(result: Result, threshold: float) -> Result:
    if "error" in result:
        return result
    changed = copy.deepcopy(result)
    for task in HARM:
        verdict = changed.get(task.value)
        if verdict:
            risky, other = LABELS[task]
            verdict |= {"label": (risky if verdict["score"] >= threshold else other).value, "threshold": threshold}
    score = harm_score(result)
    changed["flagged"] = score is not None and score >= threshold
    changed["category"] = result["category"] if changed["flagged"] else None
    return changed
