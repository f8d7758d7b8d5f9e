"""The native endpoint, as real clients see it: a uvicorn server on a loopback port, with a scripted engine."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from guardreasoner_moderation import EngineError, Moderator
from guardreasoner_moderation.engines.base import Generation
from guardreasoner_moderation.engines.scripted import ScriptedEngine
from guardreasoner_moderation.errors import MissingDependencyError
from guardreasoner_moderation.models import ModelSpec
from guardreasoner_moderation.prompts import Prompt, PromptFormat
from guardreasoner_moderation.server import ServerSettings, create_app
from guardreasoner_moderation.server.answers import ErrorBody, Result
from guardreasoner_moderation.server.running import bind, server_of

SPEC = ModelSpec(prompt_format=PromptFormat.COMPACT, categories=("violence_physical_harm", "other"))
BLOCK = "Answers:\nRequest: harmful\nCategory: other\nCompletion: refusal\nResponse: unharmful"
THOUGHT = f"They ask for harm.\nIt is dangerous.\n# Task 2\nIt declines.\n# Task 3\nNothing bad.\n---\n{BLOCK}"


def by_word(prompt: Prompt) -> str:
    """Writes like a compact model that finds "bomb" harmful, and fails where it is told to."""
    if "unlucky" in prompt.text:
        raise EngineError("out of memory")
    if "broken" in prompt.text:
        raise RuntimeError(f"a bug, seen with {prompt.text}")
    harmful = "bomb" in prompt.text
    answer = " harmful\nCategory: violence_physical_harm" if harmful else " unharmful"
    if prompt.text.endswith("Request:"):
        return answer
    return f"It is about {'harm' if harmful else 'nothing bad'}.\n---\nAnswers:\nRequest:{answer}"


class Watched(ScriptedEngine):
    """Remembers the sizes of its batches; works only while ``open`` is set, and takes ``pause`` seconds for a piece."""

    def __init__(self, reply: Callable[[Prompt], str] = by_word, *, pause: float = 0.0) -> None:
        super().__init__(reply)
        self.batches: list[int] = []
        self.pieces = 0
        self.open = threading.Event()
        self.open.set()
        self._pause = pause

    def generate(self, prompts: Sequence[Prompt], **options: Any) -> list[Generation]:
        assert self.open.wait(20)
        if not any("Hello." in prompt.text for prompt in prompts):  # the warm-up
            self.batches.append(len(prompts))
        on_text = options.pop("on_text", None)

        def slowly(number: int, piece: str) -> None:
            time.sleep(self._pause)
            self.pieces += 1
            on_text(number, piece)

        return super().generate(prompts, **options, on_text=slowly if on_text else None)


@dataclass
class Served:
    """A running server, and a client of it."""

    url: str
    client: httpx.Client
    stop: Callable[[], None]

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return self.client.post(path, json=body, **options)

    def classify(self, body: Any, **options: Any) -> httpx.Response:
        return self.post("/v1/classify", body, **options)

    def metric(self, name: str) -> float:
        """The value of a sample, written as Prometheus writes it."""
        lines = self.client.get("/metrics").text.splitlines()
        return next((float(line.split()[-1]) for line in lines if line.startswith(f"{name} ")), 0.0)


@contextmanager
def serving(engine: ScriptedEngine | None = None, *, ready: bool = True, **settings: Any) -> Iterator[Served]:
    """A server in a thread, until the block ends."""
    guard = Moderator.from_engine(engine or ScriptedEngine(by_word), SPEC, name="scripted")
    with serving_guard(guard, ready=ready, **settings) as served:
        yield served


@contextmanager
def serving_guard(guard: Moderator, *, ready: bool = True, **settings: Any) -> Iterator[Served]:
    """:func:`serving` with a moderator of the caller's."""
    how = ServerSettings(port=0, **{"mode": "verdict", **settings})
    listener = bind(how.host, how.port)
    server = server_of(create_app(guard, how), how)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    headers = {"Authorization": f"Bearer {how.api_key}".encode()} if how.api_key else {}

    def stop() -> None:
        server.should_exit = True

    try:
        with httpx.Client(base_url=url, headers=headers, timeout=20) as client:
            wait_until(lambda: server.started)
            wait_until(lambda: not ready or client.get("/readyz").status_code == 200)
            yield Served(url, client, stop)
    finally:
        stop()
        thread.join(20)
        listener.close()
        assert not thread.is_alive()


def wait_until(true: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.03)


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with serving() as served:
        yield served


def events_of(text: str) -> list[tuple[str, Any]]:
    """Names and data of server-sent events."""
    events = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return events


def test_one_prompt_is_answered_as_the_moderator_answers_it(server: Served) -> None:
    answer = server.classify({"prompt": "a bomb", "mode": "think"})
    assert answer.status_code == 200
    expected = Moderator.from_engine(ScriptedEngine(by_word), SPEC, name="scripted").classify("a bomb").to_dict()
    assert answer.json().pop("usage")["prompt_tokens"] == expected.pop("usage")["prompt_tokens"]
    assert {key: value for key, value in answer.json().items() if key != "usage"} == expected


def test_a_response_is_judged_too() -> None:
    with serving(ScriptedEngine(lambda prompt: THOUGHT), mode="think") as served:
        result = served.classify({"prompt": "How?", "response": "No.", "system": "Be kind."}).json()
        assert [result[task]["label"] for task in ("request", "completion", "response")] == [
            "harmful",
            "refusal",
            "unharmful",
        ]
        few = served.classify({"prompt": "How?", "response": "No.", "max_reasoning_steps": 1}).json()
        assert few["request"]["reasoning"] == ["They ask for harm."]


def test_a_budget_of_reasoning_tokens_is_kept() -> None:
    with serving(ScriptedEngine(lambda prompt: "word " * 500), mode="think") as served:
        result = served.classify({"prompt": "How?", "max_reasoning_tokens": 5}).json()
        assert result["usage"]["completion_tokens"] < 100


def test_messages_are_a_conversation(server: Served) -> None:
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "bomb"}]},
        {"role": "assistant", "content": "No.", "refusal": None},
    ]
    result = server.classify({"messages": messages}).json()
    assert result["flagged"]
    assert result["response"] is not None


def test_items_of_every_shape_keep_their_order(server: Served) -> None:
    items = [
        "a bomb",
        {"prompt": "a cake"},
        {"messages": [{"role": "user", "content": "a bomb"}]},
        {"prompt": "tea", "response": None},
    ]
    answer = server.classify({"items": items}).json()
    assert answer["model"] == "scripted"
    assert [result["flagged"] for result in answer["results"]] == [True, False, True, False]


@pytest.mark.parametrize(
    ("thresholds", "flagged", "threshold"),
    [(0.95, False, 0.95), ({"request": 0.95}, False, 0.95), ({"response": 0.95}, True, 0.5), ({}, True, 0.5)],
)
def test_thresholds(server: Served, thresholds: Any, flagged: bool, threshold: float) -> None:
    result = server.classify({"prompt": "a bomb", "thresholds": thresholds}).json()
    assert (result["flagged"], result["request"]["threshold"]) == (flagged, threshold)


def test_a_stream_is_reasoning_and_then_the_result(server: Served) -> None:
    messages = [{"role": "user", "content": "a bomb"}]
    for body in ({"prompt": "a bomb"}, {"messages": messages}):
        with server.client.stream("POST", "/v1/classify", json={**body, "mode": "think", "stream": True}) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            *pieces, (name, result) = events_of("".join(answer.iter_text()))
        assert "".join(data["text"] for _, data in pieces) == "It is about harm.\n"
        assert {kind for kind, _ in pieces} == {"reasoning"}
        assert name == "result"
        assert Result.model_validate(result, strict=True).flagged


def test_a_stream_in_verdict_mode_is_the_result_alone(server: Served) -> None:
    answer = server.classify({"prompt": "a bomb", "mode": "verdict", "stream": True})
    assert [name for name, _ in events_of(answer.text)] == ["result"]


@pytest.mark.parametrize(
    ("text", "error"), [("unlucky", "out of memory"), ("broken", "the engine failed (RuntimeError)")]
)
def test_what_could_not_be_judged_is_flagged_and_says_why(server: Served, text: str, error: str) -> None:
    answers = [server.classify({"prompt": text}).json(), server.classify({"items": [text]}).json()["results"][0]]
    answers.append(events_of(server.classify({"prompt": text, "stream": True}).text)[-1][1])
    for answer in answers:
        assert (answer["flagged"], answer["request"], answer["error"]) == (True, None, error)
    moderation = server.post("/v1/moderations", {"input": text}).json()["results"][0]
    assert moderation["flagged"]
    assert moderation["categories"]["illicit"]
    assert moderation["category_scores"]["illicit"] == 1


def test_an_unlucky_neighbour_costs_nobody_his_verdict(server: Served) -> None:
    results = server.classify({"items": ["a cake", "unlucky", "a bomb"]}).json()["results"]
    assert [result.get("error") for result in results] == [None, "out of memory", None]
    assert [result["flagged"] for result in results] == [False, True, True]


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"promt": "x"}, None, "unknown key 'promt'; did you mean 'prompt'?"),
        ({"prompt": "x", "thresholds": {"requst": 1}}, "thresholds", "did you mean 'request'?"),
        ({"items": ["x", {"prompt": "x", "respnse": "y"}]}, "items[1]", "did you mean 'response'?"),
        ({"\ud800": "x"}, None, "unknown key"),
        ({}, "prompt", "field required"),
        ([], None, "input should be a valid dictionary"),
        ({"prompt": ""}, "prompt", "the text is empty"),
        ({"prompt": " \n"}, "prompt", "the text is empty"),
        ({"prompt": "x", "response": ""}, "response", "the text is empty"),
        ({"prompt": "\ud800"}, "prompt", "surrogate"),
        ({"prompt": 1}, "prompt", "valid string"),
        ({"prompt": "x", "stream": "yes"}, "stream", "valid boolean"),
        ({"prompt": "x", "mode": "thinking"}, "mode", "'think', 'verdict' or 'auto'"),
        ({"prompt": "x", "thresholds": 2}, "thresholds", "less than or equal to 1"),
        ({"prompt": "x", "thresholds": float("nan")}, "thresholds", "finite"),
        ({"prompt": "x", "max_reasoning_tokens": 0}, "max_reasoning_tokens", "greater than or equal to 1"),
        ({"items": []}, "items", "at least 1"),
        ({"items": ["x"], "stream": True}, None, "unknown key 'stream'"),
        ({"items": ["x", "\x1c"]}, "items[1]", "nothing to judge"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "input should be"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, None, "no user message"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type", "'text'"),
    ],
)
def test_bad_input_is_one_sentence_that_names_the_field(
    server: Served, body: Any, param: str | None, message: str
) -> None:
    answer = server.client.post("/v1/classify", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    error = ErrorBody.model_validate(answer.json(), strict=True).error
    assert (error.type, error.param) == ("invalid_request_error", param)
    assert message in error.message


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"{", "application/json", 400, "bad_json"),
        (b"\xff", "application/json", 400, "bad_request"),
        (b"[" * 100_000, "application/json", 400, "bad_request"),
        (b'{"prompt": "a bomb", "prompt": "a cake"}', "application/json", 400, "bad_request"),
        (b'{"items": ' + b"[" * 200 + b"]" * 200 + b"}", "application/json", 400, "bad_request"),
        (b'{"prompt": ' + b"1" * 5000 + b"}", "application/json", 400, "bad_request"),
        (b"", "application/json", 422, "invalid_value"),
        (b"prompt=x", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
    ],
)
def test_a_body_that_is_no_json(server: Served, content: bytes, kind: str, status: int, code: str) -> None:
    answer = server.client.post("/v1/classify", content=content, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_a_key_that_stands_twice_in_a_body_is_named(server: Served) -> None:
    body = b'{"prompt": "a bomb", "prompt": "a cake"}'
    answer = server.client.post("/v1/classify", content=body, headers={"Content-Type": "application/json"})
    assert answer.json()["error"]["message"] == "the body is not readable: the key 'prompt' stands there twice"


def test_other_paths_and_methods_have_the_same_error_shape(server: Served) -> None:
    for answer in (server.client.get("/v1/nothing"), server.client.get("/v1/classify")):
        ErrorBody.model_validate(answer.json(), strict=True)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


def test_models_and_probes(server: Served) -> None:
    assert server.client.get("/healthz").json() == {"status": "ok"}
    assert server.client.get("/readyz").json() == {"status": "ready"}
    (model,) = server.client.get("/v1/models").json()["data"]
    assert (model["id"], model["object"]) == ("scripted", "model")


def test_metrics_count() -> None:
    with serving() as served:
        served.classify({"items": ["a bomb", "a cake", "unlucky"]})
        served.classify({"prompt": ""})
        wait_until(lambda: served.metric('guardreasoner_requests_total{path="/v1/classify",status="422"}') == 1)
        assert served.metric('guardreasoner_requests_total{path="/v1/classify",status="200"}') == 1
        assert served.metric('guardreasoner_judgement_seconds_count{mode="verdict"}') == 1
        assert served.metric('guardreasoner_items_total{mode="verdict"}') == 3
        assert served.metric('guardreasoner_flagged_total{category="violence_physical_harm"}') == 1
        assert served.metric('guardreasoner_flagged_total{category="none"}') == 1
        assert served.metric('guardreasoner_errors_total{kind="item"}') == 1
        assert served.metric("guardreasoner_batch_items_sum") == 3
        assert served.metric("guardreasoner_queue_items") == 0
        assert served.metric("guardreasoner_ready") == 1


def test_the_openapi_document_is_complete(server: Served) -> None:
    document = server.client.get("/openapi.json").json()
    posts = {path: methods["post"] for path, methods in document["paths"].items() if "post" in methods}
    assert set(posts) == {"/v1/classify", "/v1/guard", "/v1/moderations", "/beta/litellm_basic_guardrail_api"}
    for operation in posts.values():
        assert {"200", "400", "401", "408", "413", "415", "422", "429", "500", "503", "504"} <= set(
            operation["responses"]
        )
        for status, response in operation["responses"].items():
            if status != "200":
                assert response["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorBody")
    assert "HTTPValidationError" not in document["components"]["schemas"]
    assert "text/event-stream" in posts["/v1/classify"]["responses"]["200"]["content"]


def test_the_examples_of_the_openapi_document_work(server: Served) -> None:
    schemas = server.client.get("/openapi.json").json()["components"]["schemas"]
    paths = {
        "ClassifyPrompt": "/v1/classify",
        "ClassifyMessages": "/v1/classify",
        "ClassifyItems": "/v1/classify",
        "ModerationRequest": "/v1/moderations",
        "GuardrailRequest": "/beta/litellm_basic_guardrail_api",
    }
    for name, path in paths.items():
        for example in schemas[name]["examples"]:
            assert server.post(path, example).status_code == 200


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'guardreasoner-moderation\[serve\]'"):
        create_app(Moderator.from_engine(ScriptedEngine(by_word), SPEC))
