"""Memory that was freed, and that the C library keeps for the next time."""

from __future__ import annotations

import ctypes
import sys


def give_back() -> None:
    """Gives memory that was freed back to the system, where the C library is GNU's; elsewhere does nothing.

    GNU's keeps what a thread has freed for that thread alone, and keeps it when the thread has ended. So what loading a
    model took, and what batches took, would stay beside what the next ones take (docs/performance.md has how much).
    https://man7.org/linux/man-pages/man3/malloc_trim.3.html
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
