"""A server whose engine runs in a real process of its own: what clients see when that dies."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psutil
import pytest
from engine_processes import engine_processes
from test_server import SPEC, Served, by_word, events_of, serving_guard, wait_until

from guardreasoner_moderation import Moderator
from guardreasoner_moderation.engines.base import Engine
from guardreasoner_moderation.engines.scripted import ScriptedEngine
from guardreasoner_moderation.engines.worker import WorkerEngine
from guardreasoner_moderation.prompts import Prompt

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills processes with signals")

KILLED = "the engine's process was killed by signal 9 (the system does that when memory runs out)"


def load() -> tuple[Engine, Any]:
    def write(prompt: Prompt) -> str:
        if "deadly" in prompt.text:
            os.kill(os.getpid(), 9)
        if "slow" in prompt.text:
            time.sleep(30)
        return by_word(prompt)

    return ScriptedEngine(write), None


@contextmanager
def served_apart(**settings: Any) -> Iterator[Served]:
    with (
        Moderator.from_engine(WorkerEngine(load), SPEC, name="scripted") as guard,
        serving_guard(guard, **settings) as one,
    ):
        yield one


def engine() -> psutil.Process:
    (process,) = engine_processes()
    return process


def test_a_death_is_told_by_the_probe_and_the_metrics_until_the_engine_is_warm_again() -> None:
    with served_apart() as served:
        first = engine()
        assert served.classify({"prompt": "a bomb"}).json()["flagged"]
        first.kill()
        wait_until(lambda: served.client.get("/readyz").status_code == 503)
        for answer in (served.client.get("/readyz"), served.classify({"prompt": "tea"})):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert answer.json()["error"]["message"] == f"{KILLED}; try again later"
        assert served.metric("guardreasoner_ready") == 0
        assert served.client.get("/healthz").status_code == 200
        wait_until(lambda: served.client.get("/readyz").status_code == 200)
        assert served.metric("guardreasoner_ready") == 1
        assert served.metric("guardreasoner_engine_restarts_total") == 1
        assert served.classify({"prompt": "a bomb"}).json()["flagged"]
        assert engine().pid != first.pid


def test_what_was_accepted_is_blocked_with_the_reason_or_judged_by_the_next_process() -> None:
    with served_apart(max_batch=1) as served:
        bodies = [{"prompt": "slow"}, {"prompt": "slow", "mode": "think", "stream": True}, {"prompt": "a cake"}]
        answers: dict[int, httpx.Response] = {}

        def ask(number: int) -> None:
            answers[number] = served.classify(bodies[number])

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
            time.sleep(0.2)
        wait_until(lambda: served.metric("guardreasoner_queue_items") == 1)
        assert served.metric("guardreasoner_streams") == 1
        engine().kill()
        for thread in threads:
            thread.join()
        stopped = answers[0].json()
        assert (stopped["flagged"], stopped["error"]) == (True, KILLED)
        name, streamed = events_of(answers[1].text)[-1]
        assert (name, streamed["flagged"], streamed["error"]) == ("result", True, KILLED)
        waited = answers[2].json()
        assert (waited["flagged"], "error" in waited) == (False, False)


def test_a_text_that_kills_the_engine_costs_its_neighbours_no_verdict() -> None:
    with served_apart() as served:
        results = served.classify({"items": ["a bomb", "a cake", "deadly"]}).json()["results"]
        assert [(result["flagged"], "error" in result) for result in results] == [
            (True, False),
            (False, False),
            (True, True),
        ]


def test_a_shutdown_does_not_wait_for_an_engine_that_is_being_started_again() -> None:
    with served_apart() as served:
        engine().kill()
        started = time.monotonic()
        served.stop()
    assert time.monotonic() - started < 15
    assert not engine_processes()
