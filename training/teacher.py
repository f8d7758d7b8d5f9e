"""A teacher: any chat model behind an OpenAI-compatible server, what it costs, and what it answers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from guardreasoner_moderation.engines.openai_client import ServerClient
from guardreasoner_moderation.errors import EngineError, InputError, without_secrets
from training.trace_prompts import Budget, ChatMessages

_TOKENS_OF_A_SENTENCE = 35  # a generous guess for English, with the line's end
_TOKENS_OF_A_FORM = 60  # headings and answer block
_CHARACTERS_OF_A_TOKEN = 4  # a rough guess for English


@dataclass(frozen=True, slots=True)
class Price:
    """What a million tokens cost, in whatever currency; None where it is not known, or nothing."""

    read: float | None = None
    written: float | None = None

    def __post_init__(self) -> None:
        if any(price is not None and price < 0 for price in (self.read, self.written)):
            raise InputError("a price cannot be below 0")

    def cost(self, read: int, written: int) -> float | None:
        """The cost of so many tokens; None without prices."""
        if self.read is None or self.written is None:
            return None
        return (read * self.read + written * self.written) / 1e6


@dataclass(frozen=True, slots=True)
class Reply:
    """What a teacher answered, and the tokens that it read and wrote."""

    text: str
    cut_off: bool
    refused: bool
    read: int
    written: int


@dataclass(frozen=True, slots=True)
class Teacher:
    """A model and how it is asked.

    Attributes:
        server: address of its API, such as ``http://localhost:8000/v1``.
        model: its name there.
        temperature: above 0, so that another attempt is another answer.
        body: more members of each request; None takes one out, as in ``{"max_tokens": None}``.
        key_env: environment variable with the server's key; a server without keys needs none.
        concurrency: requests under way at once.
        timeout: seconds without a sign of life.
        retries: attempts after the first where the server is busy or fails, with growing waits.
    """

    server: str
    model: str
    temperature: float = 0.7
    body: Mapping[str, Any] = field(default_factory=dict)
    key_env: str = "GUARDREASONER_SERVER_KEY"
    concurrency: int = 8
    timeout: float = 120.0
    retries: int = 6

    def __post_init__(self) -> None:
        if not self.model:
            raise InputError("name the teacher's model")
        if self.concurrency < 1:
            raise InputError(f"concurrency must be at least 1, found {self.concurrency}")

    def connect(self) -> ServerClient:
        """A client; no connection is opened yet.

        Raises:
            InputError: the address or the key cannot be one.
            MissingDependencyError: httpx is not installed.
        """
        return ServerClient(
            self.server,
            api_key=os.environ.get(self.key_env) or None,
            concurrency=self.concurrency,
            timeout=self.timeout,
            retries=self.retries,
        )

    def ask(self, client: ServerClient, messages: ChatMessages, budget: Budget) -> Reply:
        """One answer.

        Raises:
            RefusedError: the server will not take the request.
            EngineError: it cannot be reached, or does not answer as OpenAI's does.
        """
        body = {
            "model": self.model,
            "messages": messages,
            "temperature": self.temperature,
            "max_tokens": 2 * written_tokens(budget, tasks=3),
            **self.body,
        }
        answer = client.ask("/chat/completions", {name: value for name, value in body.items() if value is not None})
        try:
            choice = answer["choices"][0]
            text = choice["message"].get("content") or ""
            usage = answer.get("usage") or {}
            reason = choice.get("finish_reason")
            return Reply(
                text=text,
                cut_off=reason == "length",
                refused=bool(choice["message"].get("refusal")) or reason == "content_filter",
                read=int(usage.get("prompt_tokens") or read_tokens(messages)),
                written=int(usage.get("completion_tokens") or len(text) // _CHARACTERS_OF_A_TOKEN),
            )
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as exc:
            server = without_secrets(self.server)
            raise EngineError(f"{server} does not answer as OpenAI's chat API does: {exc!r}") from exc


def read_tokens(messages: ChatMessages) -> int:
    """About how many tokens a teacher reads."""
    return sum(len(message["content"]) for message in messages) // _CHARACTERS_OF_A_TOKEN


def written_tokens(budget: Budget, *, tasks: int) -> int:
    """About how many tokens a teacher writes, at most."""
    return budget.most * _TOKENS_OF_A_SENTENCE * tasks + _TOKENS_OF_A_FORM
