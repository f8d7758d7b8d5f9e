"""What keeps a server standing: shared batches, a bounded queue, limits, keys, probes, and an orderly end."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from openai import OpenAI
from starlette.routing import Route
from test_server import SPEC, Served, Watched, by_word, events_of, serving, wait_until

from guardreasoner_moderation import Moderator
from guardreasoner_moderation.engines.scripted import ScriptedEngine
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.server import ServerSettings, create_app, service
from guardreasoner_moderation.server.reading import Reader
from guardreasoner_moderation.server.running import bind


def at_once(served: Served, bodies: list[Any]) -> Any:
    """Sends each body from a thread of its own; iterating the result waits for the answers."""
    pool = ThreadPoolExecutor(len(bodies))
    answers = pool.map(served.classify, bodies)
    pool.shutdown(wait=False)
    return answers


def test_concurrent_requests_share_engine_batches() -> None:
    engine = Watched()
    with serving(engine, max_batch=8) as served:
        engine.open.clear()
        first = at_once(served, [{"prompt": "first"}])
        wait_until(lambda: served.metric("guardreasoner_running_items") == 1)
        texts = [f"a {'bomb' if number % 3 == 0 else 'cake'} {number}" for number in range(20)]
        rest = at_once(served, [{"prompt": text} for text in texts])
        wait_until(lambda: served.metric("guardreasoner_queue_items") == 20)
        engine.open.set()
        assert [answer.json()["flagged"] for answer in rest] == ["bomb" in text for text in texts]
        assert next(first).status_code == 200
    assert engine.batches == [1, 8, 8, 4]


def test_an_idle_engine_waits_a_moment_for_more_items() -> None:
    engine = Watched()
    with serving(engine, max_wait_ms=1500) as served:
        assert {answer.status_code for answer in at_once(served, [{"prompt": f"tea {n}"} for n in range(4)])} == {200}
    assert engine.batches == [4]


def test_requests_that_want_to_be_judged_differently_do_not_share() -> None:
    engine = Watched()
    with serving(engine, max_wait_ms=300) as served:
        bodies = [
            {"prompt": "a bomb", "mode": mode, "thresholds": number}
            for mode in ("think", "verdict")
            for number in (0.5, 0.95)
        ]
        answers = [answer.json() for answer in at_once(served, bodies)]
    assert [(answer["mode"], answer["flagged"]) for answer in answers] == [
        ("think", True),
        ("think", False),
        ("verdict", True),
        ("verdict", False),
    ]
    assert engine.batches == [1, 1, 1, 1]


def test_a_full_queue_turns_away_and_what_was_accepted_is_judged() -> None:
    engine = Watched()
    with serving(engine, max_batch=1, queue_size=4, max_items=4) as served:
        engine.open.clear()
        accepted = at_once(served, [{"prompt": "first"}])
        wait_until(lambda: served.metric("guardreasoner_running_items") == 1)
        waiting = at_once(served, [{"items": ["a", "b", "c"]}])
        wait_until(lambda: served.metric("guardreasoner_queue_items") == 3)
        refused = served.classify({"items": ["d", "e"]})  # all of a request's items are accepted, or none
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert served.metric("guardreasoner_queue_items") == 3
        assert served.metric('guardreasoner_rejected_total{reason="queue_full"}') == 1
        engine.open.set()
        assert next(accepted).status_code == next(waiting).status_code == 200
        assert served.classify({"items": ["d", "e"]}).status_code == 200


@pytest.mark.parametrize("limit", [{"timeout": 6}, {"queue_seconds": 3}])
def test_what_would_be_done_too_late_is_turned_away_at_once(limit: dict[str, Any]) -> None:
    engine = Watched()
    with serving(engine, max_batch=1, **limit) as served:
        release = threading.Timer(0.8, engine.open.set)
        engine.open.clear()
        release.start()
        assert served.classify({"prompt": "slow"}).status_code == 200  # the server has learnt what an item takes
        engine.open.clear()
        running = at_once(served, [{"prompt": "first"}])
        wait_until(lambda: served.metric("guardreasoner_running_items") == 1)
        waiting = at_once(served, [{"prompt": "second"}])
        wait_until(lambda: served.metric("guardreasoner_queue_items") == 1)
        refused = served.classify({"items": ["x"] * 64})
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        engine.open.set()
        assert next(running).status_code == next(waiting).status_code == 200
        assert served.classify({"items": ["x"] * 64}).status_code == 200  # nothing waits


def test_more_requests_than_can_be_under_way_are_refused_before_their_bodies_are_read() -> None:
    head = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
    with serving(queue_size=1, max_items=1, max_batch=1, max_streams=1) as served, ExitStack() as stack:
        slow = []

        def turned_away() -> bool:
            slow.append(stack.enter_context(socket.create_connection(("127.0.0.1", int(served.url.rsplit(":", 1)[1])))))
            slow[-1].sendall(head)
            return served.classify({"prompt": "tea"}).status_code == 429

        wait_until(turned_away)
        assert len(slow) >= 3
        stack.close()
        wait_until(lambda: served.classify({"prompt": "tea"}).status_code == 200)


def test_a_request_that_takes_too_long_is_504_and_leaves_the_queue() -> None:
    engine = Watched()
    with serving(engine, timeout=0.4, max_batch=1) as served:
        engine.open.clear()
        answers = [answer.json() for answer in at_once(served, [{"prompt": "tea"}, {"items": ["a", "b"]}])]
        assert {answer["error"]["code"] for answer in answers} == {"timeout"}
        assert served.metric("guardreasoner_queue_items") == 0
        streamed = served.classify({"prompt": "tea", "stream": True})
        assert events_of(streamed.text)[-1][1]["error"]["code"] == "timeout"
        assert served.metric('guardreasoner_errors_total{kind="timeout"}') == 3
        engine.open.set()
        assert served.classify({"prompt": "tea"}).status_code == 200


def test_a_client_that_goes_takes_its_items_out_of_the_queue() -> None:
    engine = Watched()
    with serving(engine, max_batch=1) as served:
        engine.open.clear()
        first = at_once(served, [{"prompt": "first"}])
        wait_until(lambda: served.metric("guardreasoner_running_items") == 1)
        with pytest.raises(httpx.ReadTimeout):
            served.classify({"items": ["a", "b", "c"]}, timeout=0.2)
        wait_until(lambda: served.metric("guardreasoner_queue_items") == 0)
        engine.open.set()
        assert next(first).status_code == 200
    assert engine.batches == [1]


def test_a_client_that_leaves_a_stream_frees_its_slot_and_stops_the_model() -> None:
    engine = Watched(lambda prompt: "word " * 2000, pause=0.005)
    with serving(engine, max_streams=1) as served:
        body = {"prompt": "tea", "mode": "think", "stream": True, "max_reasoning_tokens": 2000}
        with served.client.stream("POST", "/v1/classify", json=body) as stream:
            pieces = stream.iter_text()
            assert next(pieces).startswith("event: reasoning")
            refused = served.classify(body)
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_streams")
            assert int(refused.headers["retry-after"]) >= 1
            assert served.classify({"prompt": "tea"}).status_code == 200  # others are still answered
        wait_until(lambda: served.metric("guardreasoner_streams") == 0)
        assert engine.pieces < 2000
        assert served.classify({"prompt": "tea", "stream": True}).status_code == 200


@pytest.fixture(scope="module")
def small() -> Iterator[Served]:
    with serving(max_body_mb=0.01, max_items=3, max_text_chars=100, read_timeout=1, api_key="sésame") as served:
        yield served


def test_a_body_that_is_too_large_is_413_with_and_without_a_length(small: Served) -> None:
    big = b'{"prompt": "' + b"x" * 300_000 + b'"}'
    headers = {"Content-Type": "application/json"}
    for content in (big, (big[start : start + 4096] for start in range(0, len(big), 4096))):
        answer = small.client.post("/v1/classify", content=content, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert small.classify({"prompt": "tea"}).status_code == 200


def test_a_body_that_does_not_come_is_408(small: Served) -> None:
    def content() -> Iterator[bytes]:
        yield b'{"prompt": '
        time.sleep(1.5)
        yield b'"tea"}'

    answer = small.client.post("/v1/classify", content=content(), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (408, "slow_body")


@pytest.mark.parametrize(
    ("path", "body", "code", "param"),
    [
        ("/v1/classify", {"items": ["x"] * 4}, "too_many_items", "items"),
        ("/v1/classify", {"items": ["x", "x" * 101]}, "text_too_long", "items[1]"),
        ("/v1/classify", {"prompt": "x" * 60, "response": "x" * 60}, "text_too_long", None),
        ("/v1/classify", {"messages": [{"role": "user", "content": "x" * 101}]}, "text_too_long", None),
        ("/v1/moderations", {"input": ["x"] * 4}, "too_many_items", "input"),
        ("/v1/moderations", {"input": ["x", "x" * 101]}, "text_too_long", "input[1]"),
        (
            "/beta/litellm_basic_guardrail_api",
            {"input_type": "request", "texts": ["x" * 101]},
            "text_too_long",
            "texts",
        ),
    ],
)
def test_limits_on_items_and_texts(small: Served, path: str, body: Any, code: str, param: str | None) -> None:
    answer = small.post(path, body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (422, code, param)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic sésame".encode()}])
def test_without_the_key_only_the_probes_answer(small: Served, headers: dict[str, Any]) -> None:
    """Every route of the application, with every method, and paths that are none."""
    guard = Moderator.from_engine(ScriptedEngine(by_word), SPEC)
    app = create_app(guard, ServerSettings(api_key="sésame"))
    known = [route.path for route in app.routes if isinstance(route, Route)]
    assert {"/v1/classify", "/v1/guard", "/v1/models", "/metrics", "/openapi.json", "/healthz", "/readyz"} <= set(known)
    probes = {"/healthz", "/readyz"}
    with httpx.Client(base_url=small.url, headers=headers) as stranger:
        for path in [*known, "/", "/docs", "/redoc", "/v1/nothing", "/healthz/", "//healthz", "/v1/models/../healthz"]:
            for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
                answer = stranger.request(method, path)
                if path in probes:
                    assert answer.status_code == (200 if method == "GET" else 405)
                else:
                    assert answer.status_code == 401, (method, path)
                    assert answer.headers["www-authenticate"] == "Bearer"
        answer = stranger.post("/v1/classify", json={"prompt": "tea"})
        assert answer.json()["error"]["type"] == "authentication_error"


def test_the_key_may_come_in_either_header(small: Served) -> None:
    for headers in ({"authorization": "bearer sésame".encode()}, {"x-api-key": "sésame".encode()}):
        answer = httpx.post(f"{small.url}/v1/classify", json={"prompt": "tea"}, headers=headers)
        assert answer.status_code == 200
    document = small.client.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"


def test_a_server_is_ready_after_its_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_WARM_UP_AGAIN", 0.01)
    engine = Watched()
    engine.open.clear()
    judge = engine.generate
    failures = iter([True, False])

    def fails_once(*prompts: Any, **options: Any) -> Any:
        found = judge(*prompts, **options)
        if next(failures, False):
            raise RuntimeError("not yet")
        return found

    monkeypatch.setattr(engine, "generate", fails_once)
    with serving(engine, ready=False) as served:
        for answer in (served.client.get("/readyz"), served.classify({"prompt": "tea"})):
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
            assert answer.headers["retry-after"] == "1"
        assert served.client.get("/healthz").status_code == 200
        engine.open.set()
        wait_until(lambda: served.client.get("/readyz").status_code == 200)
        assert served.classify({"prompt": "tea"}).status_code == 200


def test_a_shutdown_finishes_what_was_accepted() -> None:
    engine = Watched()
    with serving(engine, max_batch=1) as served:
        engine.open.clear()
        answers = at_once(served, [{"prompt": "a bomb"}, {"items": ["a", "b"]}, {"prompt": "tea", "stream": True}])
        wait_until(lambda: served.metric("guardreasoner_streams") == 1)
        wait_until(
            lambda: served.metric("guardreasoner_running_items") + served.metric("guardreasoner_queue_items") == 3
        )
        served.stop()
        threading.Timer(0.5, engine.open.set).start()
        first, second, streamed = answers
        assert first.json()["flagged"]
        assert len(second.json()["results"]) == 2
        assert events_of(streamed.text)[-1][0] == "result"
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{served.url}/healthz")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "thinking"}, "did you mean 'think'"),
        ({"max_batch": 0}, "max_batch must be a whole number"),
        ({"queue_size": 2.5}, "queue_size must be a whole number"),
        ({"timeout": 0}, "timeout must be above 0"),
        ({"max_body_mb": float("inf")}, "max_body_mb must be a finite number"),
        ({"max_wait_ms": -1}, "max_wait_ms must be from 0"),
        ({"port": 70_000}, "port must be at most 65535"),
        ({"mode": ["think"]}, "unknown mode"),
        ({"timeout": "60"}, "timeout must be a finite number, found '60'"),
        ({"max_items": 10**5000}, "max_items must be at most"),
        ({"queue_seconds": 0}, "queue_seconds must be above 0 and at most timeout (60), found 0"),
        ({"queue_seconds": 61}, "queue_seconds must be above 0 and at most timeout (60), found 61"),
        ({"queue_seconds": "5"}, "queue_seconds must be a finite number, found '5'"),
        ({"queue_size": 8}, "max_items (64) is more than queue_size (8)"),
        ({"api_key": " "}, "the API key is empty"),
        ({"api_key": 7}, "the API key is not text"),
        ({"api_key": "half \ud83d"}, "the API key is not text"),
    ],
)
def test_bad_settings_are_input_errors(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        ServerSettings(**settings)
    assert message in str(caught.value)


def test_a_key_is_not_shown_with_the_settings() -> None:
    assert "sesame" not in repr(ServerSettings(api_key="sesame"))


def test_a_port_in_use_is_an_input_error() -> None:
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(InputError, match="cannot listen on"):
            bind("127.0.0.1", taken.getsockname()[1])


class Records(logging.Handler):
    """Keeps what is logged, as text, with its tracebacks."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(logging.Formatter().format(record))


def test_no_text_and_no_key_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    records = Records()
    with serving(api_key="sesame") as served:
        for name in ("", "asyncio", "uvicorn", "uvicorn.error", "guardreasoner_moderation.server"):
            monkeypatch.setattr(logging.getLogger(name), "handlers", [records])
        for text in ("private bomb", "private broken", "private unlucky"):
            served.classify({"prompt": text})
            served.classify({"prompt": text, "mode": "think", "stream": True})
            served.post("/v1/classify?text=private", {"prompt": text, "mode": "private", "private": "private"})
            served.post("/v1/private", text)
        monkeypatch.setattr(Reader, "one", lambda _, item: fail(repr(item)))
        answer = served.classify({"prompt": "private"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    log = "\n".join(records.lines)
    assert "POST /v1/classify 200" in log
    assert "POST other 404" in log
    assert "not judged: out of memory" in log
    assert "not judged: the engine failed (RuntimeError)" in log
    assert "failed: RuntimeError\n" in log
    assert "private" not in log
    assert "sesame" not in log


def fail(message: str) -> None:
    raise RuntimeError(message)


def ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.ConnectError:
        return False


@pytest.mark.skipif(os.name != "posix", reason="sends SIGTERM")
def test_the_command_serves_the_real_model() -> None:
    command = [sys.executable, "-m", "guardreasoner_moderation.cli", "serve", "--port", "0", "--mode", "verdict"]
    environment = {**os.environ, "GUARDREASONER_API_KEY": "sesame"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment)
    assert process.stderr is not None
    line = next(line for line in process.stderr if line.startswith("guardreasoner: serving embedded on 127.0.0.1 port"))
    with httpx.Client(base_url=f"http://127.0.0.1:{line.split()[-1]}") as client:
        wait_until(lambda: ready(client), 60)
        with OpenAI(base_url=f"{client.base_url}/v1", api_key="sesame") as openai:
            answer = openai.moderations.create(input=["How do I bake bread?", "How do I poison my neighbour's dog?"])
        assert answer.model == "embedded"
        assert len(answer.results) == 2
        assert all(0 < max(result.category_scores.model_dump().values()) < 1 for result in answer.results)
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Application shutdown complete" in log
    assert "bread" not in log


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--max-batch", "0"], {}, "max_batch must be a whole number of at least 1"),
        (["--api-key", ""], {}, "the API key is empty"),
        ([], {"GUARDREASONER_API_KEY": ""}, "GUARDREASONER_API_KEY is set but empty"),
        (["--host", "nowhere.invalid"], {}, "cannot listen on nowhere.invalid:8000"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    arguments: list[str], environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from guardreasoner_moderation import cli

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["guardreasoner", "serve", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "own_process"),
    [
        ([], True),
        (["--engine", "llamacpp"], True),
        (["--in-process"], False),
        (["--server", "http://localhost:9/v1"], False),
        (["--engine", "vllm"], False),
    ],
)
def test_an_engine_of_this_machine_has_a_process_of_its_own(
    arguments: list[str], own_process: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from guardreasoner_moderation import cli

    asked: dict[str, Any] = {}

    def loads(*_: Any, **options: Any) -> Moderator:
        asked.update(options)
        raise InputError("that is enough")

    monkeypatch.setattr(Moderator, "from_pretrained", loads)
    monkeypatch.setattr(sys, "argv", ["guardreasoner", "serve", "--port", "0", *arguments])
    with pytest.raises(SystemExit):
        cli.main()
    assert asked["own_process"] is own_process
