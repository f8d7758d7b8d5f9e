"""How threads of an OpenMP loop wait for each other.

A forward pass has hundreds of loops, and after each of them every thread waits for the slowest. It may spin, which goes
on at once, or sleep, and to wake it takes longer than most of the loops. GNU's OpenMP lets threads spin only while it
counts no more of them than there are cores (docs/performance.md has what sleeping costs).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Thread
from typing import TypeVar

_T = TypeVar("_T")

_SETTINGS = {
    # 1,000 turns before it sleeps, in place of 100, where there are more threads than cores,
    "OMP_WAIT_POLICY": "active",
    # and elsewhere as many as without a policy, not thousands of millions.
    "GOMP_SPINCOUNT": "300000",
}
"""https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html"""


@contextmanager
def brief_spinning() -> Iterator[None]:
    """A library that is loaded within this lets its threads spin some microseconds before they sleep.

    GNU's OpenMP reads its settings when it is loaded. They stand in the environment only meanwhile, since other
    runtimes and child processes would take them otherwise; where the user has set either, nothing is changed. On other
    systems than Linux CTranslate2 comes with other runtimes, to which the policy means spinning without end.
    """
    if sys.platform != "linux" or any(name in os.environ for name in _SETTINGS):
        yield
        return
    os.environ.update(_SETTINGS)
    try:
        yield
    finally:
        for name in _SETTINGS:
            os.environ.pop(name, None)


def uncounted(work: Callable[[], _T]) -> _T:
    """What ``work`` returns; its loops leave no threads behind that OpenMP counts.

    A thread that has run a loop keeps its helpers for the next one, and OpenMP counts them until it ends. Those of a
    thread that loads a model would be too many beside the model's own, which has all cores, and all would sleep. So a
    thread does the work that ends with it.
    """
    outcome: Future[_T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as exc:  # noqa: BLE001 - raised again below
            outcome.set_exception(exc)

    # An executor takes no more work once the main thread has ended, though others may go on.
    passing = Thread(target=run)
    passing.start()
    passing.join()
    return outcome.result()
