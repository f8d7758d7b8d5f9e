"""What the page shows of a judged file: a sentence, a histogram, table rows, and the result of one row."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from guardreasoner_moderation.batch.rows import Row
from guardreasoner_moderation.demo.judged_file import JudgedFile, harm_score, texts_of
from guardreasoner_moderation.results import Label, Mode, ModerationResult, Task, TaskVerdict, Usage, Window

if TYPE_CHECKING:
    import pandas as pd

ALL, FLAGGED, NOT_FLAGGED, NOT_JUDGED = "All", "Flagged", "Not flagged", "Not judged"
FILTERS = (ALL, FLAGGED, NOT_FLAGGED, NOT_JUDGED)

AS_IN_FILE, HIGHEST, LOWEST = "As in the file", "Highest score first", "Lowest score first"
ORDERS = (AS_IN_FILE, HIGHEST, LOWEST)

COLUMNS: Mapping[str, tuple[str, str]] = {
    "Row": ("number", "64px"),
    "Verdict": ("str", "110px"),
    "Score": ("number", "76px"),
    "Category": ("str", "170px"),
    "User wrote": ("str", "340px"),
    "Assistant answered": ("str", "300px"),
    "Request": ("str", "110px"),
    "Completion": ("str", "120px"),
    "Response": ("str", "110px"),
}
"""Kind and width of each column of the table."""

_BINS = 20


def summary(judged: JudgedFile, threshold: float) -> str:
    """How many rows are flagged from ``threshold``, as HTML."""
    flagged, unjudged = judged.count()
    rows = len(judged.results)
    share = f" ({flagged / rows:.0%})" if rows else ""
    parts = [f"<strong>{flagged:,} of {rows:,} rows flagged</strong>{share} from score {threshold:.2f}"]
    if unjudged:
        parts.append(f"{unjudged:,} could not be judged and count as flagged")
    if not judged.done:
        parts.append(f"{len(judged.rows) - rows:,} rows are not judged yet")
    named = Counter(str(one["category"]) for one in judged.results.values() if one["category"])
    if named:
        words = ", ".join(f"{word.replace('_', ' ')} {count:,}" for word, count in named.most_common(5))
        parts.append(f"most often: {escape(words)}")
    return f'<div class="gm-card" role="status"><p>{"; ".join(parts)}.</p></div>'


def histogram(judged: JudgedFile, threshold: float) -> pd.DataFrame:
    """Rows by score: for each of twenty equal bins its middle, and how many are flagged and not flagged."""
    import pandas as pd

    counts = Counter(
        (min(int(score * _BINS), _BINS - 1), "flagged" if score >= threshold else "not flagged")
        for score in judged.scores()
    )
    # Every bin is there, so that the picture keeps its shape while the threshold moves.
    bins = [(number, verdict) for number in range(_BINS) for verdict in ("flagged", "not flagged")]
    return pd.DataFrame(
        {
            "score": [(number + 0.5) / _BINS for number, _ in bins],
            "rows": [counts[one] for one in bins],
            "verdict": [verdict for _, verdict in bins],
        }
    )


def table(judged: JudgedFile, wanted: str = ALL, order: str = AS_IN_FILE) -> list[list[Any]]:
    """The judged rows that a filter asks for, with a value for each of :data:`COLUMNS`.

    A row that could not be judged has no score and stands first in either order by score: somebody must look at it.
    """
    lines = [line for line in _lines(judged) if wanted in (ALL, line[1])]
    if order == AS_IN_FILE:
        return lines
    sign = -1 if order == HIGHEST else 1
    return sorted(lines, key=lambda line: -math.inf if line[2] is None else sign * line[2])


def find_result(judged: JudgedFile, row: int) -> ModerationResult | None:
    """The result of a row by its number in the table, which counts from 1."""
    record = judged.results.get(row - 1)
    return None if record is None else _to_result(record)


def _lines(judged: JudgedFile) -> Iterator[list[Any]]:
    for row in judged.rows:
        result = judged.results.get(row.number)
        if result is not None:
            yield _line(judged, row, result)


def _line(judged: JudgedFile, row: Row, result: Mapping[str, Any]) -> list[Any]:
    verdict = NOT_JUDGED if "error" in result else FLAGGED if result["flagged"] else NOT_FLAGGED
    score = harm_score(result)
    labels = ((result[task.value] or {}).get("label", "") for task in Task)
    return [
        row.number + 1,
        verdict,
        None if score is None else round(score, 3),
        str(result["category"] or "").replace("_", " "),
        *texts_of(row, judged.judged),
        *labels,
    ]


def _to_result(record: Mapping[str, Any]) -> ModerationResult:
    """What ``ModerationResult.to_dict`` was made of."""
    verdicts = {
        task.value: TaskVerdict(Label(found["label"]), found["score"], found["threshold"], tuple(found["reasoning"]))
        for task in Task
        if (found := record[task.value])
    }
    return ModerationResult(
        flagged=record["flagged"],
        request=verdicts.get(Task.REQUEST),
        completion=verdicts.get(Task.COMPLETION),
        response=verdicts.get(Task.RESPONSE),
        category=record["category"],
        mode=Mode(record["mode"]),
        model=record["model"],
        usage=Usage(**record["usage"]),
        windows={Task(task): Window(**window) for task, window in record.get("windows", {}).items()},
        error=record.get("error"),
    )
