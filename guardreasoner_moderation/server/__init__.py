"""The HTTP server behind ``guardreasoner serve`` (extra ``serve``). Importing this package loads nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guardreasoner_moderation.errors import MissingDependencyError
from guardreasoner_moderation.server.settings import ServerSettings as ServerSettings

if TYPE_CHECKING:
    import socket

    from fastapi import FastAPI

    from guardreasoner_moderation.moderator import Moderator

__all__ = ["ServerSettings", "create_app", "require_extra", "run"]


def create_app(guard: Moderator, settings: ServerSettings | None = None) -> FastAPI:
    """The ASGI application that judges with ``guard``, for any ASGI server.

    Args:
        guard: a loaded moderator; the caller closes it.
        settings: limits and defaults; ``host`` and ``port`` are not used here.

    Raises:
        MissingDependencyError: the extra ``serve`` is not installed.
    """
    require_extra()
    from guardreasoner_moderation.server.app import build_app

    return build_app(guard, settings or ServerSettings())


def run(guard: Moderator, settings: ServerSettings, listener: socket.socket) -> None:
    """Serves until SIGINT or SIGTERM, then finishes what was accepted.

    Args:
        guard: a loaded moderator; the caller closes it.
        settings: limits and defaults.
        listener: a bound socket; see :func:`guardreasoner_moderation.server.running.bind`.

    Raises:
        MissingDependencyError: the extra ``serve`` is not installed.
    """
    from guardreasoner_moderation.server.running import run_app

    run_app(create_app(guard, settings), settings, listener)


def require_extra() -> None:
    """Checks that the extra ``serve`` is installed, before anything slow is done.

    Raises:
        MissingDependencyError: it is not.
    """
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as exc:
        raise MissingDependencyError("guardreasoner serve", "serve") from exc
