from __future__ import annotations

from typing import Any

import pytest
from teacher_server import TeacherServer, serving

from guardreasoner_moderation.engines.openai_client import RefusedError
from guardreasoner_moderation.errors import EngineError, InputError
from training.teacher import Price, Reply, Teacher, read_tokens, written_tokens
from training.trace_prompts import Budget

MESSAGES = [{"role": "user", "content": "Why?"}]


def ask(server: TeacherServer, **options: Any) -> Reply:
    teacher = Teacher(server.url, "big", **options)
    client = teacher.connect()
    try:
        return teacher.ask(client, MESSAGES, Budget(2, 2))
    finally:
        client.close()


def choice(message: dict[str, Any], **others: Any) -> tuple[int, dict[str, Any]]:
    return 200, {"choices": [{"message": message, **others}]}


def test_an_answer_and_what_it_cost() -> None:
    with serving(TeacherServer(lambda body, before: "Because.")) as server:
        assert ask(server) == Reply("Because.", cut_off=False, refused=False, read=100, written=20)
    (body,) = server.requests
    assert (body["model"], body["messages"], body["temperature"]) == ("big", MESSAGES, 0.7)


def test_members_of_the_request_can_be_added_and_taken_out() -> None:
    with serving(TeacherServer(lambda body, before: "Because.")) as server:
        ask(server, body={"max_tokens": None, "max_completion_tokens": 900})
    (body,) = server.requests
    assert "max_tokens" not in body
    assert body["max_completion_tokens"] == 900


def test_the_key_comes_from_the_named_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    with serving(TeacherServer(lambda body, before: "Because.")) as server:
        ask(server, key_env="MY_KEY")
        ask(server, key_env="NO_KEY")
    assert server.keys == ["Bearer secret", None]


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        (choice({"content": "Bec"}, finish_reason="length"), Reply("Bec", True, False, 1, 0)),
        (choice({"content": None, "refusal": "No."}), Reply("", False, True, 1, 0)),
        (choice({"content": ""}, finish_reason="content_filter"), Reply("", False, True, 1, 0)),
    ],
)
def test_answers_that_are_none(answer: tuple[int, dict[str, Any]], reply: Reply) -> None:
    with serving(TeacherServer(lambda body, before: answer)) as server:
        assert ask(server) == reply


def test_a_busy_server_is_asked_again() -> None:
    busy = [(429, {"error": {"message": "slow down"}}), (503, {"error": {"message": "starting"}})]
    with serving(TeacherServer(lambda body, before: (*busy, "Because.")[before])) as server:
        assert ask(server).text == "Because."
    assert len(server.requests) == 3


def test_a_refused_key_is_not_tried_again() -> None:
    refusing = TeacherServer(lambda body, before: (401, {"error": {"message": "bad key"}}))
    with serving(refusing) as server, pytest.raises(RefusedError, match="401: bad key"):
        ask(server)
    assert len(server.requests) == 1


@pytest.mark.parametrize("rubbish", [{}, {"choices": []}, {"choices": [{"text": "a"}]}, {"choices": ["a"]}])
def test_something_else_than_a_chat_answer_is_an_error(rubbish: dict[str, Any]) -> None:
    babbling = TeacherServer(lambda body, before: (200, rubbish))
    with serving(babbling) as server, pytest.raises(EngineError, match="does not answer as OpenAI's chat API does"):
        ask(server)


def test_prices() -> None:
    assert Price(2.0, 10.0).cost(1_000_000, 500_000) == 7.0
    assert Price(2.0).cost(1, 1) is None
    with pytest.raises(InputError, match="below 0"):
        Price(-1.0)


def test_guesses_of_tokens() -> None:
    assert read_tokens([{"role": "user", "content": "a" * 400}]) == 100
    assert written_tokens(Budget(1, 4), tasks=3) > written_tokens(Budget(1, 2), tasks=3) > 0


def test_a_teacher_needs_a_name() -> None:
    with pytest.raises(InputError, match="name the teacher's model"):
        Teacher("http://localhost:1/v1", "")
