"""How threads of an OpenMP loop wait for each other.

A forward pass has hundreds of loops, and after each of them every thread waits for the slowest. GNU's OpenMP lets them
sleep at once where it has more threads than there are cores, as there are with two batches side by side, and to wake
one takes longer than most of the loops; on a virtual machine it was a third of the time (docs/performance.md).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

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
