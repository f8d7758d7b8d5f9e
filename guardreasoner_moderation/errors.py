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
import os
import re
import reprlib
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


_LONGEST_WORD = 80  # characters of what was found that a message repeats
_MOST_NAMES = 20  # that a message lists
_SECRET_VARIABLES = (
    "GUARDREASONER_API_KEY",
    "GUARDREASONER_SERVER_KEY",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "OPENAI_API_KEY",
)


def nearest(word: object, known: Iterable[object]) -> str:
    """Ending of an error message: ``; did you mean 'x'?`` or the list of what is known, whatever ``word`` is."""
    names = sorted(f"{name}" for name in known)
    close = difflib.get_close_matches(word[:_LONGEST_WORD], names, n=1) if isinstance(word, str) else []
    if close:
        return f"; did you mean {shown(close[0])}?"
    more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return f"; known: {', '.join(name[:_LONGEST_WORD] for name in names[:_MOST_NAMES])}{more}"


def shown(value: object) -> str:
    """What was found, for an error message: as ``repr`` writes it, of bearable length.

    ``repr`` itself can fail (whole numbers of more than 4,300 digits), or never end (YAML whose aliases multiply).
    """
    writer = reprlib.Repr()
    writer.maxlevel, writer.maxlist, writer.maxstring, writer.maxother = 2, 4, _LONGEST_WORD, _LONGEST_WORD
    try:
        text = writer.repr(value)
    except (ValueError, RecursionError, MemoryError):
        return f"a value of type {type(value).__name__} that is too large to show"
    return text if len(text) <= 2 * _LONGEST_WORD else f"{text[: 2 * _LONGEST_WORD]}..."


def brief(text: str) -> str:
    """The first line of a message of others, of bearable length, without credentials."""
    line = re.sub(r"<[\w.]+ object at 0x\w+>: ", "", text.strip().partition("\n")[0])
    return without_secrets(line)[:300].rstrip(" .")


def without_secrets(text: str) -> str:
    """A text with ``***`` for what looks like a credential, and for the keys that this process was given."""
    text = re.sub(r"//[^/\s]+@", "//***@", text)  # user and password of a URL
    text = re.sub(r"(//[^\s?]+)\?[^\s'\"]+", r"\1?***", text)  # signed URLs
    text = re.sub(r"\b(hf_|sk-)[\w-]+", r"\1***", text)
    text = re.sub(r"(?i)\b((?:basic|bearer)\s+)[^\s'\",]+", r"\1***", text)
    for name in _SECRET_VARIABLES:
        if secret := os.environ.get(name):
            text = text.replace(secret, "***")
    return text


def holds_secret(text: str) -> bool:
    """Whether a text, such as a file that is to be published, holds a token or a key of this process."""
    known = [os.environ.get(name) for name in _SECRET_VARIABLES]
    return bool(re.search(r"\b(hf_|sk-)[\w-]{16,}", text)) or any(secret and secret in text for secret in known)


def harmless(cause: BaseException) -> BaseException | None:
    """An error of others to chain to one of ours (``raise ... from harmless(exc)``); None if it tells a credential.

    A traceback shows the whole chain, so all of it is looked at.
    """
    seen: set[int] = set()
    link: BaseException | None = cause
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        if without_secrets(str(link)) != str(link):
            return None
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return cause
