"""Runs the application in uvicorn on a socket that was bound before the model was loaded."""

from __future__ import annotations

import copy
import math
import os
import socket

import uvicorn
from fastapi import FastAPI
from uvicorn.config import LOGGING_CONFIG

from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.server.connections import timed_protocol
from guardreasoner_moderation.server.settings import ServerSettings


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet, so that a port in use is known before a model is loaded.

    Raises:
        InputError: the address cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as exc:
        raise InputError(f"cannot listen on {host}:{port}: {exc}") from exc
    try:
        if os.name == "posix":  # elsewhere the option would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as exc:
        listener.close()
        raise InputError(f"cannot listen on {host}:{port}: {exc}") from exc
    return listener


def server_of(app: FastAPI, settings: ServerSettings) -> uvicorn.Server:
    """A uvicorn server with this package's settings.

    Its own access log is off, because that holds query strings; the gate writes one line for each request instead.
    """
    logs = copy.deepcopy(LOGGING_CONFIG)
    logs["loggers"]["guardreasoner_moderation.server"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        lifespan="on",
        http=timed_protocol(settings.read_timeout),
        timeout_keep_alive=settings.keep_alive,
        server_header=False,
        access_log=False,
        log_config=logs,
        # What was accepted has at most the timeout to finish, and a moment to be sent.
        timeout_graceful_shutdown=math.ceil(settings.timeout) + 5,
    )
    return uvicorn.Server(config)


def run_app(app: FastAPI, settings: ServerSettings, listener: socket.socket) -> None:
    """Serves until SIGINT or SIGTERM."""
    with listener:
        server_of(app, settings).run(sockets=[listener])
