"""The client against a real HTTP server on this machine that misbehaves in every way but one."""

from __future__ import annotations

import base64
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import pytest
from answering_server import Answer, Asked, answering, events

from guardreasoner_moderation import EngineError, InputError
from guardreasoner_moderation.engines import openai_client
from guardreasoner_moderation.engines.openai_client import RefusedError, ServerClient

Make = Callable[..., ServerClient]
GOOD = {"choices": [{"text": " harmful", "finish_reason": "stop"}]}


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client would have waited."""
    asked: list[float] = []
    monkeypatch.setattr(openai_client, "time", SimpleNamespace(sleep=asked.append))
    return asked


@pytest.fixture
def client() -> Iterator[Make]:
    """Makes clients, which are closed at the end."""
    with ExitStack() as opened:

        def make(server: str, **options: Any) -> ServerClient:
            one = ServerClient(server, **{"api_key": None, "concurrency": 4, "timeout": 5, "retries": 3, **options})
            opened.callback(one.close)
            return one

        yield make


def in_turn(*answers: Answer) -> Any:
    waiting = list(answers)
    return lambda asked: waiting.pop(0) if len(waiting) > 1 else waiting[0]


def test_a_good_answer_is_returned_and_the_key_sent(client: Make) -> None:
    with answering(in_turn(Answer(GOOD))) as (address, asked):
        assert client(f"{address}/", api_key="secret").ask("/completions", {"model": "guard"}) == GOOD
    assert asked[0].path == "/v1/completions"
    assert asked[0].headers["authorization"] == "Bearer secret"
    assert asked[0].body == {"model": "guard"}


def test_no_key_sends_none_of_others(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_CUSTOM_HEADERS"):
        monkeypatch.setenv(name, "X-Custom: theirs")
    with answering(in_turn(Answer(GOOD))) as (address, asked):
        client(address).ask("/completions", {})
    assert "authorization" not in asked[0].headers
    assert "theirs" not in str(asked[0].headers)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 529])
def test_what_may_pass_is_tried_again_later_and_later(client: Make, waits: list[float], status: int) -> None:
    with answering(in_turn(Answer("busy", status), Answer("busy", status), Answer(GOOD))) as (address, asked):
        assert client(address).ask("/completions", {}) == GOOD
    assert len(asked) == 3
    assert 0.25 <= waits[0] <= 0.5
    assert 0.5 <= waits[1] <= 1


def test_the_server_says_when_to_come_back(client: Make, waits: list[float]) -> None:
    later = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=20), usegmt=True)
    answers = (Answer("", 429, {"Retry-After": "7"}), Answer("", 503, {"Retry-After": later}), Answer(GOOD))
    with answering(in_turn(*answers)) as (address, _):
        client(address).ask("/completions", {})
    assert waits[0] == 7
    assert 15 <= waits[1] <= 20


@pytest.mark.parametrize("header", ["soon", "-5", "Wed, 99 Foo", "nan", ""])
def test_an_odd_retry_after_is_no_reason_to_wait(client: Make, waits: list[float], header: str) -> None:
    with answering(in_turn(Answer("", 429, {"Retry-After": header}), Answer(GOOD))) as (address, _):
        client(address).ask("/completions", {})
    assert 0.25 <= waits[0] <= 0.5


def test_it_does_not_wait_for_hours(client: Make, waits: list[float]) -> None:
    with (
        answering(in_turn(Answer("", 429, {"Retry-After": "3600"}))) as (address, asked),
        pytest.raises(EngineError, match="left alone for 3600 seconds"),
    ):
        client(address).ask("/completions", {})
    assert waits == []
    assert len(asked) == 1


def test_it_gives_up_after_its_retries(client: Make, waits: list[float]) -> None:
    with (
        answering(in_turn(Answer({"error": {"message": "too many"}}, 429))) as (address, asked),
        pytest.raises(EngineError, match="HTTP status 429: too many; tried 4 times"),
    ):
        client(address).ask("/completions", {})
    assert len(asked) == 4
    assert len(waits) == 3


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (400, {"error": {"message": "too long"}}, "400: too long"),
        (401, {"error": "no such key"}, r"401: no such key\. Pass api_key="),
        (404, {"detail": "Not Found"}, r"404: Not Found\. Check the model's name and the address"),
        (422, {"detail": [{"msg": "Field required", "input": "a text"}]}, "422: Field required"),
        (307, "", "307"),
    ],
)
def test_a_refusal_is_said_at_once(client: Make, waits: list[float], status: int, body: Any, message: str) -> None:
    with answering(in_turn(Answer(body, status))) as (address, asked):
        with pytest.raises(RefusedError, match=message) as caught:
            client(address).ask("/completions", {})
        assert len(asked) == 1
    assert caught.value.status == status
    assert "a text" not in str(caught.value)
    assert waits == []


def test_nobody_at_the_address(client: Make, waits: list[float]) -> None:
    with pytest.raises(EngineError, match="gives no answer: ConnectError; tried 4 times"):
        client("http://127.0.0.1:9/v1").ask("/completions", {})
    assert len(waits) == 3


def test_a_slow_answer_is_not_asked_for_again(client: Make) -> None:
    with (
        answering(in_turn(Answer(GOOD, seconds=1))) as (address, asked),
        pytest.raises(EngineError, match=r"no answer within 0\.2 seconds"),
    ):
        client(address, timeout=0.2).ask("/completions", {})
    assert len(asked) == 1


def test_an_answer_that_breaks_off_is_asked_for_again(client: Make, waits: list[float]) -> None:
    with answering(in_turn(Answer(GOOD, cut=10), Answer(GOOD))) as (address, asked):
        assert client(address).ask("/completions", {}) == GOOD
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("<html>", "does not answer in JSON"),
        ("", "does not answer in JSON"),
        ([1], "something else than an object"),
        ({"error": {"message": "out of memory"}}, "failed: out of memory"),
    ],
)
def test_a_malformed_body_is_an_error(client: Make, body: Any, message: str) -> None:
    with answering(in_turn(Answer(body))) as (address, _), pytest.raises(EngineError, match=message):
        client(address).ask("/completions", {})


def test_a_stream_is_read_to_its_end(client: Make) -> None:
    with answering(in_turn(events({"n": 1}, {"n": 2}))) as (address, asked):
        assert list(client(address).stream("/completions", {})) == [{"n": 1}, {"n": 2}]
    assert asked[0].body["stream"] is True


def test_comments_of_a_stream_are_left_out(client: Make) -> None:
    body = ': ping\n\nevent: x\ndata: {"n": 1}\n\ndata:[DONE]\n\ndata: {"n": 2}\n\n'
    with answering(in_turn(Answer(body))) as (address, _):
        assert list(client(address).stream("/completions", {})) == [{"n": 1}]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (events("{"), "does not answer in JSON"),
        (events({"error": {"message": "out of memory"}}), "failed: out of memory"),
        (Answer('data: {"n": 1}\n\ndata: {"n": 2}\n\n', cut=3), "broke off"),
    ],
)
def test_a_broken_stream_is_an_error(client: Make, answer: Answer, message: str) -> None:
    with answering(in_turn(answer)) as (address, _), pytest.raises(EngineError, match=message):
        list(client(address).stream("/completions", {}))


def test_no_more_requests_at_once_than_allowed(client: Make) -> None:
    running, most = 0, 0
    lock = threading.Lock()

    def answer(asked: Asked) -> Answer:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.1)
        with lock:
            running -= 1
        return Answer(GOOD)

    with answering(answer) as (address, _):
        one = client(address, concurrency=2)
        threads = [threading.Thread(target=one.ask, args=("/completions", {})) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most == 2


def test_the_key_is_in_no_message(client: Make, waits: list[float]) -> None:
    echo = {"error": {"message": "bad key sk-secret-1234 given"}}
    for status in (400, 401, 500, 200):
        with answering(in_turn(Answer(echo, status))) as (address, _):
            one = client(address, api_key="sk-secret-1234")
            with pytest.raises(EngineError) as caught:
                one.ask("/completions", {})
            assert "sk-secret-1234" not in f"{caught.value} {caught.value!r} {one!r} {caught.value.__cause__}"
            assert "bad key *** given" in str(caught.value)


def test_a_password_in_the_address_is_in_no_message(client: Make, waits: list[float]) -> None:
    with pytest.raises(EngineError) as caught:
        client("http://me:hidden@127.0.0.1:9/v1").ask("/completions", {})
    assert "hidden" not in str(caught.value)


def test_a_password_in_the_address_is_sent_and_not_logged(client: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), answering(in_turn(Answer(GOOD))) as (address, asked):
        client(address.replace("//", "//me:hidden@")).ask("/completions", {})
    assert asked[0].headers["authorization"] == "Basic " + base64.b64encode(b"me:hidden").decode()
    assert "hidden" not in caplog.text


def test_a_query_in_the_address_is_refused_untold(client: Make) -> None:
    with pytest.raises(InputError, match="an address without a query") as caught:
        client("http://127.0.0.1:9/v1?token=hidden")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("key", ["", " ", "new\nline", "schlüssel"])
def test_what_cannot_be_a_key_is_an_error_that_does_not_show_it(client: Make, key: str) -> None:
    with pytest.raises(InputError, match="API key") as caught:
        client("http://127.0.0.1:9/v1", api_key=key)
    assert "schl" not in str(caught.value)


@pytest.mark.parametrize("address", ["localhost:8000", "ftp://host/v1", "http://", ""])
def test_what_cannot_be_an_address_is_an_error(client: Make, address: str) -> None:
    with pytest.raises(InputError, match="address"):
        client(address)


def test_a_closed_client_says_so(client: Make) -> None:
    one = client("http://127.0.0.1:9/v1")
    one.close()
    one.close()
    with pytest.raises(EngineError, match="closed"):
        one.ask("/completions", {})


def test_closing_lets_a_request_that_is_under_way_end(client: Make) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(_: Asked) -> Answer:
        begun.set()
        assert go_on.wait(20)
        return Answer(GOOD)

    with answering(slow) as (address, _), ThreadPoolExecutor(1) as pool:
        one = client(address)
        late = pool.submit(one.ask, "/completions", {})
        assert begun.wait(20)
        one.close()
        go_on.set()
        assert late.result() == GOOD
        with pytest.raises(EngineError, match="closed"):
            one.ask("/completions", {})
