"""GGUF files on llama.cpp: laptops, Macs, and the 3B and 8B models without CUDA. No torch.

Prompts go in as token ids. Labels are read from the likeliest tokens that llama.cpp sends along with what it writes, in
the same call; a label that is not among them is asked for by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from guardreasoner_moderation.engines.base import (
    Generation,
    OnText,
    Sampling,
    SlotReading,
    first_tokens,
    score_words,
    word_tokens,
)
from guardreasoner_moderation.engines.llamacpp_server import LlamaServer
from guardreasoner_moderation.engines.parallel import at_once
from guardreasoner_moderation.errors import EngineError, IncompatibleModelError
from guardreasoner_moderation.prompts import Prompt

_FAVOUR = 100.0  # added to the logits of the words that are asked for, so that no other token comes before them
_TOPS = 20  # likeliest tokens sent with each that is written: the labels of a trained model, with room to spare
_SHORT = 64  # characters; words and headings, which come again with every item, are tokenised once


class LlamaCppEngine:
    """Runs one GGUF file."""

    name = "llamacpp"

    def __init__(
        self,
        file: Path,
        *,
        device: str | None = None,
        context_tokens: int = 4096,
        parallel: int = 4,
        threads: int = 0,
    ) -> None:
        """Loads a model.

        Args:
            file: a GGUF file of any architecture that llama.cpp knows.
            device: "cpu", or None for the GPUs that the installed build of llama.cpp can use.
            context_tokens: for each prompt with its answer; it takes memory. Never more than the model was made for.
            parallel: how many prompts are read at once.
            threads: 0 for ``OMP_NUM_THREADS``, or all cores that the process may use.

        Raises:
            MissingDependencyError: xllamacpp is not installed.
            IncompatibleModelError: llama.cpp cannot load the file.
        """
        self._server = LlamaServer(
            file, device=device, context_tokens=context_tokens, parallel=parallel, threads=threads
        )
        self._parallel = parallel
        self.context_tokens = self._server.context_tokens
        self._short_text = lru_cache(1024)(self._server.tokenize)
        self._start = self._server.start_tokens()
        if b"".join(piece for _, piece in self._server.tokenize("a", trusted=False)) != b"a":
            self.close()
            raise IncompatibleModelError(
                f"the tokenizer of {file} puts a space before every text, so prompts cannot be put together of pieces "
                "(SentencePiece, as in Llama 2). Use the transformers engine."
            )

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
        """See :meth:`guardreasoner_moderation.engines.base.Engine.generate`.

        A character that is cut short by the budget is left out. With ``on_text`` the prompts are taken one by one.
        """
        encoded = [self._encode(prompt, max_new_tokens) for prompt in prompts]
        firsts = first_tokens(self, slots or {})
        options: dict[str, Any] = {"max_tokens": max_new_tokens, "temperature": 0, "timings_per_token": True}
        if sampling is not None:
            options |= {
                "samplers": ["temperature", "top_p"],
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "seed": sampling.seed,
            }
        if firsts:
            options["logprobs"] = _TOPS

        def write(number: int) -> Generation:
            ids, last = encoded[number], prompts[number].spans[-1]
            writing = _Writing(
                last.text if last.trusted else "",
                firsts,
                last_words[number] if last_words else {},
                stop,
                None if on_text is None else lambda piece: on_text(number, piece),
            )
            self._server.stream({"prompt": ids, **options}, writing.take)
            if not writing.reason:
                raise EngineError("llama.cpp broke off in the midst of an answer")
            for heading, before in writing.unread.items():
                tokens = firsts[heading]
                found = self._choose([*ids, *self.encode_text(before)], set(tokens.values()))
                writing.slots[heading] = {word: found[first] for word, first in tokens.items()}
            return writing.generation(len(ids))

        return at_once(write, range(len(prompts)), self._parallel if on_text is None else 1)

    def score(self, prompts: Sequence[Prompt], words: Sequence[Sequence[str]]) -> list[dict[str, float]]:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.score`.

        A probability is that of the word among the words, not among all that the model might write.
        """
        encoded = [self._encode(prompt, 1) for prompt in prompts]

        def read(points: list[tuple[int, tuple[int, ...]]]) -> list[dict[int, float]]:
            def row(point: tuple[int, tuple[int, ...]]) -> dict[int, float]:
                number, prefix = point
                length = len(prefix)
                tokens = word_tokens(self, words[number]).values()
                following = {ids[length] for ids in tokens if len(ids) > length and tuple(ids[:length]) == prefix}
                return self._choose([*encoded[number], *prefix], following)

            return at_once(row, points, self._parallel)

        return score_words(self, words, read)

    def encode(self, text: str) -> list[tuple[int, int]]:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.encode`."""
        places = [number for number, character in enumerate(text) for _ in character.encode()]  # of each byte
        pieces = (piece for _, piece in self._server.tokenize(text, trusted=False))
        ends = accumulate(map(len, pieces), initial=0)
        return [(places[start], places[end - 1] + 1) for start, end in pairwise(ends)]

    def encode_text(self, text: str, *, trusted: bool = False) -> list[int]:
        """Token ids of one piece of text; control tokens are recognised in trusted text alone."""
        tokenize = self._short_text if trusted or len(text) <= _SHORT else self._server.tokenize
        return [token for token, _ in tokenize(text, trusted=trusted)]

    def count_tokens(self, prompt: Prompt) -> int:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.count_tokens`."""
        return len(self._encode(prompt, 0))

    def chat_template(self, messages: list[dict[str, str]]) -> str:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.chat_template`.

        It is ChatML for a file without a template of its own.
        """
        text = self._server.chat_template(messages)
        # llama.cpp leaves the start token to its tokenizer, which is not asked for one here.
        start = self._server.start_text if self._start else ""
        return text if text.startswith(start) else start + text

    def close(self) -> None:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.close`."""
        self._server.close()

    def _choose(self, ids: list[int], tokens: set[int]) -> dict[int, float]:
        """Of some tokens the log-probability that each comes next, given that one of them does."""
        choice = self._server.complete(
            {
                "prompt": ids,
                "max_tokens": 1,
                "samplers": ["temperature"],
                "temperature": 1,
                "logit_bias": [[token, _FAVOUR] for token in tokens],
                "n_probs": len(tokens),
                "post_sampling_probs": True,
            }
        )
        tops = choice["logprobs"]["content"][0]["top_probs"]
        found = {top["id"]: math.log(top["prob"]) for top in tops if top["prob"]}
        if not tokens & found.keys():
            raise EngineError("llama.cpp gives no probabilities; the model's weights may be damaged")
        return {token: found.get(token, -_FAVOUR) for token in tokens}

    def _encode(self, prompt: Prompt, max_new_tokens: int) -> list[int]:
        ids = list(self._start) if prompt.add_bos else []
        for span in prompt.needed:
            ids += self.encode_text(span.text, trusted=span.trusted)
        if len(ids) + max_new_tokens > self.context_tokens and max_new_tokens:
            raise EngineError(
                f"the prompt has {len(ids)} tokens; with {max_new_tokens} to write that is more than the "
                f"{self.context_tokens} that were set up for the model"
            )
        return ids


class _Writing:
    """One generation as it comes in. llama.cpp sends whole characters, so it is followed as text, not as tokens."""

    def __init__(
        self,
        tail: str,  # of the prompt, as far as it is trusted
        firsts: Mapping[str, Mapping[str, int]],
        last_words: Mapping[str, Sequence[str]],
        stop: Sequence[str],
        told: Callable[[str], None] | None,
    ) -> None:
        self._line = tail.rpartition("\n")[2]
        self._firsts = firsts
        self._last_words = last_words
        self._stop = tuple(stop)
        self._told = told
        self._text = ""
        self._count = 0
        self.reason = ""  # why it ended; empty while it goes on
        self.slots: dict[str, SlotReading] = {}
        self.unread: dict[str, str] = {}
        """Headings whose labels are not all among the likeliest tokens, and what was written up to them."""

    def take(self, choice: Mapping[str, Any], timings: Mapping[str, Any]) -> bool:
        """Takes the next piece; True if that is enough."""
        piece = choice["text"]
        count = timings.get("predicted_n", self._count)
        if self._line in self._firsts and count > self._count:
            # Of the tokens of one character only the last is told of.
            entries = (choice["logprobs"] or {}).get("content") if count == self._count + 1 else None
            word = self._read(self._line, entries[0] if entries else None)
            if word is not None:
                piece, self.reason = f" {word}", "last word"
        self._count = count
        self._text += piece
        self._line = (self._line + piece).rpartition("\n")[2]
        if piece and self._told is not None:
            self._told(piece)
        if any(word in self._text for word in self._stop):
            self.reason = "stop text"
        enough = bool(self.reason)
        self.reason = self.reason or choice["finish_reason"] or ""
        return enough

    def generation(self, prompt_tokens: int) -> Generation:
        """What was written; the token that ends a text is not counted."""
        finished = self.reason == "stop"
        return Generation(self._text, prompt_tokens, self._count - finished, finished, self.slots)

    def _read(self, heading: str, entry: Mapping[str, Any] | None) -> str | None:
        """Reads the slot from the token after it; the word that the generation may end with, if one begins.

        Raises:
            EngineError: what should be a log-probability is no number.
        """
        likely = {top["id"]: top["logprob"] for top in entry["top_logprobs"]} if entry else {}
        if None in likely.values():  # not a number, in JSON
            raise EngineError("llama.cpp gives no probabilities; the model's weights may be damaged")
        firsts = self._firsts[heading]
        self.slots.pop(heading, None)
        self.unread.pop(heading, None)
        if likely.keys() >= set(firsts.values()):
            self.slots[heading] = {word: likely[first] for word, first in firsts.items()}
        else:
            self.unread[heading] = self._text
        last = self._last_words.get(heading, ()) if entry else ()
        return next((word for word in last if entry and firsts[word] == entry["id"]), None)
