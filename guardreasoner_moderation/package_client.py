"""Runs the user's own package client (pip or uv), which knows the mirrors, proxies and certificates set up for it."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from guardreasoner_moderation.cache import tell
from guardreasoner_moderation.errors import brief


def run(command: Sequence[str], scratch: Path, *, title: str, total: int, progress: bool) -> str | None:
    """Runs a package client; shows as progress how the folder grows that it keeps its temporary files in.

    Args:
        command: program and arguments.
        scratch: an empty folder for its temporary files.
        title: what is shown beside the progress.
        total: the bytes that will be there.
        progress: show a bar, where stderr is a terminal; one line otherwise.

    Returns:
        None, or why it failed, without credentials.

    Raises:
        OSError: the disk is full.
    """
    environment = {
        **os.environ,
        **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch)),
        "PIP_REQUIRE_VIRTUALENV": "0",  # a rule for installing, and nothing is installed
        "PYTHONSAFEPATH": "1",  # a pip.py in the working folder is not pip
        "NO_COLOR": "1",
    }
    log = scratch / "output.txt"
    with log.open("wb") as output, _progress(title, total, progress) as show:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.1)
                show(_bytes_below(scratch))
        finally:
            process.kill()  # no effect on one that has ended
            process.wait()
        if process.returncode == 0:
            show(total)
            return None
    said = log.read_text(encoding="utf-8", errors="replace")
    if re.search(r"(errno|os error) 28\b|winerror 112\b", said, re.IGNORECASE):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return _last_words(said) or f"exit code {process.returncode}"


@contextmanager
def _progress(title: str, total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the bytes that are there."""
    if not shown or sys.stderr is None or not sys.stderr.isatty():
        tell(f"{title} ({total / 1e6:.0f} MB)")
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.update(task, completed=min(done, total))


def _bytes_below(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # gone meanwhile
                total += Path(parent, name).stat().st_size
    return total


def _last_words(said: str) -> str:
    """Why a package client failed, from what it wrote."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ") and "Exception:" not in line]
    network = [line.partition("after connection broken by ")[2] for line in lines]
    return "; ".join(brief(part[-1]) for part in (errors or lines, [line for line in network if line]) if part)
