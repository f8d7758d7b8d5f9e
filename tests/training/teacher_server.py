"""A local server that speaks OpenAI's chat completions: a teacher for tests."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

Answer: TypeAlias = str | tuple[int, dict[str, Any]]
"""What the teacher writes, or a status with a body."""


@dataclass
class TeacherServer:
    """What it answers, and what it was asked.

    Attributes:
        answer: from a request and how often its messages came before, to the answer.
        delay: seconds before an answer.
        requests: in the order in which they came.
        most_at_once: requests that were under way together.
    """

    answer: Callable[[dict[str, Any], int], Answer]
    delay: float = 0.0
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    most_at_once: int = 0
    url: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _running: int = 0

    def reply(self, path: str, body: dict[str, Any], key: str | None) -> tuple[int, dict[str, Any]]:
        with self._lock:
            before = sum(one["messages"] == body["messages"] for one in self.requests)
            self.requests.append(body)
            self.keys.append(key)
            self._running += 1
            self.most_at_once = max(self.most_at_once, self._running)
        try:
            time.sleep(self.delay)
            if path != "/v1/chat/completions":
                return 404, {"error": {"message": f"no such path {path}"}}
            answer = self.answer(body, before)
        finally:
            with self._lock:
                self._running -= 1
        if isinstance(answer, tuple):
            return answer
        message = {"role": "assistant", "content": answer}
        return 200, {
            "id": f"chatcmpl-{len(self.requests)}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
        }


@contextmanager
def serving(teacher: TeacherServer) -> Iterator[TeacherServer]:
    """Runs the server on a free port of this machine; ``teacher.url`` is its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, content = teacher.reply(self.path, body, self.headers.get("Authorization"))
            payload = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            if status == 429:
                self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    teacher.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield teacher
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
