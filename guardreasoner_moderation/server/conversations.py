"""Remembers what a LiteLLM call asked until its response comes, because the proxy sends the response alone."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

Conversation: TypeAlias = Sequence[Mapping[str, str]]
"""Chat messages with ``role`` and ``content``."""


class Conversations:
    """A small memory by call id: the oldest entries go first. It lives in this process only.

    Args:
        max_chars: how much text is kept at most.
        seconds: how long an entry is kept.
        clock: seconds that only grow.
    """

    def __init__(
        self, *, max_chars: int = 4_000_000, seconds: float = 600, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_chars = max_chars
        self._seconds = seconds
        self._clock = clock
        self._entries: OrderedDict[str, tuple[float, int, Conversation]] = OrderedDict()
        self._chars = 0

    def remember(self, call_id: str, conversation: Conversation) -> None:
        """Keeps the request of a call."""
        self._forget(call_id)
        size = len(call_id) + sum(len(message["content"]) for message in conversation)
        self._entries[call_id] = (self._clock() + self._seconds, size, conversation)
        self._chars += size
        now = self._clock()
        while self._entries:
            oldest = next(iter(self._entries))
            if self._chars <= self._max_chars and self._entries[oldest][0] > now:
                break
            self._forget(oldest)

    def of(self, call_id: str) -> Conversation:
        """The request of a call; empty if it is not known."""
        entry = self._entries.get(call_id)
        return entry[2] if entry is not None and entry[0] > self._clock() else ()

    def _forget(self, call_id: str) -> None:
        entry = self._entries.pop(call_id, None)
        if entry is not None:
            self._chars -= entry[1]
