"""The protocol of an engine, and what every local engine shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

from guardreasoner_moderation.checks import finite_number, whole_number
from guardreasoner_moderation.engines.encoding import TextEncoder
from guardreasoner_moderation.errors import InputError, shown
from guardreasoner_moderation.prompts import Prompt

SlotReading: TypeAlias = Mapping[str, float]
"""For each word that was allowed in a slot, the log-probability of its first token."""

OnText: TypeAlias = Callable[[int, str], None]
"""Called with the number of the prompt and the piece of text just written."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Random decoding; the default everywhere is greedy.

    Attributes:
        temperature: above 0; flattens the distribution as it grows.
        top_p: nucleus sampling, above 0 and at most 1.
        seed: the same seed, prompts and engine give the same text.

    Raises:
        InputError: a number is out of range.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if finite_number("temperature", self.temperature) <= 0:
            raise InputError(f"temperature must be above 0, found {shown(self.temperature)}")
        if not 0 < finite_number("top_p", self.top_p) <= 1:
            raise InputError(f"top_p must be above 0 and at most 1, found {shown(self.top_p)}")
        whole_number("seed", self.seed, least=0)


@dataclass(frozen=True, slots=True)
class Generation:
    """What a model wrote after one prompt.

    Attributes:
        text: the written text, without the prompt and without control tokens.
        prompt_tokens, completion_tokens: how much was read and written.
        finished: the model ended by itself; False when the token budget or a stop string ended it.
        slots: for each slot heading that was written (or that ended the prompt), the reading at its last occurrence.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    finished: bool
    slots: Mapping[str, SlotReading] = field(default_factory=dict)


@runtime_checkable
class Engine(Protocol):
    """Runs one model. Implementations are safe to call from several threads."""

    @property
    def name(self) -> str:
        """Name of the engine, such as "ctranslate2"."""

    @property
    def context_tokens(self) -> int:
        """How many tokens prompt and answer may have together."""

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        slots: Mapping[str, Sequence[str]] | None = None,
        last_words: Sequence[Mapping[str, Sequence[str]]] | None = None,
        sampling: Sampling | None = None,
        on_text: OnText | None = None,
    ) -> list[Generation]:
        """Writes on after each prompt, greedily unless ``sampling`` is given.

        Args:
            prompts: what is read, one generation each, in order.
            max_new_tokens: the budget of each generation.
            stop: a generation ends when one of these has been written; it stays in the text.
            slots: from a heading (such as ``"Request:"`` at the start of a line) to the words allowed after it.
            last_words: for each prompt, from the heading of a slot to those of its words after which nothing more is
                needed. A generation may end as soon as such a word begins; its text then ends with the whole word. It
                may also end where the prompt ends with a slot's heading and another token than its words' follows.
            sampling: random decoding.
            on_text: for streaming.

        Raises:
            EngineError: the engine failed, or a prompt leaves no room for an answer.
        """

    def score(self, prompts: Sequence[Prompt], words: Sequence[Sequence[str]]) -> list[dict[str, float]]:
        """For each prompt, the log-probability of each of its words, as the text that follows.

        Only the tokens that tell the words apart are counted: for words with different first tokens, those. A word
        that begins another is told apart by the line's end.
        """

    def encode(self, text: str) -> list[tuple[int, int]]:
        """Tokens of an untrusted text as (start, end) places in it, in characters."""

    def count_tokens(self, prompt: Prompt) -> int:
        """Tokens of a whole prompt."""

    def chat_template(self, messages: list[dict[str, str]]) -> str:
        """Renders chat messages with the base model's template, up to where the assistant begins to write.

        Raises:
            EngineError: the model has no chat template.
        """

    def close(self) -> None:
        """Frees the model. Further calls raise EngineError."""


class SlotWatcher:
    """Notices, token by token, when a generation stands at a slot, and when it may end.

    A slot is a heading at the start of a line. One watcher follows one generation.
    """

    def __init__(
        self,
        prompt: Prompt,
        firsts: Mapping[str, Mapping[str, int]],
        decode: Callable[[list[int]], str],
        last_words: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Follows the text after a prompt.

        Args:
            prompt: what was read.
            firsts: for each heading, the first token of each word, as :func:`first_tokens` returns them.
            decode: from token ids to text.
            last_words: as for :meth:`Engine.generate`.
        """
        self._firsts = firsts
        self._decode = decode
        self._last_words = last_words or {}
        self._tail = prompt.spans[-1].text if prompt.spans[-1].trusted else ""

    def heading_at(self, written: list[int]) -> str | None:
        """The heading that the text ends with after the tokens ``written``, if any."""
        # Headings are short: decoding the last tokens is enough, and keeps a long generation linear.
        text = "\n" + (self._tail if len(written) < 16 else "") + self._decode(written[-16:])
        return next((heading for heading in self._firsts if text.endswith(f"\n{heading}")), None)

    def last_word(self, written: list[int]) -> str | None:
        """The word that the last of the tokens ``written`` begins, if the generation may end with it."""
        if not self._last_words or not written:
            return None
        heading = self.heading_at(written[:-1])
        if heading is None:
            return None
        firsts = self._firsts[heading]
        return next((word for word in self._last_words.get(heading, ()) if firsts[word] == written[-1]), None)

    def is_over(self, written: list[int]) -> bool:
        """Whether nothing that is needed can follow the tokens ``written``.

        That is so where the last of them begins a last word, and where a prompt that ends with a slot's heading is
        followed by none of its words: such a model does not answer in that form, and has to be asked for each answer.
        """
        if self.last_word(written) is not None:
            return True
        heading = self.heading_at([]) if self._last_words and len(written) == 1 else None
        return heading is not None and written[0] not in self._firsts[heading].values()

    def text(self, written: list[int]) -> str:
        """The text of a generation that has ended; a last word stands in full."""
        word = self.last_word(written)
        return self._decode(written) if word is None else f"{self._decode(written[:-1])} {word}"


def word_tokens(encoder: TextEncoder, words: Sequence[str]) -> dict[str, list[int]]:
    """Token ids of each word as it is written in a slot: after a space, up to the end of the line."""
    return {word: encoder.encode_text(f" {word}\n") for word in words}


def first_tokens(encoder: TextEncoder, slots: Mapping[str, Sequence[str]]) -> dict[str, dict[str, int]]:
    """For each slot, the first token of each of its words; within a slot they differ."""
    return {
        heading: {word: ids[0] for word, ids in word_tokens(encoder, words).items()} for heading, words in slots.items()
    }


ReadRows: TypeAlias = Callable[[list[tuple[int, tuple[int, ...]]]], Sequence[Any]]
"""From (number of a prompt, tokens after it) to a row of log-probabilities of the next token, for each."""


def score_words(encoder: TextEncoder, words: Sequence[Sequence[str]], read: ReadRows) -> list[dict[str, float]]:
    """What :meth:`Engine.score` returns, by one reading for each point where words part."""
    tokens = [word_tokens(encoder, choice) for choice in words]
    points = [(number, prefix) for number, choice in enumerate(tokens) for prefix in _partings(choice)]
    rows = dict(zip(points, read(points), strict=True)) if points else {}
    return [
        {
            word: sum(
                float(rows[number, tuple(ids[:length])][ids[length]])
                for length in range(len(ids))
                if (number, tuple(ids[:length])) in rows
            )
            for word, ids in choice.items()
        }
        for number, choice in enumerate(tokens)
    ]


def _partings(tokens: Mapping[str, Sequence[int]]) -> list[tuple[int, ...]]:
    """The tokens before each point where words part."""
    following: dict[tuple[int, ...], set[int]] = {}
    for ids in tokens.values():
        for length in range(len(ids)):
            following.setdefault(tuple(ids[:length]), set()).add(ids[length])
    return [prefix for prefix, choices in following.items() if len(choices) > 1]
