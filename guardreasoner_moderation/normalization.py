"""What a text says to its reader, where its characters hide that from a model.

A reading is what the model is given in place of a text; it knows where each of its parts stands in the text, since the
caller is told of no other.

- what cannot be seen is left out (zero-width and bidirectional controls, soft hyphens, fillers), and tag characters,
  which spell ASCII invisibly, are read;
- compatibility characters become the letters that they show (NFKC, Unicode Standard Annex 15): full-width letters,
  mathematical alphabets, circled letters. Those that ordinary typing brings about are kept: Latin-1, "…" and "™";
- marks that cross out or pile up on Latin letters are dropped;
- Cyrillic and Greek letters that look like Latin ones become these in words that also have Latin letters, and Cyrillic
  ones everywhere in a text that has Latin letters, and no Cyrillic ones but look-alikes;
- control tokens of chat templates, with which a text pretends to end and others to begin, become a space.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache


@dataclass(frozen=True, slots=True)
class Change:
    """A part of a reading, from ``begin``, that stands for the part of the text from ``start`` to ``end``."""

    begin: int
    length: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What a model is given in place of a text.

    Attributes:
        text: what is read.
        start, end: the part of the original that it is a reading of, in characters.
        changes: the parts that differ, in order; between them the characters are those of the original.
        original: the reading that this one is a reading of, if that is no text of a user.
    """

    text: str
    start: int
    end: int
    changes: tuple[Change, ...] = ()
    original: Reading | None = None

    def place(self, begin: int, end: int) -> tuple[int, int]:
        """Where a part of the reading, which is not empty, stands in the user's text: (start, end) in characters."""
        start = self._original(begin)[0] if begin else self.start
        stop = self._original(end - 1)[1] if end < len(self.text) else self.end
        return (start, stop) if self.original is None else self.original.place(start, stop)

    def _original(self, place: int) -> tuple[int, int]:
        number = bisect_right(self.changes, place, key=lambda change: change.begin) - 1
        if number < 0:
            return place, place + 1
        change = self.changes[number]
        after = place - change.begin - change.length
        return (change.start, change.end) if after < 0 else (change.end + after, change.end + after + 1)


def as_it_is(text: str) -> Reading:
    """The reading that changes nothing."""
    return Reading(text, 0, len(text))


def normalized(text: str) -> Reading:
    """The reading in plain characters; of a text that says nothing otherwise, the text itself."""
    reading = as_it_is(text)
    if not (text.isascii() or (unicodedata.is_normalized("NFKC", text) and _FOLDED.search(text) is None)):
        reading = _reading(text, ((piece.start(), piece.end(), new) for piece, new in _folded(text)))
    if tokens := [(found.start(), found.end(), " ") for found in _CONTROL_TOKEN.finditer(reading.text)]:
        reading = replace(_reading(reading.text, tokens), original=reading)
    return reading if reading.text.strip() else as_it_is(text)


_INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164\ufeff"
    "\uffa0\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0001"
)
_JOINERS = "\u200c\u200d\ufe00-\ufe0f\U000e0100-\U000e01ef"  # also parts of emoji, and of words of some scripts
_TAGS = "\U000e0020-\U000e007e\U000e007f"
_MARKS = "\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
_KEPT = "\\x00-\\xff…™"
_PIECE = re.compile(
    f"(?P<invisible>[{_INVISIBLE}][{_INVISIBLE}{_JOINERS}]*)|(?P<joiners>[{_JOINERS}][{_INVISIBLE}{_JOINERS}]*)"
    f"|(?P<tags>[{_TAGS}]+)|[^{_KEPT}][{_MARKS}]*|[{_KEPT}][{_MARKS}]+"
)
_WORD = re.compile(f"[\\w'’{_INVISIBLE}{_JOINERS}{_MARKS}]+")
_LATIN = re.compile("[A-Za-z]")
_CYRILLIC = re.compile("[\u0400-\u052f]")
_BASE = re.compile(f"[{_MARKS}]+")

_LOOKALIKES = str.maketrans(
    "аеорсухіјѕԁһӏԛԝкмтвнАВЕКМНОРСТУХІЈЅαορνικυετηχγωΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",
    "aeopcyxijsdhlqwkmtbhABEKMHOPCTYXIJSaopvikuetnxywABEZHIKMNOPTYX",
)
_SMALL_CAPITALS = str.maketrans("ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ", "abcdefghijklmnoprstuvwyz")
_FOLDED = re.compile(  # what is changed though NFKC keeps it
    f"[{_INVISIBLE}{_JOINERS}{_TAGS}{_MARKS}{''.join(map(chr, (*_LOOKALIKES, *_SMALL_CAPITALS)))}]"
)


_NAME = r"[\w▁ ]{1,40}"
_CONTROL_TOKEN = re.compile(  # ChatML, Llama 3, DeepSeek; Llama 2 and Mistral; Gemma; those that reason
    rf"<\|(?:{_NAME}(?:<\|{_NAME}\|>(?:{_NAME})?)?|<\|{_NAME}\|>(?:{_NAME})?)\|>"
    r"|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<[be]os>|</?think>",
    re.IGNORECASE,
)


def _folded(text: str) -> Iterator[tuple[re.Match[str], str]]:
    """Each part of a text that may change, and what it becomes."""
    cyrillic = _CYRILLIC.findall(text)
    disguised = all(ord(letter) in _LOOKALIKES for letter in cyrillic) and _LATIN.search(text) is not None
    words = _WORD.finditer(text)
    shown = cache(_shown)  # a long text has few different characters
    word, mixed = None, False
    for piece in _PIECE.finditer(text):
        while word is None or word.end() <= piece.start():
            word = next(words, None)
            if word is None:
                break
            mixed = _LATIN.search(word[0]) is not None
        within = mixed and word is not None and word.start() <= piece.start()
        latin = within or (disguised and _CYRILLIC.match(piece[0]) is not None)
        yield piece, shown(piece[0], latin) if piece.lastgroup is None else _fold(piece, text)


def _fold(piece: re.Match[str], text: str) -> str:
    """What becomes of a part that no reader sees."""
    if piece.lastgroup == "invisible":
        return ""
    if piece.lastgroup == "tags":
        return "".join(chr(ord(letter) - 0xE0000) for letter in piece[0]).rstrip("\x7f")
    return piece[0] if _joins(text[piece.start() - 1 : piece.start()]) else ""


def _shown(character: str, latin: bool) -> str:
    """What a character shows, with the marks that stand on it."""
    shown = unicodedata.normalize("NFKC", character)
    if shown and shown[0] <= "\u024f":
        shown = _BASE.sub("", shown)
    shown = shown.translate(_SMALL_CAPITALS)
    return shown.translate(_LOOKALIKES) if latin else shown


def _joins(before: str) -> bool:
    """Whether what stands before a joiner is an emoji, or a letter of a script that has joiners."""
    if not before or unicodedata.normalize("NFKC", before).isascii():
        return False
    return unicodedata.category(before) in ("So", "Sk", "Lo", "Mn", "Mc")


def _reading(text: str, parts: Iterable[tuple[int, int, str]]) -> Reading:
    written: list[str] = []
    changes: list[Change] = []
    done = begin = 0
    for start, end, new in parts:
        if new != text[start:end]:
            written += (text[done:start], new)
            begin += start - done
            changes.append(Change(begin, len(new), start, end))
            begin += len(new)
            done = end
    return Reading("".join((*written, text[done:])), 0, len(text), tuple(changes))
