"""A local HTTP server that answers as a test tells it to, and keeps what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    """Status, body (an object is sent as JSON) and headers; ``seconds`` of silence before, ``cut`` bytes left out."""

    body: Any = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0
    cut: int = 0


@dataclass
class Asked:
    """A request."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@contextmanager
def answering(answer: Callable[[Asked], Answer]) -> Iterator[tuple[str, list[Asked]]]:
    """The address of the server, and the requests that it gets."""
    asked: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(Asked(self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            reply = answer(asked[-1])
            time.sleep(reply.seconds)
            content = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
            try:
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content.encode())))
                self.end_headers()
                self.wfile.write(content.encode()[: len(content.encode()) - reply.cut])
                self.close_connection = bool(reply.cut)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client has hung up

        def log_message(self, *arguments: Any) -> None:
            """Nothing is logged."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def events(*parts: Any) -> Answer:
    """A streamed answer of these parts."""
    lines = [part if isinstance(part, str) else json.dumps(part) for part in (*parts, "[DONE]")]
    return Answer("".join(f"data: {line}\n\n" for line in lines), headers={"Content-Type": "text/event-stream"})
