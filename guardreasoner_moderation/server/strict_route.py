"""Bodies of requests as JSON, read strictly."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from guardreasoner_moderation import strict_json


class StrictRequest(Request):
    """A request whose body has each key once: programs behind this one may take the other of two values."""

    async def json(self) -> Any:
        """The body's value.

        Raises:
            json.JSONDecodeError: it is no JSON.
            HTTPException: 400, it cannot be read otherwise.
        """
        if not hasattr(self, "_json"):
            body = await self.body()
            try:
                self._json = strict_json.loads(body)
            except json.JSONDecodeError:
                raise
            except UnicodeDecodeError as exc:
                raise HTTPException(400, "the body is not UTF-8 text") from exc
            except strict_json.UnreadableError as exc:
                raise HTTPException(400, f"the body is not readable: {exc}") from exc
        return self._json


class StrictRoute(APIRoute):
    """A route that reads bodies so."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See :class:`fastapi.routing.APIRoute`."""
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return strictly
