"""Every exception this package raises on purpose.

    ModerationError
    ├── InputError (ValueError)         the item, mode, threshold or policy that was passed in
    ├── ModelError                      a model that cannot be used
    │   ├── ModelNotFoundError          no such short name, folder or repository
    │   ├── IncompatibleModelError      adapter and base do not belong together, or a file is damaged
    │   └── UnsafeModelError            a file format that can run code when it is read
    ├── WeightsError                    base weights could not be fetched, verified or stored
    ├── MissingDependencyError          an optional extra is not installed (ImportError)
    └── EngineError                     the engine failed while it ran

A caller that wants to go on after any failure of the guard, and to know bad input from a broken guard, writes:

    try:
        result = guard.classify(text)
    except InputError as exc:       # fix the call
        ...
    except ModerationError as exc:  # the guard could not judge: treat the text as unsafe
        ...
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class ModerationError(Exception):
    """Base class of all errors of this package."""


class InputError(ModerationError, ValueError):
    """The caller passed something that cannot be judged."""


class ModelError(ModerationError):
    """A model cannot be used."""


class ModelNotFoundError(ModelError):
    """There is no model of that name, folder or repository id."""


class IncompatibleModelError(ModelError):
    """Parts of a model do not belong together, or one of its files is damaged."""


class UnsafeModelError(ModelError):
    """A model file has a format that can run code when it is read."""


class WeightsError(ModerationError):
    """Base weights could not be fetched, verified or stored."""


class MissingDependencyError(ModerationError, ImportError):
    """A feature needs an optional extra that is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs more packages. Run: pip install 'guardreasoner-moderation[{extra}]'")
        self._made_of = (feature, extra)

    def __reduce__(self) -> tuple[type[MissingDependencyError], tuple[str, str]]:
        return type(self), self._made_of  # an engine's process may raise it


class EngineError(ModerationError):
    """The engine failed while it ran."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Ending of an error message: ``; did you mean 'x'?`` or the list of what is known."""
    names = sorted(f"{name}" for name in known)
    close = difflib.get_close_matches(word, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(names)}"


def brief(text: str) -> str:
    """The first line of a message of others, of bearable length, without credentials."""
    line = re.sub(r"<[\w.]+ object at 0x\w+>: ", "", text.strip().partition("\n")[0])
    line = re.sub(r"//[^/\s]+@", "//***@", line)  # user and password of a URL
    line = re.sub(r"(//[^\s?]+)\?[^\s'\"]+", r"\1?***", line)  # signed URLs
    return re.sub(r"\bhf_\w+", "hf_***", line)[:300].rstrip(" .")
