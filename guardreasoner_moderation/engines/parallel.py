"""Several prompts at once, for engines that take them one by one, and how many threads there are for that."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def at_once(work: Callable[[_Item], _Result], items: Iterable[_Item], limit: int) -> list[_Result]:
    """``work`` on each item, in order, at most ``limit`` at a time; one at a time in the caller's own thread.

    What ``work`` raises is raised here, when what has begun has ended; what has not begun is left out.
    """
    items = list(items)
    if min(limit, len(items)) < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(min(limit, len(items))) as pool:
        return list(pool.map(work, items))


def available_threads() -> int:
    """``OMP_NUM_THREADS``, or the number of cores that the process may use."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    if limit.isdecimal() and int(limit) > 0:
        return int(limit)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
