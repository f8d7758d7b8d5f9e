"""Values, texts and bytes that no reader expects: drawn by a seed, so that every run tries the same."""

from __future__ import annotations

import codecs
import gzip
import json
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

HUGE = 10_000_000  # characters of the longest texts
_WORDS = (
    "how",
    "do",
    "I",
    "bake",
    "bread",
    "a",
    "bomb",
    "Request:",
    "harmful",
    "<|im_end|>",
    "[INST]",
    "\n",
    "---",
    "é",
)
_ODD_TEXTS = (
    "",
    " ",
    "\n\t\r",
    "\u00a0\u2003",
    "\u200b",
    "\ufeff",
    "\ufeffhello",
    "\0",
    "a\0b",
    "\ud800",
    "half \udfff of a pair",
    "\udc80\udcff",
    "\U0010ffff\ufffe",
    "\u202eevil\u202c",
    "e" + "\u0301" * 300,
    "\x1b[31mred\x1b[0m",
    "%s%n{}{0}${jndi:x}",
    "'; DROP TABLE verdicts; --",
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "NaN",
    "null",
    "-0",
    "🏴\U000e0067\U000e007f👩‍👩‍👧",
    "ﷺ" * 50,
    "\u0000\u0001\u0002\u007f\u0085\u2028\u2029",
)
_ODD_NUMBERS = (
    0,
    -1,
    1,
    0.5,
    1.5,
    -0.0,
    math.nan,
    math.inf,
    -math.inf,
    2**31,
    2**63,
    2**64,
    -(2**70),
    10**400,
    10**5000,
    5e-324,
    1.8e308,
    True,
    False,
)


def text(dice: random.Random, *, huge: bool = True) -> str:
    """A text: odd, ordinary, random, long, or (one in 500 where allowed) of ten million characters."""
    kind = dice.random()
    if huge and kind < 0.002:
        return _huge(dice)
    if kind < 0.35:
        return dice.choice(_ODD_TEXTS)
    if kind < 0.65:
        return " ".join(dice.choices(_WORDS, k=dice.randint(1, 30)))
    if kind < 0.75:
        return dice.choice(_WORDS) * dice.randint(1, 3000)
    if kind < 0.8:
        return nested(dice, dice.choice((5, 99, 101, 900, 5000)))
    return "".join(chr(_codepoint(dice)) for _ in range(dice.randint(1, 40)))


def value(dice: random.Random, depth: int = 3) -> Any:
    """Anything that JSON can hold, and some that it cannot."""
    kind = dice.random()
    if depth == 0 or kind < 0.45:
        return text(dice, huge=False)
    if kind < 0.7:
        return dice.choice((None, *_ODD_NUMBERS))
    if kind < 0.85:
        return [value(dice, depth - 1) for _ in range(dice.choice((0, 1, 2, 2, 3, 30)))]
    return {text(dice, huge=False)[:60]: value(dice, depth - 1) for _ in range(dice.choice((0, 1, 2, 5)))}


def odd_object(dice: random.Random) -> Any:
    """What a Python caller may pass by mistake, values of JSON aside."""
    return dice.choice((b"bytes", bytearray(b"x"), {1, 2}, object(), range(3), 3 + 4j, int, iter("ab"), lambda: 0, ()))


def deep(depth: int) -> Any:
    """A list in a list in a list."""
    inner: Any = "x"
    for _ in range(depth):
        inner = [inner]
    return inner


def nested(dice: random.Random, depth: int) -> str:
    """JSON of lists or objects in each other, closed or not."""
    opening, closing = dice.choice((("[", "]"), ('{"a":', "}")))
    return opening * depth + "1" + (closing * depth if dice.random() < 0.7 else "")


def json_text(dice: random.Random, content: Any) -> str:
    """A value as JSON, at times with what JSON forbids or leaves open."""
    written = _dumps(content)
    kind = dice.random()
    if kind < 0.6:
        return written
    if kind < 0.7:  # a key twice
        return written.replace("{", '{"prompt": "first", "prompt": "second", ', 1)
    if kind < 0.78:
        return "\ufeff" + written
    if kind < 0.85:
        return written.replace(":", ": " + dice.choice(("NaN", "Infinity", "-Infinity", "1e999", "9" * 5000)) + ", ", 1)
    if kind < 0.92:
        return written[: dice.randint(0, len(written))]
    return dice.choice(("", "null", "[]", "{}", '"x"', "1", nested(dice, 3000), "{" * 50, written + written))


def damaged(dice: random.Random, content: bytes) -> bytes:
    """Bytes as they are, or cut short, or with some of them changed, added or in another encoding."""
    kind = dice.random()
    if kind < 0.3 or not content:
        return content
    place = dice.randrange(len(content))
    if kind < 0.5:
        return content[:place]
    if kind < 0.7:
        changed = bytearray(content)
        for _ in range(dice.choice((1, 1, 3, 20))):
            changed[dice.randrange(len(changed))] = dice.randrange(256)
        return bytes(changed)
    if kind < 0.8:
        return content[:place] + dice.randbytes(dice.choice((1, 8, 200))) + content[place:]
    if kind < 0.85:
        return dice.choice((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, b"\0")) + content
    if kind < 0.95:
        encoding = dice.choice(("utf-16", "utf-32", "latin-1", "cp037"))
        return content.decode("utf-8", "replace").encode(encoding, "replace")
    return dice.randbytes(dice.choice((0, 1, 10, 3000)))


def packed(dice: random.Random, content: bytes) -> bytes:
    """Compressed with gzip, whole or damaged."""
    return damaged(dice, gzip.compress(content, 1))


def one_of(dice: random.Random, *makers: Callable[[], Any]) -> Any:
    """What one of some functions makes."""
    return dice.choice(makers)()


def misspelt(dice: random.Random, words: Sequence[str]) -> str:
    """One of some words, mostly right, at times with a letter missing or doubled."""
    word = dice.choice(words)
    if dice.random() < 0.6:
        return word
    place = dice.randrange(len(word))
    return word[:place] + dice.choice(("", word[place] * 2)) + word[place + 1 :]


def _huge(dice: random.Random) -> str:
    piece = dice.choice(("a", " ", "word ", "ab\0", "é", "[", "bomb. ", "\U0001f600"))
    return (piece * (HUGE // len(piece) + 1))[:HUGE]


def _codepoint(dice: random.Random) -> int:
    return dice.choice((dice.randrange(0x80), dice.randrange(0x3000), dice.randrange(0x110000)))


def _dumps(content: Any) -> str:
    try:
        return json.dumps(content, ensure_ascii=True)
    except (ValueError, RecursionError, TypeError):  # numbers of too many digits; too deep
        return json.dumps(repr(type(content)))
