"""What becomes of requests when the engine dies, the server is ended, or clients send slowly; with real processes.

    python -m reliability.server_faults --out reliability/results/server_faults.json

The embedded model is served; faults are tried while clients ask for verdicts and for streams of reasoning.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import httpx
import psutil
import typer

from evaluation.load import serving
from reliability.record import Record, Trial

READY_SECONDS = 15.0
"""So long the server may take until it is ready again."""

READ_SECONDS = 5.0
"""``--read-timeout`` of the servers that slow clients try."""

_HEAD = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 200\r\n"
_FORM = '{"prompt": "How do I bake bread number'
_FAIR_SECONDS = 1.5  # a little more than the server lets every client have before it prefers others
_SLACK = 10.0  # seconds that a busy machine may be late; the figures tell how late it was


class Clients:
    """Who ask one request after the other, and what became of each.

    Outcomes: "judged"; "error told": the text is flagged with an error, or the status is 500 or 504; "refused": 429 or
    503 with ``Retry-After``; "lost": anything else, no answer above all.
    """

    def __init__(self, url: str) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=100, trust_env=False, limits=httpx.Limits())
        self._numbers = count()
        self.outcomes: Counter[str] = Counter()

    @asynccontextmanager
    async def asking(self, verdicts: int, streams: int) -> AsyncIterator[None]:
        """So many clients ask inside the block; at its end every request has its answer."""
        enough = asyncio.Event()

        async def ask(one: Callable[[], Coroutine[Any, Any, str]]) -> None:
            while not enough.is_set():
                if await self._counted(one()) == "refused":
                    await asyncio.sleep(0.5)

        waiting = [self.verdict] * verdicts + [self.stream] * streams
        tasks = [asyncio.create_task(ask(one)) for one in waiting]
        try:
            yield
        finally:
            enough.set()
            await asyncio.gather(*tasks)

    async def ask_once(self, verdicts: int, streams: int) -> None:
        """So many requests at once."""
        asked = [self.verdict() for _ in range(verdicts)] + [self.stream() for _ in range(streams)]
        await asyncio.gather(*(self._counted(one) for one in asked))

    async def verdict(self) -> str:
        """Outcome of a request for a verdict."""
        answer = await self._http.post("/v1/classify", json={"prompt": self._text(), "mode": "verdict"})
        return _outcome(answer.status_code, answer.headers, answer.json())

    async def stream(self) -> str:
        """Outcome of a request for a stream of reasoning."""
        body = {"prompt": self._text(), "mode": "think", "stream": True, "max_reasoning_tokens": 40}
        async with self._http.stream("POST", "/v1/classify", json=body) as answer:
            content = (await answer.aread()).decode()
        if answer.status_code != 200:
            return _outcome(answer.status_code, answer.headers, json.loads(content))
        name, data = content.strip().split("\n\n")[-1].split("\n")
        if name == "event: error":
            return "error told"
        return _outcome(200, answer.headers, json.loads(data.removeprefix("data: ")))

    async def seconds_until_ready(self) -> float:
        """From now, when the engine was killed; meanwhile ``/readyz`` must say no and ``/healthz`` yes.

        Raises:
            RuntimeError: they did not, or it took far too long.
        """
        started = time.monotonic()
        refused = False
        while (seconds := time.monotonic() - started) < 4 * READY_SECONDS:
            ready, healthy = await self._http.get("/readyz"), await self._http.get("/healthz")
            if healthy.status_code != 200:
                raise RuntimeError(f"/healthz answers {healthy.status_code}")
            if ready.status_code == 200 and refused:
                return seconds
            refused = refused or (ready.status_code == 503 and "Retry-After" in ready.headers)
            await asyncio.sleep(0.05)
        raise RuntimeError(f"not ready again after {seconds:.0f} s" if refused else "/readyz did not tell of the death")

    async def come_to(self) -> None:
        """Until the server comes to a client that connects now, whatever it says: it has come to all before."""
        with suppress(httpx.HTTPError):
            await self._http.get("/healthz")

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    def _text(self) -> str:
        return f"How do I bake bread number {next(self._numbers)}?"

    async def _counted(self, asked: Coroutine[Any, Any, str]) -> str:
        try:
            outcome = await asked
        except (httpx.HTTPError, ValueError):
            outcome = "lost"
        self.outcomes[outcome] += 1
        return outcome


def _outcome(status: int, headers: Mapping[str, str], body: Mapping[str, Any]) -> str:
    if status == 200:
        return "judged" if body.get("error") is None else "error told" if body["flagged"] else "lost"
    if status in (500, 504):
        return "error told"
    return "refused" if status in (429, 503) and "Retry-After" in headers else "lost"


@asynccontextmanager
async def clients(url: str) -> AsyncIterator[Clients]:
    """Clients whose connections are closed at the end."""
    some = Clients(url)
    try:
        yield some
    finally:
        await some.close()


def engine_of(server: int) -> psutil.Process:
    """The engine's process of a server."""
    (process,) = psutil.Process(server).children()
    return process


def _lives(process: psutil.Process) -> bool:
    """A zombie does not: it waits for its new parent to take note."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def trial(
    name: str,
    tried: int,
    failed: int,
    outcomes: Counter[str],
    seconds: Sequence[float],
    grown_mb: float | None = None,
) -> Trial:
    """A row of the table."""
    figures = {
        "requests": outcomes.total(),
        **{column: outcomes[column] for column in ("judged", "error told", "refused", "lost")},
        "seconds, median": round(sorted(seconds)[len(seconds) // 2], 2),
        "seconds, most": round(max(seconds), 2),
        "server grown by, MB": None if grown_mb is None else round(grown_mb),
    }
    return Trial(name, tried, failed, figures)


async def kill_the_engine(url: str, server: int, times: int, *, verdicts: int = 8, streams: int = 2) -> Trial:
    """Kills the engine's process again and again, each time as soon as the server is ready, while clients ask."""
    seconds: list[float] = []
    memory: list[int] = []
    async with clients(url) as some:
        failed = 0
        async with some.asking(verdicts, streams):
            for _ in range(times):
                await asyncio.sleep(1)  # work is under way
                engine_of(server).kill()
                seconds.append(await some.seconds_until_ready())
                failed += seconds[-1] > READY_SECONDS
                memory.append(psutil.Process(server).memory_info().rss)
            await asyncio.sleep(1)
        failed = max(failed, some.outcomes["lost"])
        name = "kill -9 of the engine under load (until ready)"
        return trial(name, times, failed, some.outcomes, seconds, (memory[-1] - memory[0]) / 2**20)


async def kill_the_server(times: int) -> Trial:
    """Kills the server; its engine must not outlive it."""
    seconds = []
    for _ in range(times):
        with serving("--mode", "verdict") as (_, server):
            engine = engine_of(server)
            psutil.Process(server).kill()
            started = time.monotonic()
            while _lives(engine) and time.monotonic() - started < 2 * READY_SECONDS:
                await asyncio.sleep(0.02)
            seconds.append(time.monotonic() - started)
    failed = sum(found > _SLACK for found in seconds)
    return trial("kill -9 of the server (until its engine has ended)", times, failed, Counter(), seconds)


async def drain(times: int, *, requests: int = 24, kill: bool = False) -> Trial:
    """SIGTERM while requests are under way: each is answered, then the processes end."""
    outcomes: Counter[str] = Counter()
    seconds = []
    failed = 0
    for _ in range(times):
        with serving("--mode", "verdict") as (url, server):
            async with clients(url) as some:
                asked = asyncio.create_task(some.ask_once(requests, 2))
                await _until_accepted(url, requests + 2)
                process, engine = psutil.Process(server), engine_of(server)
                process.terminate()
                started = time.monotonic()
                if kill:
                    engine.kill()
                await asked
                await asyncio.to_thread(process.wait, 60)
                seconds.append(time.monotonic() - started)
            if _lives(engine) or some.outcomes["lost"] or (some.outcomes["judged"] < requests + 2 and not kill):
                failed += 1
            outcomes += some.outcomes
    what = "SIGTERM, then kill -9 of the engine" if kill else "SIGTERM"
    return trial(f"{what} with requests under way (until the end)", times, failed, outcomes, seconds)


async def _until_accepted(url: str, requests: int) -> None:
    """Waits until so many requests have been taken into the queue."""
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
        for _ in range(200):
            lines = (await http.get("/metrics")).text.splitlines()
            known = dict(line.rsplit(maxsplit=1) for line in lines if not line.startswith("#"))
            kinds = (
                "queue_items",
                "running_items",
                "streams",
                'items_total{mode="verdict"}',
                'items_total{mode="think"}',
            )
            if sum(float(known.get(f"guardreasoner_{kind}", 0)) for kind in kinds) >= requests:
                return
            await asyncio.sleep(0.02)
    raise RuntimeError("the requests were not accepted")


SLOW: Mapping[str, tuple[bytes, bool]] = {
    "heads of one byte a second": (b"", True),
    "heads that stay unfinished": (_HEAD, False),
    "bodies of one byte a second": (_HEAD + b"\r\n{", True),
    "half-sent bodies": (_HEAD + b"\r\n" + _FORM.encode(), False),
    "nothing at all": (b"", False),
}
"""What slow clients send at first, and whether they go on with a byte a second."""


async def slow_clients(url: str, kind: str, number: int, *, seconds: float = READ_SECONDS) -> Trial:
    """Many slow clients at once: all are cut off, and others get their verdicts meanwhile."""
    first, dripping = SLOW[kind]
    where = urlsplit(url)
    held: list[float] = []

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        started = time.monotonic()
        with suppress(OSError):
            writer.write(first)
            while time.monotonic() - started < 4 * seconds + 2 * _SLACK:
                if dripping:
                    writer.write(b"P" if first == b"" else b" ")
                with suppress(asyncio.TimeoutError):
                    if not await asyncio.wait_for(reader.read(4096), 1):
                        break  # the server has closed the connection
        held.append(time.monotonic() - started)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async with clients(url) as some:
        connecting = (asyncio.open_connection(where.hostname, where.port) for _ in range(number))
        holding = [asyncio.create_task(hold(*one)) for one in await asyncio.gather(*connecting)]
        await some.come_to()
        await asyncio.sleep(_FAIR_SECONDS)
        while not all(task.done() for task in holding):
            await some.ask_once(4, 0)
        await asyncio.gather(*holding)
        late = sum(one > seconds + _SLACK for one in held)
        others = some.outcomes.total() - some.outcomes["judged"]
    name = f"{number} clients with {kind} (until they are cut off)"
    return trial(name, number, late + others, some.outcomes, held)


@contextmanager
def patient_server() -> Iterator[str]:
    """The address of a server that waits :data:`READ_SECONDS` for its clients."""
    with serving("--mode", "verdict", "--read-timeout", str(READ_SECONDS)) as (url, _):
        yield url


def main(
    out: Annotated[Path, typer.Option(help="File for the figures.")],
    kills: Annotated[int, typer.Option(help="Of the engine.", min=1)] = 10,
    ends: Annotated[int, typer.Option(help="Of the server, in each way.", min=1)] = 3,
    slow: Annotated[int, typer.Option(help="Slow clients of each kind.", min=1)] = 400,
) -> None:
    """Try faults on a server of the embedded model."""
    trials: list[Trial] = []

    def add(found: Trial) -> None:
        trials.append(found)
        typer.echo(f"{found.name}: {found.failed} of {found.tried} failed {json.dumps(found.figures)}")

    with serving("--mode", "verdict") as (url, server):
        add(asyncio.run(kill_the_engine(url, server, kills)))
    add(asyncio.run(kill_the_server(ends)))
    add(asyncio.run(drain(ends)))
    add(asyncio.run(drain(ends, kill=True)))
    with patient_server() as url:
        for kind in SLOW:
            add(asyncio.run(slow_clients(url, kind, slow)))
    Record(
        title="A server whose parts fail",
        promise=(
            "Every accepted request gets a verdict or is told that there is none; after a death of the engine the "
            f"server is ready again within {READY_SECONDS:.0f} s; slow clients are cut off and hold nobody up. Failed: "
            "times, or clients, where that did not hold."
        ),
        command="python -m reliability.server_faults --out reliability/results/server_faults.json",
        trials=trials,
        notes=[
            "Error told: the text is flagged with an error, or the status is 500 or 504. Refused: 429 or 503 with "
            "Retry-After. Lost: no answer, or none that fits.",
            "Seconds are those that the trial's name tells of, for each time or client. The server's own memory is "
            "compared after the first new start of its engine and after the last.",
            f"The servers of the slow clients run with --read-timeout {READ_SECONDS:g}; as many as are tried are more "
            "than the requests that may be under way.",
        ],
    ).save(out)


if __name__ == "__main__":
    typer.run(main)
