from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count

import pytest

from evaluation.load import Phase, Reply, client, measure, serving, summarise


def test_a_phase_counts_statuses_and_keeps_verdicts_and_refusals_apart() -> None:
    replies = [
        Reply(200, 1.0, judged=True),
        Reply(200, 3.0),
        Reply(429, 0.1, "2"),
        Reply(503, 0.3),
        Reply(0, 9, problem="ReadError"),
    ]
    figures = summarise(replies, seconds=4)
    assert figures["statuses"] == {"0": 1, "200": 2, "429": 1, "503": 1}
    assert figures["without_answer"] == {"ReadError": 1}
    assert figures["failed"] == 2  # no answer, and an answer without a verdict
    assert figures["verdicts_per_second"] == 0.5
    assert (figures["verdict_seconds"]["p50"], figures["verdict_seconds"]["max"]) == (2, 3)
    assert figures["refusal_seconds"]["max"] == 0.3
    assert figures["refusals_without_retry_after"] == 1


def test_requests_come_by_the_clock_even_where_nobody_answers() -> None:
    async def ask() -> list[Reply]:
        async with client("http://127.0.0.1:9", 10) as one:
            return await asyncio.gather(*await one.send_at(texts(), 40, 0.5))

    replies = asyncio.run(ask())
    assert [(reply.status, reply.problem) for reply in replies] == [(0, "ConnectError")] * 20


def texts() -> Iterator[str]:
    return (f"How do I bake bread number {number}?" for number in count())


@pytest.mark.usefixtures("embedded")
def test_a_real_server_is_measured() -> None:
    phases = [Phase("steady", 0.5, 1.5), Phase("overload", 1.5, 1.5), Phase("recovery", 0.5, 1.0)]
    with serving("--mode", "verdict", "--queue-seconds", "30") as (url, pid):
        figures = asyncio.run(measure(url, pid, texts(), phases, items=8, clients=4, rounds=1))
    assert figures["throughput"]["server_to_batch"] > 0
    assert set(figures["phases"]) == {"steady", "overload", "recovery"}
    assert [phase["failed"] for phase in figures["phases"].values()] == [0, 0, 0]
    assert figures["phases"]["overload"]["seconds_until_normal"] >= 0
    assert min(figures["phases"]["steady"]["memory_mb"]) > 200  # the model is in a process of its own
