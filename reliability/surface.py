"""One way into the package, tried with many inputs: each gets a verdict or an error of ours, in time and in memory."""

from __future__ import annotations

import faulthandler
import gc
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType
from typing import TypeAlias

import psutil

from guardreasoner_moderation.errors import ModerationError
from reliability.record import Trial

Try: TypeAlias = Callable[[Random], str]
"""Draws one input and gives it to the package: what came of it in one word, such as "verdict". An error of the
package's own tree may come out; anything else that is raised is a failure."""

VERDICT = "verdict"
ACCEPTED = "accepted"
REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Surface:
    """A way into the package.

    Attributes:
        name: in the words of a reader.
        open: makes what tries one input; it may use the folder, which is empty.
        inputs: how many a whole run tries.
        seconds: how long one input may take.
        warm: the share of the inputs from which on memory may not grow.
    """

    name: str
    open: Callable[[Path], AbstractContextManager[Try]]
    inputs: int
    seconds: float = 20.0
    warm: float = 0.1


@dataclass(slots=True)
class Outcome:
    """What came of many inputs.

    Attributes:
        tried: how many.
        outcomes: what came of them, and how often.
        failures: what went wrong, with the number of the input, for a person.
        slowest: seconds of the slowest input.
        memory: resident MB once the surface is warm, and after all inputs.
    """

    tried: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    memory: tuple[float, float] = (0.0, 0.0)

    def trial(self, name: str) -> Trial:
        """As a row of the record."""
        judged = self.outcomes[VERDICT] + self.outcomes[ACCEPTED]
        return Trial(
            name,
            self.tried,
            len(self.failures),
            {
                "judged or accepted": judged,
                "refused with an error of ours": self.tried - judged - len(self.failures),
                "slowest, s": round(self.slowest, 1),
                "memory once warm, MB": round(self.memory[0]),
                "memory at the end, MB": round(self.memory[1]),
            },
        )


class BrokenPromiseError(Exception):
    """The package answered, but not as it promises to."""


def insist(true: object, otherwise: str) -> None:
    """Raises BrokenPromiseError where something is not true."""
    if not true:
        raise BrokenPromiseError(otherwise)


class OutOfTimeError(BaseException):
    """An input took too long; no handler of exceptions may keep it."""


def try_surface(surface: Surface, folder: Path, *, inputs: int, seed: int) -> Outcome:
    """Tries a surface with so many inputs."""
    outcome = Outcome()
    with surface.open(folder) as attempt:
        for number in range(inputs):
            started = time.perf_counter()
            try:
                with _limited(surface.seconds):
                    word = attempt(Random(f"{seed} {surface.name} {number}"))
            except ModerationError:
                word = REFUSED
            except (Exception, OutOfTimeError) as exc:  # noqa: BLE001 - what is looked for
                word = "failed"
                where = traceback.extract_tb(exc.__traceback__)[-1]
                outcome.failures.append(
                    f"input {number}: {type(exc).__name__}: {str(exc)[:300]} ({where.filename}:{where.lineno})"
                )
            outcome.outcomes[word] += 1
            outcome.slowest = max(outcome.slowest, time.perf_counter() - started)
            outcome.tried += 1
            if number == int(inputs * surface.warm):
                outcome.memory = (_resident(), 0.0)
    outcome.memory = (outcome.memory[0], _resident())
    return outcome


def _resident() -> float:
    gc.collect()
    return float(psutil.Process().memory_info().rss / 1e6)


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Ends an input that takes too long; one that hangs in native code ends the process, and says where."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise OutOfTimeError(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(10 * seconds, exit=True, file=sys.__stderr__ or 2)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        faulthandler.cancel_dump_traceback_later()
