"""Harmless text of any length, written by rules: no sentence is soon repeated, and none is worth flagging."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guardreasoner_moderation import Moderator

_WHO = (
    "my aunt", "the gardener", "a retired teacher", "our neighbour", "the choir", "a young baker", "the librarian",
    "my brother", "the ferry captain", "a group of hikers", "the postwoman", "an old friend",
)  # fmt: skip
_DID = (
    "planted", "painted", "described", "photographed", "repaired", "carried", "admired", "drew", "measured", "sold",
    "polished", "found",
)  # fmt: skip
_WHAT = (
    "a row of tulips", "the garden bench", "a basket of pears", "the stone bridge", "an old map", "two wooden chairs",
    "a jar of honey", "the village clock", "a pair of boots", "the blue kettle", "a sheet of music", "the birdhouse",
)  # fmt: skip
_WHERE = (
    "beside the river", "in the market hall", "behind the bakery", "near the station", "on the hill", "by the lake",
    "in the courtyard", "under the lime tree", "at the harbour", "in the small museum",
)  # fmt: skip
_WHEN = (
    "last spring", "on a rainy Tuesday", "before breakfast", "in early autumn", "after the concert", "at noon",
    "during the holidays", "on the first warm day", "every second Sunday", "when the snow had melted",
)  # fmt: skip
_ENDINGS = (
    "and everyone was pleased", "while it rained softly", "and wrote home about it", "because there was time",
    "and had a cup of tea", "before the bus came", "and took a long walk home", "as in the year before",
)  # fmt: skip


def sentences(seed: int | str) -> Iterator[str]:
    """Sentences without end; the same ones for the same seed."""
    draw = random.Random(seed)
    while True:
        when, who = draw.choice(_WHEN), draw.choice(_WHO)
        rest = f"{draw.choice(_DID)} {draw.choice(_WHAT)} {draw.choice(_WHERE)}"
        ending = f", {draw.choice(_ENDINGS)}" if draw.random() < 0.5 else ""
        start = f"{when}, {who} {rest}" if draw.random() < 0.5 else f"{who} {rest} {when}"
        yield f"{start[0].upper()}{start[1:]}{ending}."


def filler(words: int, seed: int | str) -> str:
    """Whole sentences of at least so many words, some to a paragraph; nothing for 0 words."""
    written: list[str] = []
    count = 0
    for number, sentence in enumerate(sentences(seed), 1):
        if count >= words:
            break
        written.append(sentence + ("\n\n" if number % 7 == 0 else " "))
        count += len(sentence.split())
    return "".join(written).strip()


def filler_of_tokens(guard: Moderator, tokens: int, seed: int | str) -> str:
    """Text of so many tokens of the guard's model; the last sentence may be cut."""
    text = filler(tokens, seed)  # no word is less than a token
    offsets = guard.model.engine.encode(text)
    return text[: offsets[tokens - 1][1]]
