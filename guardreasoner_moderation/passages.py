"""Passages: the paragraphs of a text, each short enough to be judged by itself.

Among hundreds of harmless words a small model overlooks a request that it recognises alone, and small windows, which
begin and end anywhere, show it halves of sentences, which it takes for something else. Passages end where something
ends in the text: a paragraph, or in a long one a line or a sentence.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

_PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*")
_SENTENCE = re.compile(r"\n|(?<=[.!?…])[\"'”’»)\]]*\s+|(?<=[。！？])")
_LEAST = 8  # tokens; what is shorter, such as a heading, goes with what follows


def passages(text: str, tokens: Sequence[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    """The passages of a text as (start, end) in characters; between them there is nothing but white space.

    Args:
        text: what is cut.
        tokens: its tokens, as (start, end) in characters.
        most: tokens of a passage; a sentence that is longer is cut at a token.
    """
    starts = [start for start, _ in tokens]
    sentences = [found.end() for found in _SENTENCE.finditer(text)]
    places: list[tuple[int, int]] = []
    begin = 0
    for end in (*(found.end() for found in _PARAGRAPH.finditer(text)), len(text)):
        if end < len(text) and _count(starts, begin, end) < _LEAST:
            continue
        places += _pieces(starts, sentences, begin, end, most)
        begin = end
    return [(start, end) for start, end in places if text[start:end].strip()]


def _pieces(
    starts: Sequence[int], sentences: Sequence[int], begin: int, end: int, most: int
) -> Iterator[tuple[int, int]]:
    """A paragraph, in as few parts as whole sentences allow."""
    while _count(starts, begin, end) > most:
        # The first token that is too many begins here; one character may be several tokens, but is not cut.
        room = max(starts[bisect_left(starts, begin) + most], begin + 1)
        last = bisect_right(sentences, room) - 1
        stop = sentences[last] if last >= 0 and sentences[last] > begin else room
        yield begin, stop
        begin = stop
    if begin < end:
        yield begin, end


def _count(starts: Sequence[int], begin: int, end: int) -> int:
    """How many tokens begin between two places."""
    return bisect_left(starts, end) - bisect_left(starts, begin)
