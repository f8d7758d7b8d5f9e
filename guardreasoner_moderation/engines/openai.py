"""A model that a server runs: vLLM, SGLang, llama.cpp, ``transformers serve``, or any other with OpenAI's API.

With the model's tokenizer at hand a prompt is sent as token ids, and nothing in a text can be a control token. Without
it the server tokenises, and it reads control tokens wherever they stand; so what may be one is broken up first.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from guardreasoner_moderation.engines.base import Generation, OnText, Sampling, word_tokens
from guardreasoner_moderation.engines.encoding import SpanEncoder, defused, read_tokenizer
from guardreasoner_moderation.engines.openai_answers import WrittenAnswer, read_slots, read_words
from guardreasoner_moderation.engines.openai_client import RefusedError, ServerClient
from guardreasoner_moderation.engines.parallel import at_once
from guardreasoner_moderation.errors import EngineError, MissingDependencyError
from guardreasoner_moderation.prompts import Prompt, Span

KEY_VARIABLE = "GUARDREASONER_SERVER_KEY"
_TOPS = (20, 5, 0)  # likeliest tokens to ask for; servers allow different numbers of them, or none
_MOST_IDS = 128  # tokens that vLLM gives the log-probabilities of
_ANSWER_TOKENS = 16  # the longest word of a slot
_ESTIMATE = re.compile(r" ?[A-Za-z]{1,4}|.", re.DOTALL)
# The frame of chat messages, in letters for private use, which no template and no user writes by chance.
_ROLE = re.compile("\ue002(\\w+)\ue003|\ue004")


class OpenAIEngine:
    """Asks a server for completions, or for chat completions where the prompt stands in a chat template."""

    name = "openai"
    context_tokens = 1 << 20  # the server knows, and refuses what is too long

    def __init__(
        self,
        model: str,
        server: str,
        *,
        api_key: str | None = None,
        tokenizer: Path | None = None,
        concurrency: int = 8,
        timeout: float = 60.0,
        retries: int = 4,
    ) -> None:
        """Reads the tokenizer; asks the server nothing yet.

        Args:
            model: the name by which the server knows it.
            server: address of the API, such as "http://localhost:8000/v1".
            api_key: default: the variable GUARDREASONER_SERVER_KEY. Others, such as OPENAI_API_KEY, are not looked at.
            tokenizer: folder with the model's ``tokenizer.json``, for servers that take token ids.
            concurrency: requests under way at once, from all threads.
            timeout: seconds for a connection, and between two pieces of an answer; a whole answer is one piece.
            retries: attempts after the first, where the server is busy, fails, or cannot be reached.

        Raises:
            InputError: the address or the key cannot be one.
            IncompatibleModelError: the tokenizer cannot be read.
            MissingDependencyError: httpx is not installed.
        """
        self._model = model
        self._folder = tokenizer
        self._encoder = None if tokenizer is None else _read_tokenizer(tokenizer)
        self._template: Any = None
        self._concurrency = concurrency
        self._top = _TOPS[0]
        self._extended = True  # whether the server takes fields that are not OpenAI's
        key = api_key if api_key is not None else os.environ.get(KEY_VARIABLE) or None
        self._client = ServerClient(server, api_key=key, concurrency=concurrency, timeout=timeout, retries=retries)

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

        A server without log-probabilities makes every reading certain: scores are then 0 or 1, or nearly so. With
        ``on_text`` the prompts are taken one by one.
        """
        slots = slots or {}
        options: dict[str, Any] = {"max_tokens": max_new_tokens, "temperature": 0}
        if sampling is not None:
            options |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": sampling.seed}

        def write(number: int) -> Generation:
            told = None if on_text is None else lambda piece: on_text(number, piece)
            words = [word for choice in slots.values() for word in choice]
            prompt = prompts[number]
            written = WrittenAnswer(stop, told)
            self._ask(prompt, options, words, written)
            last = prompt.spans[-1]
            begun = last.text.rpartition("\ue003")[2] if last.trusted else ""  # of the answer
            return Generation(
                text=written.text,
                prompt_tokens=written.usage.get("prompt_tokens") or self.count_tokens(prompt),
                completion_tokens=written.usage.get("completion_tokens") or len(written.steps),
                finished=written.reason == "stop",
                slots=read_slots(written.steps, begun, slots),
            )

        return at_once(write, range(len(prompts)), self._concurrency if on_text is None else 1)

    def score(self, prompts: Sequence[Prompt], words: Sequence[Sequence[str]]) -> list[dict[str, float]]:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.score`.

        Servers with structured outputs (vLLM, SGLang, llama.cpp) are made to answer with one of the words.

        Raises:
            EngineError: the model answers with none of the words, nor are they among its likeliest.
        """

        def read(number: int) -> dict[str, float]:
            written = WrittenAnswer()
            options = {"max_tokens": _ANSWER_TOKENS, "temperature": 0}
            self._ask(prompts[number], options, words[number], written, forced=True)
            reading = read_words(written.steps, words[number])
            if reading is None:
                raise EngineError(f"the model {self._model!r} answers with none of {', '.join(words[number])}")
            return reading

        return at_once(read, range(len(prompts)), self._concurrency)

    def encode(self, text: str) -> list[tuple[int, int]]:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.encode`; a generous estimate without a tokenizer."""
        if self._encoder is not None:
            return self._encoder.offsets(text)
        return [match.span() for match in _ESTIMATE.finditer(text)]

    def count_tokens(self, prompt: Prompt) -> int:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.count_tokens`."""
        return len(self.encode(prompt.text) if self._encoder is None else self._encoder.encode(prompt))

    def chat_template(self, messages: list[dict[str, str]]) -> str:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.chat_template`.

        Without the tokenizer the server applies the template: this only marks the messages.
        """
        if self._folder is None:
            frame = "".join(f"\ue002{message['role']}\ue003{message['content']}\ue004" for message in messages)
            return f"{frame}\ue002assistant\ue003"
        if self._template is None:
            self._template = _read_template(self._folder)
        text: str = self._template(messages)
        return text

    def close(self) -> None:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.close`."""
        self._client.close()

    def _ask(
        self,
        prompt: Prompt,
        options: Mapping[str, Any],
        words: Sequence[str],
        written: WrittenAnswer,
        *,
        forced: bool = False,
    ) -> None:
        """Fills ``written``, with as much of what is beyond OpenAI's own API as the server takes."""
        top, extended = self._top, self._extended
        while True:
            path, body = self._request(prompt, words, forced=forced, top=top, extended=extended)
            try:
                if written.streams:
                    with closing(self._client.stream(path, {**body, **options})) as parts:
                        written.take(parts)
                else:
                    written.take([self._client.ask(path, {**body, **options})])
            except RefusedError as exc:
                if exc.status not in (400, 422):
                    raise
                if top and "logprob" in str(exc) and "logprob_token_ids" not in str(exc):
                    top = _TOPS[_TOPS.index(top) + 1]
                elif extended:
                    extended = False
                else:
                    raise
            else:
                # Kept once it has worked.
                self._top, self._extended = min(self._top, top), self._extended and extended
                return

    def _request(
        self, prompt: Prompt, words: Sequence[str], *, forced: bool, top: int, extended: bool
    ) -> tuple[str, dict[str, Any]]:
        """Path and body of a request: OpenAI's fields, and if ``extended`` those that only some servers know."""
        body: dict[str, Any] = {"model": self._model}
        extra = _forcing(words) if forced else {}
        messages = _messages(prompt) if self._encoder is None else []
        if messages:
            if top:
                body |= {"logprobs": True, "top_logprobs": top}
            if messages[-1]["content"]:  # the assistant's answer is begun; vLLM and SGLang have to be told to go on
                extra |= {"continue_final_message": True, "add_generation_prompt": False}
            else:
                messages.pop()
            return "/chat/completions", {**body, "messages": messages, **(extra if extended else {})}
        if top:
            body["logprobs"] = top
        if self._encoder is None:
            body["prompt"] = "".join(map(_plain_text, prompt.needed))
            extra["add_special_tokens"] = prompt.add_bos  # vLLM
        else:
            body["prompt"] = self._encoder.encode(prompt)
            ids = {token for tokens in word_tokens(self._encoder, words).values() for token in tokens}
            if top and 0 < len(ids) <= _MOST_IDS:
                extra["logprob_token_ids"] = sorted(ids)  # vLLM gives exactly these
        return "/completions", {**body, **(extra if extended else {})}


def _forcing(words: Sequence[str]) -> dict[str, Any]:
    """Fields that leave a model no other answer than one of the words: vLLM's, llama.cpp's and SGLang's."""
    said = [f" {word}" for word in words]
    return {
        "structured_outputs": {"choice": said},
        "grammar": f"root ::= {' | '.join(map(json.dumps, said))}",
        "regex": f" ({'|'.join(map(re.escape, words))})",
    }


def _messages(prompt: Prompt) -> list[dict[str, str]]:
    """The chat messages that :meth:`OpenAIEngine.chat_template` marked, the assistant's last; none in other prompts."""
    messages: list[dict[str, str]] = []
    for span in prompt.needed:
        parts = _ROLE.split(span.text) if span.trusted else [_plain_text(span)]
        for number, part in enumerate(parts):
            if number % 2:
                messages += [{"role": part, "content": ""}] if part else []
            elif messages:
                messages[-1]["content"] += part
    return messages


def _plain_text(span: Span) -> str:
    return span.text if span.trusted else defused(span.text)


def _read_tokenizer(folder: Path) -> SpanEncoder:
    tokenizer = read_tokenizer(folder)
    start: list[int] = tokenizer.encode("").ids
    return SpanEncoder(tokenizer, bos_id=start[0] if start else None)


def _read_template(folder: Path) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError as exc:
        raise MissingDependencyError("the chat template of a tokenizer", "transformers") from exc
    tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    if not tokenizer.chat_template:
        raise EngineError(f"the tokenizer in {folder} has no chat template; set chat to false in moderation.json")
    return lambda messages: tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
