"""Checks of single settings. What is wrong is an InputError that names the setting and what was found."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from guardreasoner_moderation.errors import InputError, nearest, shown

Kind = TypeVar("Kind")

MOST = 2**31 - 1  # more than any model's tokens; what engines and files hold


def known_word(what: str, value: object, known: Iterable[str]) -> str:
    """One of a few words.

    Raises:
        InputError: it is none of them; with the nearest.
    """
    words = list(known)
    if not isinstance(value, str) or value not in words:
        raise InputError(f"unknown {what} {shown(value)}{nearest(value, words)}")
    return value


def whole_number(name: str, value: object, *, least: int = 1, most: int = MOST) -> int:
    """A whole number between bounds; True and False are none.

    Raises:
        InputError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, found {shown(value)}")
    if value > most:
        raise InputError(f"{name} must be at most {most}, found {shown(value)}")
    return value


def finite_number(name: str, value: object) -> float:
    """A number that is neither infinite nor "not a number"; True and False are none.

    Raises:
        InputError: it is something else.
    """
    try:
        if not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value):
            return float(value)
    except OverflowError:  # a whole number beyond all floats
        pass
    raise InputError(f"{name} must be a finite number, found {shown(value)}")


def of_type(kind: type[Kind], name: str, value: object) -> Kind:
    """A value of exactly this type.

    Raises:
        InputError: it is of another one.
    """
    if type(value) is not kind:
        raise InputError(f"{name} must be of type {kind.__name__}, found {shown(value)}")
    return value


def mapping(name: str, value: object) -> Mapping[str, Any]:
    """Keys with values.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(value, Mapping):
        raise InputError(f"{name} must map names to values, found {shown(value)}")
    return value


def encodable(text: str) -> bool:
    """Whether a text has a UTF-8 form: half a surrogate pair has none, and tokenizers and files take UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def rising_shares(name: str, value: object) -> tuple[float, float]:
    """Two numbers from 0 to 1, the first not above the second.

    Raises:
        InputError: it is something else.
    """
    if isinstance(value, (list, tuple)) and len(value) == 2:
        low, high = (finite_number(f"each number of {name}", bound) for bound in value)
        if 0 <= low <= high <= 1:
            return low, high
    raise InputError(f"{name} must be two rising numbers from 0 to 1, found {shown(value)}")
