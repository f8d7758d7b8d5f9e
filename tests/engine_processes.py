"""The processes in which engines of this test process run."""

from __future__ import annotations

import psutil

NAME = "guardreasoner-engine"


def engine_processes() -> list[psutil.Process]:
    """In the order in which they were started; other children, such as a dependency's helpers, are not among them."""
    found = []
    for process in psutil.Process().children():
        try:
            if NAME in process.cmdline():
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return sorted(found, key=lambda process: process.create_time())
