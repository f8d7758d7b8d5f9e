"""Which of a teacher's traces are good enough to learn from.

Each filter can be worked out by hand; none needs a model. They tell what is plainly wrong, not what is badly argued.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from guardreasoner_moderation.parsing import parse_output
from guardreasoner_moderation.results import LABELS, Category, Label, StrEnum, Task
from texts.sentences import has_loop, leaks_label, repeated_share, sentences, stated_label, words
from training.data import LabelledInteraction
from training.trace_prompts import Budget, wants_category

MOST_REPEATED = 0.2
"""A trace in which a larger share of the runs of four words came before is repetitive."""

WORDS_IN_A_SENTENCE = 45
"""Longer sentences, on average, are no sentences."""

_THOUGHTS = re.compile(r"^.*?</think>", re.DOTALL)  # what a reasoning model writes for itself
_REFUSAL = re.compile(
    r"^\W*(?:i(?:['\u2019]?m| am) (?:sorry|unable|not able)|sorry\b|i (?:can['\u2019]?t|cannot|won['\u2019]?t|will not)"
    r"|as an ai\b|unfortunately, i\b)",
    re.IGNORECASE,
)
_TOLD = re.compile(r"\bthe (?:given|provided|expected) answers?\b", re.IGNORECASE)
_RESPONSE = "response|reply|answer|assistant"
_SUBJECTS: Mapping[Task, str] = {
    Task.REQUEST: "request|prompt|question|message",
    Task.COMPLETION: _RESPONSE,
    Task.RESPONSE: _RESPONSE,
}


class Fault(StrEnum):
    """Why a trace is not learned from."""

    REFUSAL = "the teacher refuses"
    REJECTED = "the server rejects the request"
    UNREADABLE = "not in the form that was asked for"
    CONTRADICTION = "contradicts the label"
    LEAK = "speaks of labels or instructions"
    REPETITION = "repeats itself"
    LENGTH = "outside the budget"


@dataclass(frozen=True, slots=True)
class Trace:
    """A reasoning that passed all filters: for each label its sentences, and the category where it was asked for."""

    reasoning: Mapping[Task, tuple[str, ...]]
    category: Category | None


def read_trace(text: str, item: LabelledInteraction, budget: Budget, *, cut_off: bool = False) -> Trace | Fault:
    """Reads what a teacher wrote on an item, and filters it.

    Args:
        text: the answer.
        item: what it is about.
        budget: what was asked for.
        cut_off: the answer was ended by the limit of tokens.
    """
    text = _THOUGHTS.sub("", text)
    parsed = parse_output(text)
    steps = {task: _sentences(parsed.steps.get(task, ())) for task in item.labels}
    if not any(steps.values()) and _REFUSAL.match(text):
        return Fault.REFUSAL
    if cut_off:
        return Fault.LENGTH
    category = parsed.category if wants_category(item) else item.category
    if not all(steps[task] and task in parsed.answers for task in item.labels):
        return Fault.UNREADABLE
    if any(_contradicts(steps[task], parsed.answers[task], task, label) for task, label in item.labels.items()):
        return Fault.CONTRADICTION
    if category is not None and category not in set(Category):
        return Fault.UNREADABLE
    said = {task: " ".join(lines) for task, lines in steps.items()}
    if any(leaks_label(line) or _TOLD.search(line) for line in said.values()):
        return Fault.LEAK
    if any(has_loop(steps[task]) or repeated_share(words(said[task])) > MOST_REPEATED for task in steps):
        return Fault.REPETITION
    if not all(_within(lines, budget) for lines in steps.values()):
        return Fault.LENGTH
    return Trace(steps, None if category is None else Category(category))


def _sentences(steps: Sequence[str]) -> tuple[str, ...]:
    return tuple(sentence for step in steps for sentence in sentences(step))


def _contradicts(steps: Sequence[str], answer: Label, task: Task, label: Label) -> bool:
    """Whether the answer is another, or a sentence says so: "the request is not harmful"."""
    stating = re.compile(
        rf"\b(?:{_SUBJECTS[task]}) (?:itself )?(?:is|was) (?:\w+ ){{0,2}}?(?:{'|'.join(LABELS[task])})\b", re.IGNORECASE
    )
    said = [match[0] for sentence in steps if (match := stating.search(sentence))]
    return answer is not label or (bool(said) and stated_label(said[-1], task) is not label)


def _within(steps: Sequence[str], budget: Budget) -> bool:
    count = len(steps)
    return budget.fewest <= count <= budget.most and len(words(" ".join(steps))) <= WORDS_IN_A_SENTENCE * count
