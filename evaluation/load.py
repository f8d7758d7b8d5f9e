"""What the server costs, and what it does when it is asked for too much: real clients on a loopback port.

    python -m evaluation.load --out evaluation/results/load.json
    python -m evaluation.load --rounds 1 --steady 1200 --factor 3 --overload 120 --recovery 60 --clients 8 \
        --queue-seconds 6 --out evaluation/results/soak.json

First many clients, each with one request under way, take turns with the same number of items through ``classify_batch``
in a process of its own. Then requests come by the clock, whether the ones before are answered or not: for a while at
nine tenths of what the server managed, then far more than it can answer, then again as many as before. No text comes
twice.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import psutil
import typer

from evaluation.runs import write_json
from evaluation.speed import side
from evaluation.summary import hardware, versions
from guardreasoner_moderation import Moderator
from guardreasoner_moderation.results import Mode
from texts.filler import filler_of_tokens

TOKENS = 200
STEADY_SHARE = 0.9  # of the rate that the clients reached
_STARTUP_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Reply:
    """How one request went.

    Attributes:
        status: 0 if there was no answer.
        seconds: until it was there.
        retry_after: what a refusal named.
        judged: there is a verdict.
        problem: why there was no answer, as httpx names it.
    """

    status: int
    seconds: float
    retry_after: str | None = None
    judged: bool = False
    problem: str | None = None


class Client:
    """Sends requests to ``POST /v1/classify``."""

    def __init__(self, url: str, connections: int) -> None:
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._http = httpx.AsyncClient(base_url=url, limits=limits, timeout=120, trust_env=False)

    async def classify(self, text: str) -> Reply:
        """Asks for one verdict."""
        started = time.perf_counter()
        try:
            answer = await self._http.post("/v1/classify", json={"prompt": text, "mode": "verdict"})
        except httpx.HTTPError as exc:
            return Reply(0, time.perf_counter() - started, problem=type(exc).__name__)
        seconds = time.perf_counter() - started
        judged = answer.status_code == 200 and "error" not in answer.json()
        return Reply(answer.status_code, seconds, answer.headers.get("Retry-After"), judged)

    async def keep_busy(self, texts: Sequence[str], clients: int) -> list[Reply]:
        """``clients`` who send their next request when the last one was answered."""
        waiting = list(texts)
        replies: list[Reply] = []

        async def one() -> None:
            while waiting:
                replies.append(await self.classify(waiting.pop()))

        await asyncio.gather(*(one() for _ in range(clients)))
        return replies

    async def send_at(self, texts: Iterator[str], rate: float, seconds: float) -> list[asyncio.Task[Reply]]:
        """Sends ``rate`` requests a second by the clock; returns when the last is sent, whatever is answered yet."""
        tasks = []
        started = time.perf_counter()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
            tasks.append(asyncio.create_task(self.classify(next(texts))))
        return tasks

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()


@asynccontextmanager
async def client(url: str, connections: int) -> AsyncIterator[Client]:
    """A client, closed at the end."""
    one = Client(url, connections)
    try:
        yield one
    finally:
        await one.close()


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[str, int]]:
    """Address and process id of a server that is ready; it is asked to end at the end."""
    command = [sys.executable, "-c", "from guardreasoner_moderation.cli import main; main()", "serve", "--port", "0"]
    with tempfile.TemporaryFile("w+") as log, subprocess.Popen([*command, *arguments], stderr=log) as process:
        try:
            yield _wait_until_ready(process, log), process.pid
        finally:
            process.terminate()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], log: Any) -> str:
    deadline = time.monotonic() + _STARTUP_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
        log.seek(0)
        found = [line for line in log.read().splitlines() if line.startswith("guardreasoner: serving")]
        if not found:
            continue
        url = f"http://127.0.0.1:{found[0].rsplit(maxsplit=1)[-1]}"
        try:
            if httpx.get(f"{url}/readyz", trust_env=False).status_code == 200:
                return url
        except httpx.HTTPError:
            continue
    log.seek(0)
    raise RuntimeError(f"the server did not start: {log.read()}")


def summarise(replies: Sequence[Reply], seconds: float) -> dict[str, Any]:
    """Figures of one phase: statuses, the rate of verdicts, and how long verdicts and refusals took.

    A request has failed that was neither refused (429, 503) nor judged.
    """
    statuses = Counter(reply.status for reply in replies)
    refused = [reply for reply in replies if reply.status in (429, 503)]
    return {
        "requests": len(replies),
        "statuses": {str(status): number for status, number in sorted(statuses.items())},
        "without_answer": dict(Counter(reply.problem for reply in replies if reply.problem is not None)),
        "failed": sum(not reply.judged and reply.status not in (429, 503) for reply in replies),
        "verdicts_per_second": round(statuses[200] / seconds, 2),
        "verdict_seconds": _quantiles([reply.seconds for reply in replies if reply.status == 200]),
        "refusal_seconds": _quantiles([reply.seconds for reply in refused]),
        "refusals_without_retry_after": sum(reply.retry_after is None for reply in refused),
    }


def _quantiles(seconds: Sequence[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    names = ("p50", "p95", "p99", "max")
    return {
        name: round(float(value), 3)
        for name, value in zip(names, np.quantile(seconds, (0.5, 0.95, 0.99, 1)), strict=True)
    }


@dataclass(frozen=True, slots=True)
class Phase:
    """Requests by the clock: how many times the capacity, and for how many seconds."""

    name: str
    share: float
    seconds: float


async def run_phase(
    one: Client, texts: Iterator[str], phase: Phase, capacity: float, pid: int, normal: float | None
) -> dict[str, Any]:
    """Figures of one phase, and the memory of the server and its engine's process during it.

    Args:
        one: sends.
        texts: to judge.
        phase: what is sent.
        capacity: in requests a second.
        pid: of the server.
        normal: seconds of a verdict before an overload, for which it is measured how soon it is over.
    """
    memory: list[float] = []

    async def watch() -> None:
        while True:
            memory.append(resident_mb(pid))
            await asyncio.sleep(max(0.5, phase.seconds / 30))

    watching = asyncio.create_task(watch())
    started = time.perf_counter()
    sent = await one.send_at(texts, phase.share * capacity, phase.seconds)
    calm = {} if normal is None else {"seconds_until_normal": await normal_again(one, texts, normal)}
    replies = await asyncio.gather(*sent)
    figures = summarise(replies, time.perf_counter() - started)
    watching.cancel()
    return {
        "share_of_capacity": phase.share,
        "seconds": phase.seconds,
        **figures,
        **calm,
        "memory_mb": [round(m) for m in memory],
    }


def resident_mb(pid: int) -> float:
    """Resident memory of a process and all its children; what they share counts for each."""
    parent = psutil.Process(pid)
    total = 0
    for process in (parent, *parent.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total / 2**20


async def normal_again(one: Client, texts: Iterator[str], normal: float) -> float:
    """Seconds until a verdict takes no longer than ``normal``, asked one at a time while the queue empties."""
    started = time.perf_counter()
    while not (reply := await one.classify(next(texts))).judged or reply.seconds > normal:
        if time.perf_counter() - started > _STARTUP_SECONDS:
            raise RuntimeError(f"after the overload no verdict came within {normal} seconds for {_STARTUP_SECONDS} s")
        await asyncio.sleep(0.05)
    return round(time.perf_counter() - started, 2)


async def measure(
    url: str, pid: int, texts: Iterator[str], phases: Sequence[Phase], items: int, clients: int, rounds: int
) -> dict[str, Any]:
    """Throughput by turns with ``classify_batch``, then the phases."""
    rates: dict[str, list[float]] = {"classify_batch": [], "server": []}
    async with client(url, 2000) as one:
        with side("ours") as library:
            for number in range(rounds + 1):  # the first round warms up
                chosen = [next(texts) for _ in range(2 * items)]
                seconds, _ = await asyncio.to_thread(library.judge, chosen[:items], Mode.VERDICT, 0)
                started = time.perf_counter()
                replies = await one.keep_busy(chosen[items:], clients)
                if any(reply.status != 200 for reply in replies):
                    raise RuntimeError(f"the server refused: {Counter(reply.status for reply in replies)}")
                if number:
                    rates["classify_batch"].append(items / seconds)
                    rates["server"].append(items / (time.perf_counter() - started))
                    typer.echo(
                        f"round {number}: {json.dumps({name: round(all_[-1], 2) for name, all_ in rates.items()})}"
                    )
        middle = {name: statistics.median(found) for name, found in rates.items()}
        throughput = {
            "items": items,
            "clients": clients,
            "per_second": {name: [round(rate, 2) for rate in found] for name, found in rates.items()},
            "server_to_batch": round(middle["server"] / middle["classify_batch"], 3),
        }
        found: dict[str, Any] = {}
        for phase in phases:
            normal = found["steady"]["verdict_seconds"]["p99"] if phase.share > 1 else None
            found[phase.name] = await run_phase(one, texts, phase, middle["server"], pid, normal)
            typer.echo(f"{phase.name}: {json.dumps(found[phase.name])}")
    warm, last = found["steady"]["memory_mb"], found[phases[-1].name]["memory_mb"]
    growth = statistics.median(last) - statistics.median(warm[len(warm) // 2 :])
    return {"throughput": throughput, "phases": found, "memory_growth_mb": round(growth)}


def main(
    out: Annotated[Path, typer.Option(help="File for the figures.")],
    items: Annotated[int, typer.Option(help="Items of a round.", min=1)] = 128,
    clients: Annotated[int, typer.Option(help="Who ask at once.", min=1)] = 32,
    rounds: Annotated[int, typer.Option(help="By turns with classify_batch.", min=1)] = 5,
    steady: Annotated[float, typer.Option(help="Seconds at nine tenths of the capacity.")] = 30,
    factor: Annotated[float, typer.Option(help="Times the capacity that the overload asks for.")] = 2.0,
    overload: Annotated[float, typer.Option(help="Seconds of overload.")] = 60,
    recovery: Annotated[float, typer.Option(help="Seconds at nine tenths after it.")] = 15,
    queue_seconds: Annotated[float, typer.Option(help="The server's: seconds of work that may be ahead.")] = 30,
) -> None:
    """Measure a server of the embedded model in verdict mode."""
    phases = [
        Phase("steady", STEADY_SHARE, steady),
        Phase("overload", factor, overload),
        Phase("recovery", STEADY_SHARE, recovery),
    ]
    with Moderator() as guard:
        ready = [filler_of_tokens(guard, TOKENS, number) for number in range(2 * items * (rounds + 1))]
    texts = (f"{ready[number % len(ready)]} {number}" for number in count())
    with serving("--mode", "verdict", "--queue-seconds", str(queue_seconds)) as (url, pid):
        figures = asyncio.run(measure(url, pid, texts, phases, items, clients, rounds))
    about = {"tokens": TOKENS, "queue_seconds": queue_seconds, "versions": versions(), "hardware": hardware()}
    write_json(out, {**figures, **about})


if __name__ == "__main__":
    typer.run(main)
