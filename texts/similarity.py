"""Prompts that are the same or nearly so: what decontamination removes, and overlap measures.

Prompts are compared as lower-case words. Two are nearly the same if the Jaccard similarity of their word trigrams is at
least one half.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

WORDS_IN_A_GRAM = 3
NEAR = 0.5


class SeenPrompts:
    """An index of prompts."""

    def __init__(self, prompts: Iterable[str]) -> None:
        self._known: set[str] = set()
        self._sizes: list[int] = []
        self._places: dict[str, list[int]] = {}
        for prompt in prompts:
            words = normalise(prompt)
            if words in self._known:
                continue
            self._known.add(words)
            grams = trigrams(words)
            for gram in grams:
                self._places.setdefault(gram, []).append(len(self._sizes))
            self._sizes.append(len(grams))

    def has(self, prompt: str) -> bool:
        """Whether one of the prompts has the same words."""
        return normalise(prompt) in self._known

    def similarity(self, prompt: str) -> float:
        """Highest Jaccard similarity of the prompt's trigrams with those of one of the prompts."""
        grams = trigrams(normalise(prompt))
        shared = Counter(place for gram in grams for place in self._places.get(gram, ()))
        return max((count / (len(grams) + self._sizes[place] - count) for place, count in shared.items()), default=0.0)


def normalise(text: str) -> str:
    """Lower-case words without punctuation, divided by single spaces."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).lower()))


def trigrams(words: str) -> frozenset[str]:
    """All runs of three words; of a shorter text the whole."""
    parts = words.split()
    runs = range(max(1, len(parts) - WORDS_IN_A_GRAM + 1))
    return frozenset(" ".join(parts[start : start + WORDS_IN_A_GRAM]) for start in runs)
