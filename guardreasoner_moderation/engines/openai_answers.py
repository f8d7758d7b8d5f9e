"""What servers with OpenAI's APIs write, token by token, and how sure a model was of a word in it.

Keys are matched by their text, because servers name tokens by text: every token that begins a word (" h", " harm",
" harmful") speaks for that word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from guardreasoner_moderation.engines.base import SlotReading
from guardreasoner_moderation.errors import EngineError

CERTAIN = 1e-9
"""What is left for all other words when a server gives text without log-probabilities."""

_IMPOSSIBLE = -100.0  # servers write -inf or -9999
_EDGES = " *_`\"'.,"  # what may surround a word


@dataclass(frozen=True, slots=True)
class Step:
    """A token that was written, and the log-probabilities of the likeliest at its place, itself among them."""

    piece: str
    top: Mapping[str, float]


def read_steps(choice: Mapping[str, Any]) -> list[Step]:
    """The tokens of one ``choice``, whole or a streamed part; empty where the server gives no log-probabilities.

    Two formats are about: lists side by side (OpenAI's completions; vLLM), and a list of objects (OpenAI's chat, and
    llama.cpp for both).

    Raises:
        KeyError, TypeError, AttributeError, ValueError: it is neither, or a number is no log-probability.
    """
    given = choice.get("logprobs") or {}
    if content := given.get("content"):
        return [
            _step(token["token"], token["logprob"], [(top["token"], top["logprob"]) for top in token["top_logprobs"]])
            for token in content
        ]
    tokens = given.get("tokens") or []
    tops = given.get("top_logprobs") or [None] * len(tokens)
    return [
        _step(token, logprob, (top or {}).items())
        for token, logprob, top in zip(tokens, given.get("token_logprobs") or [], tops, strict=True)
    ]


def steps_of_text(text: str) -> list[Step]:
    """Text without log-probabilities, word by word: the model was sure of each."""
    return [Step(piece, {piece: 0.0}) for piece in re.findall(r"\s*\S+", text)]


def read_slots(steps: Sequence[Step], tail: str, slots: Mapping[str, Sequence[str]]) -> dict[str, SlotReading]:
    """For each heading at the start of a line the reading of the words after it, at its last occurrence.

    Args:
        steps: what was written.
        tail: what stood before it, as far as it is trusted; a heading may end it.
        slots: from a heading to the words that are allowed after it.
    """
    readings: dict[str, SlotReading] = {}
    text = f"\n{tail}"
    for number, step in enumerate(steps):
        for heading, words in slots.items():
            if text.rstrip(" ").endswith(f"\n{heading}"):
                reading = read_words(steps[number:], words)
                if reading is not None:
                    readings[heading] = reading
        text += step.piece
    return readings


def read_words(steps: Sequence[Step], words: Sequence[str]) -> dict[str, float] | None:
    """The log-probability of each word as what the steps begin with, counted where the words part; None without any.

    Beyond the first such place this follows what was written. A word that is not among a step's likeliest tokens is
    taken to be as likely as it can at most be: as the least of them, and as what they leave over.
    """
    left = list(words)
    scores = dict.fromkeys(words, 0.0)
    written, parted = "", False
    for step in steps:
        if len(left) < 2:
            break
        going_on = [word for word in left if _begins(word, written + step.piece)]
        if len(going_on) < len(left):
            shares = {word: _log_sum(lp for key, lp in step.top.items() if _says(word, written, key)) for word in left}
            if not parted and all(share == -math.inf for share in shares.values()):
                return None
            beyond = min(*step.top.values(), math.log(max(1 - sum(map(math.exp, step.top.values())), CERTAIN)))
            for word in left:
                scores[word] += beyond if shares[word] == -math.inf else shares[word]
            parted = True
        left, written = going_on, written + step.piece
    said = written.strip(_EDGES).lower()
    if len(left) > 1 and said in left:  # a word that begins another, at the end of the text
        parted = True
        for word in left:
            scores[word] += 0.0 if word == said else math.log(CERTAIN)
    return scores if parted or len(words) == 1 else None


class WrittenAnswer:
    """An answer as it comes in."""

    def __init__(self, stop: Sequence[str] = (), told: Callable[[str], None] | None = None) -> None:
        self._stop = tuple(stop)
        self._told = told
        self.streams = bool(stop) or told is not None
        self.text = ""
        self.steps: list[Step] = []
        self.reason: str | None = None
        self.usage: Mapping[str, Any] = {}

    def take(self, parts: Iterable[Mapping[str, Any]]) -> None:
        """Reads a whole answer, or the parts of a streamed one.

        Raises:
            EngineError: it is none.
        """
        for part in parts:
            piece = self._read(part)
            if piece and self._told is not None:
                self._told(piece)
            if any(word in self.text for word in self._stop):
                self.reason = "stop text"
                break
        if self.reason is None:
            raise EngineError("the server broke off in the midst of an answer, or sent none")
        self.steps = self.steps or steps_of_text(self.text)

    def _read(self, part: Mapping[str, Any]) -> str:
        try:
            self.usage = dict(part.get("usage") or self.usage)
            choices = part["choices"]
            if not choices:  # the last part of a stream may hold the usage alone
                return ""
            message = choices[0].get("message") or choices[0].get("delta")
            piece = (choices[0].get("text") if message is None else message.get("content")) or ""
            self.text += piece
            self.steps += read_steps(choices[0])
            self.reason = choices[0].get("finish_reason") or self.reason
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as exc:
            raise EngineError(f"the server answers with something else than a completion: {exc!r}") from exc
        return str(piece)


def _step(piece: str, logprob: float, tops: Iterable[tuple[str, float]]) -> Step:
    known = {_plain(key): _checked(value) for key, value in (*tops, (piece, logprob))}
    return Step(_plain(piece), known)


def _checked(logprob: float) -> float:
    """A log-probability; what is no number must not become a label."""
    if not logprob < 0.01:  # NaN included; rounding may leave it a little above 0
        raise ValueError(f"{logprob!r} is no log-probability")
    return max(logprob, _IMPOSSIBLE)


def _plain(piece: str) -> str:
    """Some servers show a vocabulary's own signs for a space and a line's end."""
    return piece.replace("Ġ", " ").replace("▁", " ").replace("Ċ", "\n")


def _begins(word: str, written: str) -> bool:
    """Whether the text is a beginning of the word, or of a line that holds nothing else."""
    line, end, _ = written.lstrip(" ").partition("\n")
    said = line.strip(_EDGES).lower()
    return word == said if end else word.startswith(said)


def _says(word: str, written: str, key: str) -> bool:
    return (not key.isspace() or "\n" in key) and key != "" and _begins(word, written + key)


def _log_sum(values: Iterable[float]) -> float:
    total = sum(map(math.exp, values))
    return math.log(total) if total > 0 else -math.inf
