"""The server as a surface: bodies of every POST route in this process, and whatever bytes over a real socket."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx

from guardreasoner_moderation.server import ServerSettings, create_app
from guardreasoner_moderation.server.problems import MEANINGS
from guardreasoner_moderation.server.running import bind, server_of
from reliability import hostile_values as hostile
from reliability.call_surfaces import guard_without_model
from reliability.surface import REFUSED, VERDICT, Surface, Try, insist

_KEYS = {
    "/v1/classify": ("prompt", "response", "system", "messages", "items", "mode", "thresholds", "stream"),
    "/v1/moderations": ("input", "model", "guardreasoner"),
    "/v1/guard": ("prompt", "messages", "response", "released", "every", "final", "stop_on_request", "mode"),
    "/beta/litellm_basic_guardrail_api": (
        "input_type",
        "texts",
        "structured_messages",
        "images",
        "tool_calls",
        "litellm_call_id",
    ),
}


def _part(dice: Random, key: str) -> Any:
    """A value that fits the key, or any."""
    if dice.random() < 0.3:
        return hostile.value(dice)
    text = hostile.text(dice, huge=False)
    message = {"role": dice.choice(("user", "assistant", "system", "tool")), "content": text}
    fitting: dict[str, Any] = {
        "messages": [message, {"role": "user", "content": [{"type": "text", "text": "a bomb"}]}],
        "structured_messages": [message, {"role": "user", "content": text}],
        "items": [text, {"prompt": text}, {"messages": [message]}],
        "input": dice.choice((text, [text, "bread"], [{"type": "text", "text": text}])),
        "mode": dice.choice(("verdict", "think", "auto", "fast")),
        "thresholds": dice.choice((0.5, {"request": 0.4}, {"requst": 1}, 7)),
        "guardreasoner": {"mode": "verdict"},
        "stream": dice.random() < 0.5,
        "released": dice.choice((0, 1, -1, 10**30)),
        "every": dice.choice(("sentence", 5, 0)),
        "final": True,
        "stop_on_request": True,
        "input_type": dice.choice(("request", "response", "both")),
        "texts": [text, text],
        "tool_calls": [{"function": {"arguments": dice.choice((text, {"a": hostile.deep(90)}, hostile.deep(950)))}}],
        "images": ["data:"],
    }
    return fitting.get(key, text)


def _body(dice: Random, path: str) -> bytes:
    if dice.random() < 0.001:
        return b'{"prompt": "' + b"x" * hostile.HUGE + b'"}'
    keys = _KEYS[path]
    chosen = [keys[0], *dice.sample(keys, dice.randint(0, min(3, len(keys))))]
    content = {hostile.misspelt(dice, [key]) if dice.random() < 0.05 else key: _part(dice, key) for key in chosen}
    written = hostile.json_text(dice, content).encode("utf-8", "surrogatepass")
    return hostile.damaged(dice, written) if dice.random() < 0.3 else written


def _told(status: int, content: Any) -> str:
    """Insists that an answer is a judgement, or a documented refusal that says what is wrong."""
    if status == 200:
        return VERDICT
    insist(400 <= status < 500, f"answered with {status}: {content}")
    insist(status in MEANINGS, f"{status} is not documented")
    error = content["error"]
    insist(set(error) == {"message", "type", "code", "param"}, "an error of another shape")
    insist(error["message"], "no message")
    insist(len(error["message"]) < 2000, "a message repeats the body")
    return REFUSED


@contextmanager
def _in_process(_: Path) -> Iterator[Try]:
    app = create_app(guard_without_model(), ServerSettings(mode="verdict", max_wait_ms=0, max_body_mb=4))
    loop = asyncio.new_event_loop()
    context = app.router.lifespan_context(app)
    loop.run_until_complete(context.__aenter__())
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://guard")

    async def ready() -> None:
        while (await client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.01)

    async def post(path: str, body: bytes, kind: str) -> httpx.Response:
        return await client.post(path, content=body, headers={"Content-Type": kind})

    def attempt(dice: Random) -> str:
        path = dice.choice(sorted(_KEYS))
        kinds = ("application/json",) * 30 + (
            "application/json; charset=utf-16",
            "text/plain",
            "",
            "multipart/form-data",
        )
        answer = loop.run_until_complete(post(path, _body(dice, path), dice.choice(kinds)))
        if answer.headers["content-type"].startswith("text/event-stream"):
            insist(answer.text.count("event: result") == 1, "a stream without its result")
            return VERDICT
        return _told(answer.status_code, answer.json())

    try:
        loop.run_until_complete(ready())
        yield attempt
    finally:
        loop.run_until_complete(client.aclose())
        loop.run_until_complete(context.__aexit__(None, None, None))
        loop.close()


@contextmanager
def _over_a_socket(_: Path) -> Iterator[Try]:
    settings = ServerSettings(port=0, mode="verdict", max_wait_ms=0, timeout=2)
    listener = bind(settings.host, settings.port)
    address = listener.getsockname()
    server = server_of(create_app(guard_without_model(), settings), settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()

    def send(content: bytes) -> bytes:
        """Everything that comes back until the server hangs up, or waits for more."""
        with socket.create_connection(address, timeout=0.5) as connection:
            connection.sendall(content)
            parts = []
            try:
                while part := connection.recv(1 << 16):
                    parts.append(part)
            except (TimeoutError, ConnectionResetError):
                pass
            return b"".join(parts)

    def attempt(dice: Random) -> str:
        path = dice.choice(sorted(_KEYS))
        body = _body(dice, path)
        head = [
            f"POST {path}{dice.choice(('', '', '?x=%ff', '/../'))} HTTP/1.1",
            "Host: x",
            f"Content-Type: {dice.choice(('application/json', 'application/json', 'text/html'))}",
            dice.choice((f"Content-Length: {len(body)}",) * 6 + ("Content-Length: -1", "Content-Length: 9" * 30)),
            "Connection: close",
            *dice.choice(((), (), ("Transfer-Encoding: chunked",), ("X-Api-Key: \x00",), ("A: " + "b" * 70_000,))),
        ]
        if dice.random() < 0.1:
            head.append("Content-Encoding: gzip")
            body = gzip.compress(body)
        whole = "\r\n".join(head).encode("latin-1", "replace") + b"\r\n\r\n" + body
        try:
            answer = send(hostile.damaged(dice, whole) if dice.random() < 0.3 else whole)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""  # hung up on, as it was too long
        status = int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 400
        insist(status < 500, f"answered with {status}")
        with socket.create_connection(address, timeout=5) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            insist(connection.recv(100).startswith(b"HTTP/1.1 200"), "the server is not well any more")
        return VERDICT if status == 200 else REFUSED

    try:
        while not server.started:
            time.sleep(0.05)
        while b"200 OK" not in send(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"):
            time.sleep(0.05)
        yield attempt
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()


SERVER = (
    Surface("bodies of every POST route, in process", _in_process, 6_000),
    Surface("bytes over a socket", _over_a_socket, 300),
)
