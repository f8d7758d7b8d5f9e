"""A job's progress on standard error: a bar where somebody watches, a line from time to time where not."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from guardreasoner_moderation.batch.state import Progress

_SECONDS_BETWEEN_LINES = 10.0


class ProgressView:
    """Shows what ``judge_file`` reports. A context manager."""

    def __init__(self) -> None:
        self._watched = sys.stderr.isatty()
        self._bar: Any = None
        self._task: Any = None
        self._started: float | None = None
        self._shown = 0.0

    def __call__(self, progress: Progress) -> None:
        """Shows how far the job is."""
        now = time.monotonic()
        if self._started is None:
            self._started = self._shown = now
        text = describe(progress, now - self._started)
        if self._watched:
            self._draw(progress, text)
        elif now - self._shown >= _SECONDS_BETWEEN_LINES:
            self._shown = now
            print(text, file=sys.stderr, flush=True)  # noqa: T201 - this is the program's output

    def __enter__(self) -> ProgressView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _draw(self, progress: Progress, text: str) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

            self._bar = Progress(
                BarColumn(bar_width=30),
                TaskProgressColumn(),
                TextColumn("{task.description}"),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task("")
        self._bar.update(self._task, description=text, completed=progress.done, total=progress.rows)


def describe(progress: Progress, seconds: float) -> str:
    """Progress as one line.

    Args:
        progress: how far the job is.
        seconds: since its first row of this run.
    """
    parts = [f"{progress.done:,} of {progress.rows:,} rows"]
    judged = progress.done - progress.before
    if judged and seconds > 0:
        rate = judged / seconds
        left = (progress.rows - progress.done) / rate
        parts.append(f"{rate:,.1f} rows/s" if rate < 100 else f"{rate:,.0f} rows/s")
        if progress.done < progress.rows:
            parts.append(f"{duration(left)} left")
    parts.append(f"{progress.flagged:,} flagged")
    if progress.unjudged:
        parts.append(f"{progress.unjudged:,} not judged")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Seconds for a person: "42 s", "12 min", "3 h 20 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
