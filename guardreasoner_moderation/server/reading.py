"""From a validated body to what is judged and how, within the server's limits."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from fastapi import Request

from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.interactions import Interaction, to_interaction
from guardreasoner_moderation.server.microbatch import Plan
from guardreasoner_moderation.server.problems import Problem
from guardreasoner_moderation.server.requests import AnyItem, MessagesItem, Options, PromptItem, TaskThresholds
from guardreasoner_moderation.server.settings import ServerSettings

T = TypeVar("T")


class Reader:
    """Reads bodies with the limits of one server. Its methods raise a Problem, 422, that names the field."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings

    def plan(self, options: Options) -> Plan:
        """How a request wants to be judged."""
        given = options.thresholds
        if isinstance(given, TaskThresholds):
            pairs = tuple(sorted(given.model_dump(exclude_none=True).items()))
            return self._plan(options, pairs or None)
        return self._plan(options, given)

    def one(self, item: PromptItem | MessagesItem) -> Interaction:
        """The only item of a request."""
        interaction = _read(item.interaction, None)
        self._check_length(interaction, None)
        return interaction

    def items(self, items: Sequence[AnyItem]) -> list[Interaction]:
        """The items of a batch."""
        self._check_count(len(items), "items")
        interactions = []
        for number, item in enumerate(items):
            place = f"items[{number}]"
            interaction = _read(partial(to_interaction, item) if isinstance(item, str) else item.interaction, place)
            self._check_length(interaction, place)
            interactions.append(interaction)
        return interactions

    def all_of(self, read: Callable[[], list[Interaction]], field: str) -> list[Interaction]:
        """What ``read`` makes of the texts in ``field``."""
        interactions = _read(read, field)
        self._check_count(len(interactions), field)
        for number, interaction in enumerate(interactions):
            self._check_length(interaction, field if len(interactions) == 1 else f"{field}[{number}]")
        return interactions

    def _plan(self, options: Options, thresholds: float | tuple[tuple[str, float], ...] | None) -> Plan:
        mode = options.mode or self._settings.mode
        return Plan(mode, thresholds, options.max_reasoning_tokens, options.max_reasoning_steps)

    def _check_count(self, count: int, field: str) -> None:
        limit = self._settings.max_items
        if count > limit:
            raise Problem(422, "too_many_items", f"{field}: {count} items; at most {limit} are allowed", param=field)

    def _check_length(self, interaction: Interaction, place: str | None) -> None:
        texts = [interaction.prompt, interaction.response or "", interaction.system or ""]
        length = sum(map(len, texts)) + sum(len(turn.text) for turn in interaction.history)
        limit = self._settings.max_text_chars
        if length > limit:
            message = f"{place or 'the item'}: {length} characters; at most {limit} are allowed"
            raise Problem(422, "text_too_long", message, param=place)


def _read(read: Callable[[], T], place: str | None) -> T:
    try:
        return read()
    except InputError as exc:
        message = str(exc) if place is None else f"{place}: {exc}"
        raise Problem(422, "invalid_value", message, param=place) from exc


def gone(request: Request) -> Callable[[], Coroutine[Any, Any, None]]:
    """A coroutine function that ends when the client has gone. The body must have been read."""

    async def wait() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return wait
