"""Answer slots: from what a model wrote, and how sure it was, to labels and scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from guardreasoner_moderation.errors import EngineError, InputError, nearest, shown
from guardreasoner_moderation.parsing import parse_output
from guardreasoner_moderation.prompts import HEADINGS
from guardreasoner_moderation.results import LABELS, Label, Task

SLOTS: Mapping[str, tuple[str, str]] = {
    f"{HEADINGS[task]}:": (risky.value, other.value) for task, (risky, other) in LABELS.items()
}
"""What engines watch for: the heading of each task's answer line, and the words allowed after it."""

DEFAULT_THRESHOLDS: Mapping[Task, float] = dict.fromkeys(Task, 0.5)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Platt scaling of a slot's log-odds: score = sigmoid(scale * log-odds + first_scale * first log-odds + shift).

    Fitted on held-out data for each task and mode, so that a score is a probability on one scale in every mode
    (Platt 1999; with shift 0 it is the temperature scaling of arXiv 1706.04599). ``first_scale`` is for think mode: it
    weighs what the model answers before it has reasoned, since a small model's reasoning may lead it astray.
    """

    scale: float = 1.0
    shift: float = 0.0
    first_scale: float = 0.0

    def score(self, log_odds: float, first: float = 0.0) -> float:
        """Probability of the risky label.

        Raises:
            EngineError: the model's answer is no number; a comparison with a threshold would call it harmless.
        """
        value = self.scale * log_odds + self.first_scale * first + self.shift
        if math.isnan(value):
            raise EngineError("the model's answer is not a number: its weights or its calibration are damaged")
        # Both branches keep the exponent negative, which cannot overflow.
        return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


@dataclass(frozen=True, slots=True)
class RawJudgement:
    """What a model says of one text before calibration and thresholds.

    Attributes:
        log_odds: for each task, log P(risky label) - log P(other label) in its slot.
        steps: reasoning for each task that has some.
        first: in think mode the log-odds of the answers before the reasoning, where the calibration weighs them.
        category: the category word that the model wrote beside a harmful request.
        prompt_tokens, completion_tokens: what it cost.
    """

    log_odds: Mapping[Task, float]
    steps: Mapping[Task, tuple[str, ...]] = field(default_factory=dict)
    first: Mapping[Task, float] = field(default_factory=dict)
    category: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0


def tasks_of(*, has_response: bool) -> tuple[Task, ...]:
    """The tasks that apply: all three, or the request alone."""
    return tuple(Task) if has_response else (Task.REQUEST,)


def last_words(*, has_response: bool) -> Mapping[str, tuple[str, ...]]:
    """For the heading of the last slot, the words after which the model need not go on.

    A harmful request is followed by its category, so only a harmless one ends the answers of a prompt without response.
    """
    if has_response:
        return {heading: words for heading, words in SLOTS.items() if heading == f"{HEADINGS[Task.RESPONSE]}:"}
    return {f"{HEADINGS[Task.REQUEST]}:": (Label.UNHARMFUL.value,)}


def log_odds(task: Task, reading: Mapping[str, float]) -> float:
    """log P(risky) - log P(other) from a slot's log-probabilities."""
    risky, other = LABELS[task]
    return reading[risky.value] - reading[other.value]


def read_slots(
    written: str, readings: Mapping[str, Mapping[str, float]], tasks: Sequence[Task]
) -> dict[Task, float] | None:
    """The log-odds of each task, if the model wrote a whole answer block; None if it did not.

    Every task must be answered in the text, and the answer must be the label that its slot's reading prefers: a
    reading that belongs to another line of the text is never taken for an answer.
    """
    answers = parse_output(written).answers
    found = {}
    for task in tasks:
        reading = readings.get(f"{HEADINGS[task]}:")
        if reading is None or task not in answers:
            return None
        odds = log_odds(task, reading)
        if answers[task] is not chosen(task, odds):
            return None
        found[task] = odds
    return found


def chosen(task: Task, odds: float) -> Label:
    """The label that the model itself prefers, whatever the threshold."""
    risky, other = LABELS[task]
    return risky if odds > 0 else other


def read_thresholds(thresholds: Mapping[str, float] | float | None, base: Mapping[Task, float]) -> dict[Task, float]:
    """Thresholds for every task: ``base``, changed by what the caller asks for.

    Args:
        thresholds: one number for the harm verdicts (request and response), or a mapping from task to number.
        base: the thresholds where nothing is asked for.

    Raises:
        InputError: an unknown task, or a number outside 0 to 1.
    """
    result = dict(base)
    if thresholds is None:
        return result
    if not isinstance(thresholds, Mapping):
        thresholds = {Task.REQUEST: thresholds, Task.RESPONSE: thresholds}
    for name, value in thresholds.items():
        if name not in set(Task):
            raise InputError(f"unknown task {shown(name)} in thresholds{nearest(name, Task)}")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise InputError(f"the threshold of {name} must be a number from 0 to 1, found {shown(value)}")
        result[Task(name)] = float(value)
    return result
