"""What can be told of a reasoning by its words alone: sentences, repetitions, talk of labels. English only."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from guardreasoner_moderation.results import LABELS, Label, Task

LOOP_WORDS = 6
"""A run of so many words that comes three times is a loop, and so is a sentence that comes twice."""

_VERDICT = r"(?:un)?harmful|(?:un)?safe|refusal|compliance"
_LEAK = re.compile(
    r"\b(?:ground[- ]truth|(?:gold|true|correct|assigned|provided|given|reference|expected)\s+(?:label|verdict)s?\b"
    rf"|(?:label|annotation)s?\s+(?:says?|is|are|was|were|given as|states?)\s+(?:{_VERDICT})"
    rf"|(?:is|was|are|were|been)\s+(?:label(?:l)?ed|annotated)\s+(?:as\s+)?(?:{_VERDICT})"
    r"|according to the (?:labels?|annotat\w+|data ?set)\b)",
    re.IGNORECASE,
)


def sentences(text: str) -> list[str]:
    """The sentences of a text, told by ``.``, ``!`` and ``?`` before white space."""
    return [part for part in re.split(r"(?<=[.!?])[\"')\]]*\s+", text.strip()) if part]


def words(text: str) -> list[str]:
    """Its words in lower case, without numbers."""
    return re.findall(r"[a-z]+(?:['-][a-z]+)*", text.lower().replace("\u2019", "'"))


def leaks_label(text: str) -> bool:
    """Whether it speaks of a label or a data set that a guard cannot know of."""
    return _LEAK.search(text) is not None


def stated_label(text: str, task: Task) -> Label | None:
    """The last label of a task that a text names in so many words, such as "is unharmful"; None without one."""
    risky, other = LABELS[task]
    found = None
    for match in re.finditer(rf"\b(not\s+|non-)?(?:an?\s+)?({risky}|{other})\b", text, re.IGNORECASE):
        named = Label(match[2].lower())
        found = named if not match[1] else (other if named is risky else risky)
    return found


def has_loop(steps: Sequence[str]) -> bool:
    """Whether a sentence of at least four words comes twice, or a run of six words three times."""
    seen: set[tuple[str, ...]] = set()
    for step in steps:
        for sentence in sentences(step):
            line = tuple(words(sentence))
            if len(line) >= 4 and line in seen:
                return True
            seen.add(line)
    runs = Counter(_runs(words(" ".join(steps)), LOOP_WORDS))
    return max(runs.values(), default=0) >= 3


def repeated_share(said: Sequence[str], length: int = 4) -> float:
    """Share of the runs of four words that came before (seq-rep-4 of Welleck et al. 2020, arXiv 1908.04319)."""
    runs = list(_runs(said, length))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def _runs(said: Sequence[str], length: int) -> Iterable[tuple[str, ...]]:
    return (tuple(said[start : start + length]) for start in range(len(said) - length + 1))
