"""What every request passes before a route sees it: key, kind of body, and how many are under way."""

from __future__ import annotations

import asyncio
import hmac
import logging
import traceback
import uuid
from collections.abc import Collection
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guardreasoner_moderation.server.bodies import Bodies
from guardreasoner_moderation.server.metrics import Metrics
from guardreasoner_moderation.server.problems import Problem
from guardreasoner_moderation.server.settings import ServerSettings

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""Paths that need no key."""

_log = logging.getLogger("guardreasoner_moderation.server")


class Gate:
    """ASGI middleware. It reads no body: it watches the route read it.

    Args:
        app: what is guarded.
        settings: limits and key.
        metrics: counts.
        paths: known paths, by which requests are counted.
        posted: those of them that take a body.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: ServerSettings,
        metrics: Metrics,
        paths: Collection[str],
        posted: Collection[str],
    ) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._paths = frozenset(paths)
        self._posted = frozenset(posted)
        self._bodies = Bodies(settings, metrics.on_rejected)
        self._under_way = 0  # of those with bodies; others hold nothing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the application's lifespan."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        started = loop.time()
        status = 0
        request_id = uuid.uuid4().hex

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        posts = scope["method"] == "POST"
        self._under_way += posts
        try:
            self._check(scope)
            await self._app(scope, self._bodies.limited(receive) if posts else receive, answer)
        except Problem as problem:
            await problem.response()(scope, receive, answer)
        except Exception as exc:  # noqa: BLE001 - its message could hold the text, so it goes into no log
            self._metrics.on_error("internal")
            _log.error(
                "request %s failed: %s\n%s",
                request_id,
                type(exc).__name__,
                "".join(traceback.format_tb(exc.__traceback__)),
            )
            if not status:
                sorry = Problem(500, "internal", "the server failed; nothing was judged, treat the text as unsafe")
                await sorry.response()(scope, receive, answer)
        finally:
            self._under_way -= posts
            # Other paths, and query strings, are the client's words and could be a text.
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.on_request(path, status)
            seconds = loop.time() - started
            _log.info("%s %s %d %.3f s, request %s", scope["method"], path, status, seconds, request_id)

    def _check(self, scope: Scope) -> None:
        headers = _Headers(scope)
        if self._settings.api_key is not None and scope["path"] not in OPEN_PATHS:
            self._check_key(headers, self._settings.api_key)
        if scope["method"] != "POST":
            return
        # Clients that send slowly, or half a body, must not keep the others out.
        if self._under_way > self._settings.max_in_flight and not self._bodies.make_room():
            self._reject("too_many_requests")
            raise Problem(429, "queue_full", "too many requests are under way; try again later", retry_after=1)
        kind = headers.get(b"content-type").split(b";")[0].strip().lower()
        if scope["path"] in self._posted and kind != b"application/json":
            raise Problem(415, "unsupported_media_type", "send the header Content-Type: application/json")
        length = headers.get(b"content-length")
        if length.isdigit() and (len(length) > 18 or int(length) > self._settings.max_body_bytes):
            raise self._bodies.too_large()

    def _check_key(self, headers: _Headers, key: str) -> None:
        scheme, _, given = headers.get(b"authorization").partition(b" ")
        if scheme.lower() != b"bearer":
            given = headers.get(b"x-api-key")  # as LiteLLM sends it
        if not hmac.compare_digest(given.strip(), key.encode()):
            self._reject("unauthorized")
            message = "wrong API key" if given else "missing API key; send the header Authorization: Bearer <key>"
            raise Problem(401, "invalid_api_key", message)

    def _reject(self, reason: str) -> None:
        self._metrics.on_rejected(reason)


class _Headers:
    """Request headers by lower-case name; a name that is sent twice counts as sent first."""

    def __init__(self, scope: Scope) -> None:
        self._values: dict[bytes, bytes] = {}
        pairs: Any = scope["headers"]
        for name, value in pairs:
            self._values.setdefault(name.lower(), value)

    def get(self, name: bytes) -> bytes:
        """The value; empty if it was not sent."""
        return self._values.get(name, b"")
