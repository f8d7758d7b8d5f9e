"""One file judged into another: the course of a job from its first check to its output."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from guardreasoner_moderation import __version__
from guardreasoner_moderation.batch.journal import Journal, done_rows, read_job
from guardreasoner_moderation.batch.pending import Columns, HowToJudge, PendingRows
from guardreasoner_moderation.batch.reading import read_rows, survey
from guardreasoner_moderation.batch.rows import FileFormat, Survey, file_format
from guardreasoner_moderation.batch.runners import LocalRunner, Runner
from guardreasoner_moderation.batch.state import JobFiles, Progress, Summary, difference
from guardreasoner_moderation.batch.verdict_columns import VerdictColumns
from guardreasoner_moderation.batch.writing import refuse_unwritable, writing
from guardreasoner_moderation.cache import read_sha256
from guardreasoner_moderation.checks import known_word, whole_number
from guardreasoner_moderation.errors import InputError, ModerationError, shown
from guardreasoner_moderation.moderator import Moderator
from guardreasoner_moderation.results import Mode
from guardreasoner_moderation.verdicts import DEFAULT_THRESHOLDS, read_thresholds

OnProgress = Callable[[Progress], None]

_TAKEN = "{} is there already; delete it, or pass --overwrite"


def judge_file(
    source: str | Path,
    target: str | Path,
    guard: Moderator | Runner,
    *,
    columns: Columns | None = None,
    mode: str = "think",
    thresholds: Mapping[str, float] | float | None = None,
    max_reasoning_tokens: int | None = None,
    prefix: str = "moderation",
    window_size: int = 1024,
    overwrite: bool = False,
    retry_errors: bool = False,
    on_progress: OnProgress | None = None,
) -> Summary:
    """Judges every row of a file and writes the rows, in their order and with their verdicts, to another.

    A process that dies loses at most the rows that were being judged: the same call goes on where it ended. A row that
    cannot be judged is written with its error, and is flagged. The target appears when it is complete.

    Args:
        source: a JSONL, CSV or Parquet file, by the ending of its name; JSONL and CSV also with ``.gz``.
        target: the file to write; its format may be another one. All columns of the source are carried through.
        guard: a moderator, or another runner.
        columns: what is judged.
        mode, thresholds, max_reasoning_tokens: as for :meth:`Moderator.classify_batch`.
        prefix: name of the object in JSONL that holds the result, and beginning of the columns in CSV and Parquet.
        window_size: how many rows are in memory, sorted by length and then judged.
        overwrite: replace a target that is something else.
        retry_errors: once all rows are done, judge those with an error again.
        on_progress: called whenever rows are done.

    Raises:
        InputError: a setting is wrong; the source is missing, damaged or has no such column; the target is there
            already; or work on it was begun with other settings.
        MissingDependencyError: Parquet needs pyarrow.
        EngineError: the runner failed as a whole.
        ModerationError: the disk is full, files cannot be written, or were removed while the job was running.
    """
    how = HowToJudge(mode, thresholds, max_reasoning_tokens)
    with _storing(Path(target)):
        _check(Path(source), Path(target), how, prefix, window_size)
        files = JobFiles(Path(target).resolve())
        if not overwrite and files.target.exists() and not files.record.exists() and not files.journal.exists():
            raise InputError(_TAKEN.format(files.target))
        runner = LocalRunner(guard) if isinstance(guard, Moderator) else guard
        job = _Job.of(Path(source), Path(target), runner, columns or Columns(), how, prefix, window_size, on_progress)
        with job.files.locked():
            summary = job.finish(overwrite=overwrite, retry_errors=retry_errors)
            return job.retry() if retry_errors and summary.unjudged else summary


def _check(source: Path, target: Path, how: HowToJudge, prefix: str, window_size: int) -> None:
    """What can be known to be wrong before anything is read."""
    known_word("mode", how.mode, Mode)
    read_thresholds(how.thresholds, DEFAULT_THRESHOLDS)
    if how.max_reasoning_tokens is not None:
        whole_number("max_reasoning_tokens", how.max_reasoning_tokens)
    whole_number("window_size", window_size)
    if not isinstance(prefix, str) or not prefix.isprintable() or not prefix.strip():
        raise InputError(f"the prefix must be a word, found {shown(prefix)}")
    for file in (source, target):
        file_format(file)
    if not source.is_file():
        raise InputError(f"{source} is a folder" if source.is_dir() else f"there is no file {source}")
    if not target.resolve().parent.is_dir():
        raise InputError(f"there is no folder {target.resolve().parent}")
    if target.is_dir():
        raise InputError(f"{target} is a folder")
    if target.exists() and target.samefile(source):
        raise InputError(f"{target} is the input itself; write to another file")


@contextmanager
def _storing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise ModerationError(
            f"{exc.filename or target}: {exc.strerror or exc}. "
            "What has been judged so far is kept: the same command goes on from there"
        ) from exc


@dataclass(frozen=True, slots=True)
class _Job:
    rows: PendingRows
    found: Survey
    stamp: tuple[int, int]
    files: JobFiles
    facts: Mapping[str, Any]
    added: VerdictColumns
    prefix: str
    runner: Runner
    how: HowToJudge
    on_progress: OnProgress | None
    started: float

    @classmethod
    def of(
        cls,
        source: Path,
        target: Path,
        runner: Runner,
        columns: Columns,
        how: HowToJudge,
        prefix: str,
        window_size: int,
        on_progress: OnProgress | None,
    ) -> _Job:
        """Surveys the input and names all that the results depend upon."""
        stamp = _stamp(source)
        found = survey(source)
        # A file of no rows is judged in no time; a JSONL file then has no columns that could be missing.
        chosen = columns.resolved(found.columns, source) if found.rows or found.columns else Columns(prompt="prompt")
        added = VerdictColumns(file_format(target), prefix)
        added.refuse_taken(found.columns)
        refuse_unwritable(target, found.columns)
        facts = {
            "version": __version__,
            "input": {"sha256": read_sha256(source), "bytes": stamp[0]},
            "output": file_format(target).value,
            "columns": chosen.named(),
            "prefix": prefix,
            "mode": how.mode,
            "thresholds": dict(how.thresholds) if isinstance(how.thresholds, Mapping) else how.thresholds,
            "max_reasoning_tokens": how.max_reasoning_tokens,
            "model": runner.model(),
        }
        return cls(
            rows=PendingRows(source, chosen, window_size),
            found=found,
            stamp=stamp,
            files=JobFiles(target.resolve()),
            facts=json.loads(json.dumps(facts)),
            added=added,
            prefix=prefix,
            runner=runner,
            how=how,
            on_progress=on_progress,
            started=time.monotonic(),
        )

    def finish(self, *, overwrite: bool, retry_errors: bool) -> Summary:
        """Judges the rows that are not done and writes the output; nothing, when all that was done before."""
        files = self.files
        begun = read_job(files.journal) if files.journal.exists() else None
        if begun is not None and (changed := difference(begun, self.facts)):
            raise InputError(
                f"work on {files.target} was begun otherwise: {changed}. "
                f"Use the settings and the input that it was begun with, or delete {files.folder} to begin anew"
            )
        if begun is None and (record := self._finished_before(retry_errors=retry_errors)) is not None:
            return Summary(files.target, *(record[name] for name in ("rows", "flagged", "unjudged", "categories")))
        # A complete journal beside a target is left by a process that died after it had written the target.
        complete = begun is not None and done_rows(files.journal) == self.found.rows
        if files.target.exists() and not overwrite and not complete:
            raise InputError(_TAKEN.format(files.target))
        with Journal(files.journal, self.facts) as journal:
            return self._work(journal, self.rows)

    def _finished_before(self, *, retry_errors: bool) -> dict[str, Any] | None:
        """The record of this job, if it has been finished and its output is still there."""
        files = self.files
        record = files.read_record()
        if record is None:
            return None
        retry = read_job(files.retry) if files.retry.exists() else None
        if retry is not None and retry.get("retries") != record["output_sha256"]:
            files.retry.unlink()  # of an output that has been replaced since
            retry = None
        # A complete journal of a retry may have replaced the output already, and died before it could say so.
        replaced = retry_errors and retry is not None and done_rows(files.retry) == self.found.rows
        if not replaced and not files.intact(record):
            return None
        changed = difference(record["job"], self.facts)
        if changed and retry_errors:
            raise InputError(f"{files.target} was judged otherwise: {changed}. Retry with the settings of that job")
        return None if changed else record

    def retry(self) -> Summary:
        """Judges the rows of the finished output that have an error again, and writes the output anew."""
        record = self.files.read_record() or {}
        facts = {**self.facts, "retries": record.get("output_sha256")}
        with Journal(self.files.retry, facts) as journal:
            return self._work(journal, replace(self.rows, earlier=(self.files.target, self.prefix)))

    def _work(self, journal: Journal, rows: PendingRows) -> Summary:
        before = len(journal.done)
        fresh = 0
        self._report(journal, before)
        if before < self.found.rows:
            for judged in self.runner.run(replace(rows, done=journal.done.copy()), self.how):
                self._refuse_changed_input()  # else the journal would hold results of other texts than it says
                journal.append(judged)
                fresh += sum(result is not None for _, result in judged)
                self._report(journal, before)
        self._refuse_changed_input()
        summary = self._write(journal, rows)
        self._refuse_changed_input()
        journal.refuse_removed()
        summary = replace(summary, judged=fresh, seconds=time.monotonic() - self.started)
        self.files.publish(self.facts, summary)
        journal.remove()
        return summary

    def _write(self, journal: Journal, rows: PendingRows) -> Summary:
        """Puts the input and the results together.

        Raises:
            ModerationError: there are not as many of the one as of the other, so somebody has changed one of them.
        """
        written = flagged = unjudged = 0
        categories: Counter[str] = Counter()
        earlier = iter(()) if rows.earlier is None else read_rows(rows.earlier[0], self.added.kinds)
        # From Parquet to Parquet the columns are copied as they are, and their values are not needed here.
        copied = file_format(rows.source) is file_format(self.files.target) is FileFormat.PARQUET
        source = read_rows(rows.source, list(rows.columns.named().values()) if copied else None)
        with writing(
            self.files.output,
            self.files.target,
            source=rows.source,
            columns=self.found.columns,
            added=self.added.kinds,
        ) as write:
            for row, result in zip(source, journal.results(), strict=False):
                written += 1
                old = next(earlier, None)
                added = self.added.kept(old.values) if result is None and old else self.added.of(result or {})
                flagged += self.added.flagged(added)
                unjudged += self.added.error(added) is not None
                category = self.added.category(added)
                categories.update([category] if category else [])
                write(row.values, added)
        if written != self.found.rows:
            self._refuse_changed_input()
            raise ModerationError(f"{self.files.folder} was changed while the job was running; run the command again")
        return Summary(self.files.target, self.found.rows, flagged, unjudged, dict(categories.most_common()))

    def _refuse_changed_input(self) -> None:
        """Ends the job where its input is not what it was at the start; an input that is gone is an ``OSError``."""
        if _stamp(self.rows.source) != self.stamp:
            raise InputError(
                f"{self.rows.source} has changed while it was judged. Put it back as it was and run the command again, "
                f"or delete {self.files.folder} to begin anew"
            )

    def _report(self, journal: Journal, before: int) -> None:
        if self.on_progress is not None:
            self.on_progress(Progress(self.found.rows, len(journal.done), before, journal.flagged, journal.unjudged))


def _stamp(file: Path) -> tuple[int, int]:
    """Size and time of change, by which a change is noticed."""
    stat = os.stat(file)
    return stat.st_size, stat.st_mtime_ns
