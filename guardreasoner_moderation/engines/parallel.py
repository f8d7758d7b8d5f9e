"""Several prompts at once, for engines that take them one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def at_once(work: Callable[[_Item], _Result], items: Iterable[_Item], limit: int) -> list[_Result]:
    """``work`` on each item, in order, at most ``limit`` at a time; one alone in the caller's own thread.

    What ``work`` raises is raised here, when what has begun has ended; what has not begun is left out.
    """
    items = list(items)
    if len(items) < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(min(limit, len(items))) as pool:
        return list(pool.map(work, items))
