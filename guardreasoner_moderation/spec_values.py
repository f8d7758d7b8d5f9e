"""What each key of ``moderation.json`` may hold."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from guardreasoner_moderation.checks import finite_number, known_word, mapping, of_type, rising_shares, whole_number
from guardreasoner_moderation.errors import InputError, shown
from guardreasoner_moderation.prompts import PromptFormat
from guardreasoner_moderation.results import Mode, Task
from guardreasoner_moderation.verdicts import DEFAULT_THRESHOLDS, Calibration, read_thresholds

_NUMBERS = [entry.name for entry in dataclasses.fields(Calibration)]


def _calibrations(key: str, value: Any) -> dict[Mode, dict[Task, Calibration]]:
    """For each mode and task; a number that is infinite or none would make every score of it harmless."""
    return {
        Mode(known_word(f"mode in {key}", mode, Mode)): {
            Task(known_word(f"task in {key}", task, Task)): _calibration(f"{key} of {mode} {task}", numbers)
            for task, numbers in mapping(f"{key} of {mode}", tasks).items()
        }
        for mode, tasks in mapping(key, value).items()
    }


def _calibration(what: str, value: Any) -> Calibration:
    numbers = mapping(what, value)
    for name in numbers:
        known_word(f"number in {what}", name, _NUMBERS)
    return Calibration(**{name: finite_number(f"{name} in {what}", number) for name, number in numbers.items()})


def _words(key: str, value: Any) -> tuple[str, ...]:
    return tuple(of_type(str, f"each of the {key}", word) for word in of_type(list, key, value))


def _digest(key: str, value: Any) -> str:
    if not isinstance(value, str) or re.fullmatch(r"[0-9a-f]{64}", value) is None:
        raise InputError(f"{key} must be 64 hexadecimal digits in small letters, found {shown(value)}")
    return value


READERS: Mapping[str, Callable[[str, Any], Any]] = {
    "prompt_format": lambda key, value: PromptFormat(known_word(key, value, PromptFormat)),
    "chat": partial(of_type, bool),
    "policy": partial(of_type, bool),
    "categories": _words,
    "base": partial(of_type, str),
    "base_sha256": _digest,
    "calibration": _calibrations,
    "thresholds": lambda _, value: read_thresholds(value, DEFAULT_THRESHOLDS),
    "window_tokens": whole_number,
    "passage_tokens": partial(whole_number, least=0),
    "reasoning_tokens": whole_number,
    "auto_bounds": rising_shares,
}
"""For each key what reads its value; they raise InputError."""
