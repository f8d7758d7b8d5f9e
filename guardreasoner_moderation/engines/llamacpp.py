"""GGUF files on llama.cpp: laptops, Macs, and the 3B and 8B models without CUDA. No torch.

xllamacpp runs llama.cpp's own server inside this process, which reads several prompts at once and keeps the beginning
that they share. Prompts go in as token ids. The tokenizer is only to be had over the server's HTTP port; that port is a
free one of the loopback address, and closed to everyone without a key that is drawn here.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from http.client import HTTPConnection, HTTPException
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
from guardreasoner_moderation.engines.parallel import at_once
from guardreasoner_moderation.errors import EngineError, IncompatibleModelError, InputError, MissingDependencyError
from guardreasoner_moderation.prompts import Prompt

_FAVOUR = 100.0  # added to the logits of the words that are read, so that no other token comes before them
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
            threads: 0 for as many as there are cores.

        Raises:
            MissingDependencyError: xllamacpp is not installed.
            IncompatibleModelError: llama.cpp cannot load the file.
        """
        try:
            import xllamacpp
        except ImportError as exc:
            raise MissingDependencyError("the llamacpp engine", "llamacpp") from exc
        if device not in (None, "auto", "cpu"):
            raise InputError(f"llama.cpp takes the device 'cpu', or the GPUs that it finds (None), found {device!r}")
        key = secrets.token_hex(16)
        params = xllamacpp.CommonParams()
        params.model.path = str(file)
        params.n_ctx = context_tokens * parallel
        params.n_parallel = parallel
        params.n_gpu_layers = 0 if device == "cpu" else -1
        if threads:
            params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.api_keys = [key]
        params.ui = False
        params.cache_ram_mib = 0  # it would keep what was judged before
        params.verbosity = 1  # errors
        try:
            self._server: Any = xllamacpp.Server(params)
        except RuntimeError as exc:
            raise IncompatibleModelError(f"llama.cpp cannot load {file}; it printed the reason above") from exc
        self._parallel = parallel
        self._address = self._server.listening_address.partition("//")[2]
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        about = self._call("/props")
        self.context_tokens: int = about["default_generation_settings"]["n_ctx"]
        self._short_text = lru_cache(1024)(self._tokenize)
        self._bos = [token["id"] for token in self._call("/tokenize", {"content": "", "add_special": True})["tokens"]]
        self._bos_text: str = about["bos_token"] if self._bos else ""
        if b"".join(piece for _, piece in self._tokenize("a", trusted=False)) != b"a":
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
        """See :meth:`guardreasoner_moderation.engines.base.Engine.generate`."""
        encoded = [self._encode(prompt, max_new_tokens) for prompt in prompts]
        firsts = first_tokens(self, slots or {})

        def write(number: int) -> Generation:
            ids, last = encoded[number], prompts[number].spans[-1]
            before = f"\n{last.text if last.trusted else ''}"
            enough = tuple(
                f"\n{heading} {word}"
                for heading, words in (last_words[number] if last_words else {}).items()
                for word in words
            )

            def ended(text: str) -> bool:
                return any(word in text for word in stop) or (before + text).endswith(enough)

            told = None if on_text is None else lambda piece: on_text(number, piece)
            text, count, finished = self._write(ids, max_new_tokens, sampling, ended, told)
            slots_read = self._read_slots(before, ids, text, firsts)
            return Generation(text, len(ids), count, finished, slots_read)

        return at_once(write, range(len(prompts)), self._parallel)

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
        ends = accumulate((len(piece) for _, piece in self._tokenize(text, trusted=False)), initial=0)
        return [(places[start], places[end - 1] + 1) for start, end in pairwise(ends)]

    def encode_text(self, text: str, *, trusted: bool = False) -> list[int]:
        """Token ids of one piece of text; control tokens are recognised in trusted text alone."""
        tokenize = self._short_text if trusted or len(text) <= _SHORT else self._tokenize
        return [token for token, _ in tokenize(text, trusted=trusted)]

    def count_tokens(self, prompt: Prompt) -> int:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.count_tokens`."""
        return len(self._encode(prompt, 0))

    def chat_template(self, messages: list[dict[str, str]]) -> str:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.chat_template`.

        It is ChatML for a file without a template of its own.
        """
        text: str = self._call("/apply-template", {"messages": messages})["prompt"]
        # llama.cpp leaves the start token to its tokenizer, which is not asked for one here.
        return text if text.startswith(self._bos_text) else self._bos_text + text

    def close(self) -> None:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.close`."""
        self._server = None

    def _write(
        self,
        ids: list[int],
        budget: int,
        sampling: Sampling | None,
        ended: Callable[[str], bool],
        told: Callable[[str], None] | None,
    ) -> tuple[str, int, bool]:
        """The text written after a prompt, its tokens, and whether the model ended by itself."""
        text, count, reason = "", 0, ""
        raised: list[BaseException] = []

        def take(chunk: dict[str, Any]) -> bool:
            """Takes a piece; True stops the model. xllamacpp would swallow what is raised here."""
            nonlocal text, count, reason
            try:
                choice = _only_choice(chunk)
                text += choice["text"]
                count += bool(choice["text"])
                reason = choice["finish_reason"] or reason
                if told is not None and choice["text"]:
                    told(choice["text"])
                if ended(text):
                    reason = reason or "enough"
                return reason == "enough"
            except BaseException as exc:  # noqa: BLE001 - raised again below
                raised.append(exc)
                return True

        options: dict[str, Any] = {"temperature": 0}
        if sampling is not None:
            options = {
                "samplers": ["temperature", "top_p"],
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "seed": sampling.seed,
            }
        self._running().handle_completions({"prompt": ids, "max_tokens": budget, "stream": True, **options}, take)
        if raised:
            raise raised[0]
        if not reason:
            raise EngineError("llama.cpp broke off in the midst of an answer")
        return text, count, reason == "stop"

    def _read_slots(
        self, before: str, ids: list[int], text: str, firsts: Mapping[str, Mapping[str, int]]
    ) -> dict[str, SlotReading]:
        readings: dict[str, SlotReading] = {}
        for heading, words in firsts.items():
            end = (before + text).rfind(f"\n{heading}") + 1 + len(heading) - len(before)
            if end >= 0:
                found = self._choose([*ids, *self.encode_text(text[:end])], set(words.values()))
                readings[heading] = {word: found[first] for word, first in words.items()}
        return readings

    def _choose(self, ids: list[int], tokens: set[int]) -> dict[int, float]:
        """Of some tokens the log-probability that each comes next, given that one of them does."""
        answer = self._running().handle_completions(
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
        tops = _only_choice(answer)["logprobs"]["content"][0]["top_probs"]
        found = {top["id"]: math.log(top["prob"]) for top in tops if top["prob"]}
        if not tokens & found.keys():
            raise EngineError("llama.cpp gives no probabilities; the model's weights may be damaged")
        return {token: found.get(token, -_FAVOUR) for token in tokens}

    def _encode(self, prompt: Prompt, max_new_tokens: int) -> list[int]:
        ids = list(self._bos) if prompt.add_bos else []
        for span in prompt.needed:
            ids += self.encode_text(span.text, trusted=span.trusted)
        if len(ids) + max_new_tokens > self.context_tokens and max_new_tokens:
            raise EngineError(
                f"the prompt has {len(ids)} tokens; with {max_new_tokens} to write that is more than the "
                f"{self.context_tokens} that were set up for the model"
            )
        return ids

    def _tokenize(self, text: str, trusted: bool) -> list[tuple[int, bytes]]:
        """Token ids of a text, and the bytes of each."""
        body = {"content": text, "add_special": False, "parse_special": trusted, "with_pieces": True}
        tokens = self._call("/tokenize", body)["tokens"]
        return [
            (token["id"], piece.encode() if isinstance(piece := token["piece"], str) else bytes(piece))
            for token in tokens
        ]

    def _call(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Asks the server over HTTP. Directly, since a proxy for other hosts may be set in the environment."""
        self._running()
        connection = HTTPConnection(self._address)
        try:
            connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, self._headers)
            content = json.loads(connection.getresponse().read())
        except (OSError, HTTPException, ValueError) as exc:
            raise EngineError(f"llama.cpp does not answer: {exc}") from exc
        finally:
            connection.close()
        return _checked(content)

    def _running(self) -> Any:
        server = self._server
        if server is None:
            raise EngineError("this engine is closed")
        return server


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    if "error" in answer:
        raise EngineError(f"llama.cpp failed: {answer['error'].get('message', answer['error'])}")
    return answer


def _only_choice(answer: dict[str, Any]) -> dict[str, Any]:
    choice: dict[str, Any] = _checked(answer)["choices"][0]
    return choice
