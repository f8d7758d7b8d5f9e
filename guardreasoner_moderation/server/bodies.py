"""Bodies on their way: how large they may be, how long they may take, and which make room when there are too many."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from guardreasoner_moderation.server.problems import Problem
from guardreasoner_moderation.server.settings import ServerSettings

_FAIR = 1.0  # seconds that every body has, however many requests wait for its place


@dataclass(slots=True, eq=False)
class _Body:
    started: float
    waited_for: asyncio.Future[Message] | None = None
    size: int = 0
    given_up: bool = False

    def give_up(self) -> None:
        self.given_up = True
        if self.waited_for is not None:
            self.waited_for.cancel()


class Bodies:
    """Counts and times bodies while their routes read them. Its methods belong to one event loop.

    Args:
        settings: limits.
        reject: is told why a body is not taken.
    """

    def __init__(self, settings: ServerSettings, reject: Callable[[str], None]) -> None:
        self._settings = settings
        self._reject = reject
        self._arriving: dict[_Body, None] = {}  # in the order in which they began

    def limited(self, receive: Receive) -> Receive:
        """``receive`` of one request, within the limits: it raises HTTPException, 408 or 413."""
        body = _Body(asyncio.get_running_loop().time())
        whole = False

        async def limited() -> Message:
            nonlocal whole
            if whole:
                return await receive()
            self._arriving[body] = None
            try:
                message = await self._next(body, receive)
            except BaseException:
                self._arriving.pop(body, None)
                raise
            whole = message["type"] != "http.request" or not message.get("more_body", False)
            if whole:
                self._arriving.pop(body, None)
            return message

        return limited

    def make_room(self) -> bool:
        """Gives the body up that takes longest; False where none has had its fair time."""
        slowest = next(iter(self._arriving), None)
        if slowest is None or asyncio.get_running_loop().time() - slowest.started < _FAIR:
            return False
        del self._arriving[slowest]
        slowest.give_up()
        return True

    def too_large(self) -> Problem:
        """What the client of a body is told that is larger than the limit."""
        self._reject("body_too_large")
        limit = self._settings.max_body_bytes
        return Problem(413, "body_too_large", f"the body is larger than {limit} bytes")

    async def _next(self, body: _Body, receive: Receive) -> Message:
        left = body.started + self._settings.read_timeout - asyncio.get_running_loop().time()
        piece = body.waited_for = asyncio.ensure_future(receive())
        try:
            await asyncio.wait({piece}, timeout=left)
            if body.given_up or not piece.done():
                self._reject("slow_body")
                # The connection ends with it: what may still come belongs to no request.
                raise HTTPException(408, "the body did not arrive in time", headers={"Connection": "close"})
        finally:
            piece.cancel()
        message = piece.result()
        body.size += len(message.get("body", b""))
        if body.size > self._settings.max_body_bytes:
            problem = self.too_large()
            raise HTTPException(problem.status, problem.message)
        return message
