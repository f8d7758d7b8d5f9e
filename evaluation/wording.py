"""Words of a text: sentences, content words, repetitions. English only."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import yaml

LOOP_WORDS = 6
"""A run of so many words that comes three times is a loop, and so is a sentence that comes twice."""

WORD_LISTS = Path(__file__).with_name("word_lists.yaml")

_ENDINGS = ("ations", "ation", "ings", "ing", "ies", "ied", "edly", "ed", "ers", "er", "es", "ly", "s", "e", "y")


@cache
def word_list(name: str) -> frozenset[str]:
    """A list of ``word_lists.yaml``; its stars are kept."""
    lists = yaml.safe_load(WORD_LISTS.read_text(encoding="utf-8"))
    return frozenset(lists[name].split())


def sentences(text: str) -> list[str]:
    """The sentences of a text, told by ``.``, ``!`` and ``?`` before white space."""
    return [part for part in re.split(r"(?<=[.!?])[\"')\]]*\s+", text.strip()) if part]


def words(text: str) -> list[str]:
    """Its words in lower case, without numbers."""
    return re.findall(r"[a-z]+(?:['-][a-z]+)*", text.lower().replace("\u2019", "'"))


def stem(word: str) -> str:
    """A word without the first common ending that leaves at least three letters; good enough to match inflections."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def content_words(text: str) -> frozenset[str]:
    """The stems of the words that carry meaning."""
    stop_words = word_list("stop_words")
    return frozenset(stem(word) for word in words(text) if len(word) > 2 and word not in stop_words)


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
