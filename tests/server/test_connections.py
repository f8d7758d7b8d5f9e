"""Clients that send slowly, or do not read, against a uvicorn server on a loopback port, with a scripted engine."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest
from fastapi import FastAPI
from test_server import Served, serving, wait_until

from guardreasoner_moderation.server import ServerSettings, bodies, connections
from guardreasoner_moderation.server.running import server_of

HEAD = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n"
WHOLE = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with serving(read_timeout=1) as served:
        yield served


@contextmanager
def connected(served: Served, content: bytes = b"") -> Iterator[socket.socket]:
    with closing(socket.create_connection(("127.0.0.1", int(served.url.rsplit(":", 1)[1])), timeout=10)) as client:
        client.sendall(content)
        yield client


def answer_of(client: socket.socket, drip: bytes = b"") -> tuple[bytes, float]:
    """What comes until the server closes the connection, and after how many seconds; ``drip`` is sent meanwhile."""
    started = time.monotonic()
    found = b""
    client.settimeout(0.1)
    while time.monotonic() - started < 10:
        try:
            if drip:
                client.sendall(drip)
            piece = client.recv(65536)
        except TimeoutError:
            continue
        except ConnectionError:
            break
        if not piece:
            break
        found += piece
    return found, time.monotonic() - started


@pytest.mark.parametrize(
    ("first", "drip"),
    [
        (b"", b""),  # connects, and says nothing
        (b"POST /v1/cl", b""),
        (HEAD, b""),
        (HEAD, b"x"),  # a header that never ends
    ],
)
def test_a_head_that_does_not_come_ends_the_connection(server: Served, first: bytes, drip: bytes) -> None:
    with connected(server, first) as client:
        found, seconds = answer_of(client, drip)
    assert found == b""
    assert 0.5 < seconds < 5


def test_the_head_of_a_later_request_is_timed_too(server: Served) -> None:
    with connected(server, WHOLE) as client:
        wait_until(lambda: b'"ok"' in client.recv(65536))
        client.sendall(HEAD)
        found, seconds = answer_of(client, b"x")
    assert found == b""
    assert 0.5 < seconds < 5


def test_a_client_that_pauses_between_requests_is_not_cut_off_by_this_limit(server: Served) -> None:
    with connected(server, WHOLE) as client:
        client.recv(65536)
        time.sleep(1.5)
        client.sendall(WHOLE)
        wait_until(lambda: b'"ok"' in client.recv(65536))


def test_an_idle_connection_ends_after_its_time() -> None:
    with serving(keep_alive=1) as served, connected(served, WHOLE) as client:
        found, seconds = answer_of(client)
    assert b'"ok"' in found
    assert 0.5 < seconds < 5


def test_connections_are_kept_longer_than_load_balancers_keep_theirs() -> None:
    """Closed just as a request is sent on it, a connection loses the request."""
    settings = ServerSettings()
    assert server_of(FastAPI(), settings).config.timeout_keep_alive == settings.keep_alive > 60


@pytest.mark.parametrize("drip", [b"", b" "])
def test_the_rest_of_a_refused_body_is_timed_too(server: Served, drip: bytes) -> None:
    with connected(server, HEAD.replace(b"application/json", b"text/plain") + b"\r\n{") as client:
        found, seconds = answer_of(client, drip)
    assert found.startswith(b"HTTP/1.1 415 ")
    assert 0.5 < seconds < 5


def test_a_connection_outlives_a_refusal_whose_body_comes_whole(server: Served) -> None:
    head = HEAD.replace(b"application/json", b"text/plain") + b"\r\n"
    with connected(server, head) as client:
        assert client.recv(65536).startswith(b"HTTP/1.1 415 ")
        client.sendall(b" " * 99 + WHOLE)
        wait_until(lambda: b'"ok"' in client.recv(65536))


@pytest.mark.parametrize("drip", [b"", b" "])
def test_a_body_that_does_not_come_is_408_and_ends_the_connection(server: Served, drip: bytes) -> None:
    with connected(server, HEAD + b"\r\n{") as client:
        found, seconds = answer_of(client, drip)
    assert found.startswith(b"HTTP/1.1 408 ")
    assert b'"slow_body"' in found
    assert 0.5 < seconds < 5


def test_a_request_that_takes_longer_than_its_client_may_is_answered(server: Served) -> None:
    """The limit is for clients, not for the engine."""
    with serving(read_timeout=0.3, max_wait_ms=1500) as served:
        assert served.classify({"prompt": "tea"}).status_code == 200


def test_half_sent_bodies_make_room_for_others_after_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_FAIR", 4.0)  # on a busy machine a second may pass before the first question
    with (
        serving(queue_size=1, max_items=1, max_batch=1, max_streams=1, read_timeout=20) as served,
        ExitStack() as stack,
    ):
        slow = []
        for _ in range(3):
            slow.append(stack.enter_context(connected(served, HEAD + b"\r\n{")))
            time.sleep(0.2)  # each takes its place before the next asks for one
        wait_until(lambda: served.classify({"prompt": "tea"}).status_code == 429)  # they have their fair time
        time.sleep(4.1)
        for _ in range(3):
            assert served.classify({"prompt": "tea"}).status_code == 200
        found, _ = answer_of(slow[0])
        assert found.startswith(b"HTTP/1.1 408 ")
        slow[2].sendall(b'"prompt": "tea"}' + b" " * 82)  # there was room for this one
        assert slow[2].recv(65536).startswith(b"HTTP/1.1 200 ")


def test_too_many_connections_without_a_request_end_from_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_MOST_HEADS", 3)
    with serving(read_timeout=20) as served, ExitStack() as stack:
        slow = [stack.enter_context(connected(served, HEAD)) for _ in range(3)]
        time.sleep(1.1)
        stack.enter_context(connected(served, HEAD))
        assert answer_of(slow[0])[1] < 5
        slow[2].sendall(b"\r\n" + b'{"prompt": "tea"}' + b" " * 82)
        assert slow[2].recv(65536).startswith(b"HTTP/1.1 200 ")


def test_what_is_no_http_after_an_early_answer_ends_the_connection_quietly(
    server: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer comes before the body, whose next piece has no size."""
    head = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connected(server, head) as client:
        first = client.recv(65536)
        client.sendall(b"no size\r\n")
        rest, _ = answer_of(client)
    assert first.startswith(b"HTTP/1.1 415 ")
    assert b"HTTP/1.1" not in rest
    assert [record.getMessage() for record in caplog.records if record.exc_info or record.levelname == "ERROR"] == []


def test_a_client_that_does_not_read_is_cut_off(server: Served) -> None:
    """It asks for more than the system's buffers hold."""
    times = 20_000_000 // len(server.client.get("/openapi.json").content)

    def ended() -> bool:
        try:
            client.sendall(b"x")
        except ConnectionError:
            return True
        return False

    with connected(server) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * times)
        wait_until(ended)
