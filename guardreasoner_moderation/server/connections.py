"""Connections that hold nobody up: a client that does not send its request, or take its answer, is cut off.

uvicorn itself waits without a limit for the head of a request (its ``timeout_keep_alive`` ends with the first byte),
and for a client to read. Bodies are timed where they are read, in :mod:`guardreasoner_moderation.server.bodies`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from h11 import LocalProtocolError
from uvicorn.protocols.http.auto import AutoHTTPProtocol

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as _Protocol
else:
    _Protocol = AutoHTTPProtocol

_MOST_HEADS = 256  # connections that may wait for a head; beyond it the one that has waited longest is cut off
_FAIR = 1.0  # seconds that every head has, however many wait


class TimedProtocol(_Protocol):
    """uvicorn's protocol with time limits; an instance is a connection, and a subclass the connections of a server."""

    seconds: float
    heads: dict[TimedProtocol, asyncio.TimerHandle]
    """Connections without a request, and what will end them; the oldest first."""
    unread: asyncio.TimerHandle | None = None
    """What will end a connection whose answer is not taken."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The client may send a request."""
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Something has come: the rest of a head, or not all of it yet."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._expect_head()
        else:
            self._forget_head()

    def on_response_complete(self) -> None:
        """The request has its answer. What is missing of one that was refused has as long as a head."""
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self._forget_head()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read as fast as it is sent something."""
        super().pause_writing()
        self.unread = self.loop.call_later(self.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read."""
        super().resume_writing()
        if self.unread is not None:
            self.unread.cancel()
            self.unread = None

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP. Where the request has its answer already there is nothing more to say."""
        try:
            super().send_400_response(msg)
        except LocalProtocolError:
            self.transport.close()

    def _expect_head(self) -> None:
        if self in self.heads or self.transport.is_closing():
            return
        self.heads[self] = self.loop.call_later(self.seconds, self.transport.close)
        if len(self.heads) > _MOST_HEADS:
            oldest, end = next(iter(self.heads.items()))
            if end.when() - self.seconds + _FAIR < self.loop.time():
                oldest._forget_head()
                oldest.transport.close()

    def _forget_head(self) -> None:
        end = self.heads.pop(self, None)
        if end is not None:
            end.cancel()


def timed_protocol(seconds: float) -> type[asyncio.Protocol]:
    """The protocol of one server.

    Args:
        seconds: how long a client may take for the head of a request, and to read when much waits for it.
    """
    return type("ServerProtocol", (TimedProtocol,), {"seconds": seconds, "heads": {}})
