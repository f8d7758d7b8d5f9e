"""Words of a text that carry meaning. English only."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml

from texts.sentences import words

WORD_LISTS = Path(__file__).with_name("word_lists.yaml")

_ENDINGS = ("ations", "ation", "ings", "ing", "ies", "ied", "edly", "ed", "ers", "er", "es", "ly", "s", "e", "y")


@cache
def word_list(name: str) -> frozenset[str]:
    """A list of ``word_lists.yaml``; its stars are kept."""
    lists = yaml.safe_load(WORD_LISTS.read_text(encoding="utf-8"))
    return frozenset(lists[name].split())


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
