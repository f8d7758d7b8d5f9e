"""What a text says in code: a reading of its own, for it may be all that the text says.

Encodings are read wherever they stand: Base64, hexadecimal and binary bytes, HTML character references, percent
encoding, backslash escapes. Words that are spelt otherwise are read where that makes them English: Caesar's ciphers
(ROT13 is one), Atbash, words or sentences written backwards, digits and signs for letters, capitals by turns, and
letters with something between them.

A part is told to be English by its most frequent words: for each of them and each cipher it is known beforehand how the
word looks, so that a text is read once, whatever its length.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
import string
import sys
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import TypeAlias

from guardreasoner_moderation.normalization import Change, Reading, normalized

Found: TypeAlias = tuple[int, int, str]
"""A part of a text, from start to end in characters, and what it says."""

_DEPTH = 3
"""How often what was read is read again: codes stand within codes."""


def decoded(text: str) -> Reading | None:
    """What a text says in code, one line for each part of it, in plain characters; None where that is nothing."""
    lines: list[str] = []
    changes: list[Change] = []
    begin = 0
    for start, end, said in _parts(text):
        line = f"{_plain(said)}\n"
        lines.append(line)
        changes.append(Change(begin, len(line), start, end))
        begin += len(line)
    if not changes:
        return None
    return Reading("".join(lines), changes[0].start, max(change.end for change in changes), tuple(changes))


def _plain(said: str) -> str:
    for _ in range(_DEPTH - 1):
        deeper = "\n".join(inner for *_, inner in _parts(said))
        if not deeper:
            break
        said = deeper
    return normalized(said).text.strip()


def _parts(text: str) -> list[Found]:
    """What all codes find, in the order of the text."""
    found = [part for read in _CODES for part in read(text) if part[2].strip()]
    return sorted(found, key=lambda part: part[:2])


# -- Encodings ---------------------------------------------------------------------------------------------------------

_SHORTEST = 20  # characters in Base64; a shorter word may decode to text by chance
_BASE64 = re.compile(rf"[A-Za-z0-9+/_-]{{{_SHORTEST},}}={{0,2}}")
_NEXT_LINE = re.compile(r"\r?\n[A-Za-z0-9+/_-]+={0,2}(?=\r?\n|\Z)")
_HEX = re.compile(r"(?:(?:0x|\\x)?[0-9A-Fa-f]{2}[ ,:]?){10,}")
_BITS = re.compile(r"(?:[01]{8}[ ,]?){5,}")
_LETTERS_SHARE = 0.8  # at least, of what is read; spaces count too

_BACKSLASHED = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|u\{([0-9A-Fa-f]{1,6})\})")
_ESCAPE = re.compile(
    rf"&(?:#\d{{1,7}}|#[xX][0-9A-Fa-f]{{1,6}}|[A-Za-z]{{2,8}});|%[0-9A-Fa-f]{{2}}|{_BACKSLASHED.pattern}"
)
_ESCAPES = 5  # in a line; fewer are the ampersands and spaces of ordinary text and addresses


def _base64(text: str) -> Iterator[Found]:
    done = joined = 0
    for found in _BASE64.finditer(text):
        start, end = found.span()
        if start < done:
            continue
        if start >= joined:  # its lines are tried together once, or many of them would take hours
            joined = end
            while text[joined - 1] != "=" and (more := _NEXT_LINE.match(text, joined)):
                joined = more.end()
            if joined > end and (said := _from_base64(text[start:joined])) is not None:
                yield start, joined, said
                done = joined
                continue
        if (said := _from_base64(found[0])) is not None:
            yield start, end, said


def _from_base64(part: str) -> str | None:
    letters = "".join(part.split()).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return _readable(base64.b64decode(letters + "=" * (-len(letters) % 4)))
    except binascii.Error:
        return None


def _hexadecimal(text: str) -> Iterator[Found]:
    for found in _HEX.finditer(text):
        if (said := _readable(bytes.fromhex(re.sub(r"0x|\\x|[ ,:]", "", found[0])))) is not None:
            yield found.start(), found.end(), said


def _binary(text: str) -> Iterator[Found]:
    for found in _BITS.finditer(text):
        bits = re.sub("[ ,]", "", found[0])
        if (said := _readable(int(bits, 2).to_bytes(len(bits) // 8, "big"))) is not None:
            yield found.start(), found.end(), said


def _readable(content: bytes) -> str | None:
    """The text that these bytes are, if they are one."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    if not all(letter.isprintable() or letter.isspace() for letter in text):
        return None
    letters = sum(letter.isalpha() or letter == " " for letter in text)
    return text if letters >= _LETTERS_SHARE * len(text) else None


def _escapes(text: str) -> Iterator[Found]:
    for start, end in _lines_with(_ESCAPE, text, _ESCAPES):
        said = _BACKSLASHED.sub(_character, urllib.parse.unquote(html.unescape(text[start:end])))
        # Control characters and halves of characters say nothing, and the latter cannot be encoded.
        yield start, end, "".join(letter if letter.isprintable() else " " for letter in said)


def _character(escape: re.Match[str]) -> str:
    number = int(escape[1] or escape[2] or escape[3], 16)
    return chr(number) if number <= sys.maxunicode else " "


# -- Words that are spelt otherwise ------------------------------------------------------------------------------------

_COMMON_WORDS = """
about after all also an and any anyone anything are as at back be because been but buy by can come could day did do does
even every explain find first for from get give go good had has have he help her him his how if in into is it its just
keep know let like look made make makes may me might more most must my need never new no not now of on one only or other
our out over people please put said say says she should show so some somebody someone something take tell than that the
their them then there these they think this time to two up us use using want was way we well were what when where which
who why will with without work would write year you your
"""
_COMMON = frozenset(_COMMON_WORDS.split())
"""Frequent words of English, and of requests."""

_VOTES = 3  # words of a sentence that must be common, or what they become is chance
_SHARE = 0.25  # of all its words
_LEAD = 2  # times as many as are common as they stand
_SHORTEST_SENTENCE = 8  # characters; three words
_WORD = re.compile(r"\S+")
_SENTENCE = re.compile(r"(?:[^\n.?:]|[.?:](?!\s))+[.?:]?")
_AROUND = "\"'()[]{}<>.,;:?*_~`"
_LETTERS = string.ascii_letters

_SIGNS = str.maketrans("0134578926@$!&%|+€", "oieastbgzgasiexlte")
_ATBASH = str.maketrans(_LETTERS, string.ascii_lowercase[::-1] + string.ascii_uppercase[::-1])


def _shift(by: int) -> Callable[[str], str]:
    lower = string.ascii_lowercase[by:] + string.ascii_lowercase[:by]
    table = str.maketrans(_LETTERS, lower + lower.upper())
    return lambda sentence: sentence.translate(table)


_PLAIN = "none"
_CIPHERS: Mapping[str, Callable[[str], str]] = {
    **{f"shift {by}": _shift(26 - by) for by in range(1, 26)},
    "atbash": lambda sentence: sentence.translate(_ATBASH),
    # All of it backwards, or each word: only reading both tells.
    "backwards": lambda sentence: f"{sentence[::-1]}\n{' '.join(word[::-1] for word in sentence.split())}",
    "signs": lambda sentence: sentence.translate(_SIGNS).lower(),
    "capitals": str.lower,
}
"""From a cipher's name to what reads it."""


@cache
def _spellings() -> dict[str, list[str]]:
    """From how a common word looks in a cipher to the ciphers in which it does."""
    found: dict[str, list[str]] = {}
    ciphers = {f"shift {by}": _shift(by) for by in range(1, 26)}
    ciphers |= {"atbash": _CIPHERS["atbash"], "backwards": lambda word: word[::-1]}
    for name, write in ciphers.items():
        for word in _COMMON:
            found.setdefault(write(word), []).append(name)
    return found


def _ciphers(text: str) -> Iterator[Found]:
    ciphers_of = cache(_ciphers_of)  # a long text has few different words
    for sentence in _SENTENCE.finditer(text):
        if sentence.end() - sentence.start() < _SHORTEST_SENTENCE:
            continue
        tokens = sentence[0].split()
        votes = Counter(cipher for token in tokens for cipher in ciphers_of(token))
        common = votes.pop(_PLAIN, 0)
        for cipher, most in votes.most_common(1):
            if most >= max(_VOTES, _SHARE * len(tokens), _LEAD * common + 1):
                yield sentence.start(), sentence.end(), _CIPHERS[cipher](sentence[0])


def _ciphers_of(token: str) -> list[str]:
    """The ciphers in which a word is a common one."""
    word = token.strip(_AROUND)
    low = word.lower()
    found = list(_spellings().get(low, ()))
    if low in _COMMON:
        found.append(_PLAIN if word in (low, low.capitalize(), low.upper()) else "capitals")
    if not (word.isalpha() or word.isdigit()) and low.translate(_SIGNS) in _COMMON:
        found.append("signs")
    return found


_SPACED = re.compile(r"(?<!\S)\S(?:\s{1,3}\S(?!\S)){9,}")
_DOTTED = re.compile(r"(?<!\S)[^\W\d_](?:[._*~|/-][^\s._*~|/-]{1,2}(?=[\s._*~|/-]|$)){2,}\S*")
_BETWEEN = re.compile(r"[._*~|/-](?=\S)")
_DOTTED_WORDS = 3  # fewer are abbreviations


def _spread_letters(text: str) -> Iterator[Found]:
    """Letters with white space between them; wider gaps part words."""
    for found in _SPACED.finditer(text):
        letters = sum(map(str.isalpha, found[0]))
        if letters >= _LETTERS_SHARE * len(found[0].split()):
            yield found.start(), found.end(), re.sub(r"\s(\s*)", lambda gap: " " if gap[1] else "", found[0])


def _dotted_letters(text: str) -> Iterator[Found]:
    """Words with a sign between their letters."""
    for start, end in _lines_with(_DOTTED, text, _DOTTED_WORDS):
        yield start, end, _WORD.sub(lambda word: _BETWEEN.sub("", word[0]), text[start:end])


def _lines_with(pattern: re.Pattern[str], text: str, least: int) -> Iterator[tuple[int, int]]:
    """Lines in which a pattern, which knows no line breaks, is found at least so often."""
    start = end = count = 0
    for found in pattern.finditer(text):
        if found.start() >= end:
            if count >= least:
                yield start, end
            start = text.rfind("\n", 0, found.start()) + 1
            end = text.find("\n", found.start())
            end = len(text) if end < 0 else end
            count = 0
        count += 1
    if count >= least:
        yield start, end


_CODES = (_base64, _hexadecimal, _binary, _escapes, _ciphers, _spread_letters, _dotted_letters)
