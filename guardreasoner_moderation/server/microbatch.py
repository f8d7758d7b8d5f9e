"""Dynamic micro-batching: items of concurrent requests share engine calls, behind a queue that cannot grow."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.results import ModerationResult


@dataclass(frozen=True, slots=True)
class Plan:
    """How items are judged. Items whose plans are equal may share an engine call.

    ``thresholds`` is one number, or pairs of task and number.
    """

    mode: str
    thresholds: float | tuple[tuple[str, float], ...] | None = None
    max_reasoning_tokens: int | None = None
    max_reasoning_steps: int | None = None

    def settings(self) -> dict[str, Any]:
        """The settings of :meth:`guardreasoner_moderation.Moderator.classify`."""
        thresholds = dict(self.thresholds) if isinstance(self.thresholds, tuple) else self.thresholds
        return {
            "mode": self.mode,
            "thresholds": thresholds,
            "max_reasoning_tokens": self.max_reasoning_tokens,
            "max_reasoning_steps": self.max_reasoning_steps,
        }


JudgeBatch: TypeAlias = Callable[[Sequence[Interaction], Plan], list[ModerationResult]]
"""Judges items with one plan; called in a worker thread."""


class Observer(Protocol):
    """Who is told what the queue does."""

    def on_batch(self, items: int, waited: Sequence[float]) -> None:
        """A batch of ``items`` starts; its items have waited so many seconds."""

    def on_queue(self, waiting: int, running: int) -> None:
        """So many items wait and are judged now."""


class QueueFullError(Exception):
    """There is no room for the items.

    Args:
        retry_after: seconds after which there should be.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the queue is full; try again after {retry_after} s")
        self.retry_after = retry_after


@dataclass(slots=True, eq=False)
class _Job:
    interaction: Interaction
    plan: Plan
    accepted: float
    done: asyncio.Future[ModerationResult] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class MicroBatcher:
    """Collects items while the engine is busy, or for a moment when it is idle, and judges them together.

    Batches are formed in the order of arrival: the oldest item goes next, with those behind it that have the same plan.
    One batch runs at a time. All methods belong to one event loop.

    Args:
        judge: judges a batch.
        max_batch: items in a batch at most.
        max_wait: seconds that an idle engine waits for more items.
        capacity: items that may wait.
        patience: seconds that the work under way and waiting may take, as recent batches went; what would make it more
            is not accepted.
        observer: is told of batches and of the queue.
    """

    def __init__(
        self,
        judge: JudgeBatch,
        *,
        max_batch: int,
        max_wait: float,
        capacity: int,
        patience: float,
        observer: Observer,
    ) -> None:
        self._judge = judge
        self._max_batch = max_batch
        self._max_wait = max_wait
        self._capacity = capacity
        self._patience = patience
        self._observer = observer
        self._waiting: dict[int, _Job] = {}  # by number, so in order of arrival
        self._numbers = itertools.count()
        self._running = 0
        self._idle_since = 0.0
        self._arrived = asyncio.Event()
        self._seconds_per_item: dict[str, float] = {}  # by mode, as recent batches were
        self._free_at = 0.0  # when the running batch should be done
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="moderator-batch")
        self._worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to work. Needs a running event loop."""
        self._worker = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Ends the work; items that still wait are given up."""
        if self._worker is not None:
            self._worker.cancel()
            with suppress(asyncio.CancelledError):
                await self._worker
        for job in self._waiting.values():
            job.done.cancel()
        self._waiting.clear()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def submit(self, interactions: Sequence[Interaction], plan: Plan) -> list[ModerationResult]:
        """Results of the items, in order. All are accepted, or none.

        Cancelling takes those that still wait out of the queue.

        Raises:
            QueueFullError: there is no room.
            InputError: the plan does not fit the model.
        """
        now = asyncio.get_running_loop().time()
        late = self._seconds_left() + len(interactions) * self._seconds_of(plan) > self._patience
        # Where nothing waits an item is always accepted, or one slow batch could close the server for good.
        if len(self._waiting) + len(interactions) > self._capacity or (self._waiting and late):
            raise QueueFullError(self.retry_after())
        jobs = {next(self._numbers): _Job(interaction, plan, now) for interaction in interactions}
        self._waiting.update(jobs)
        self._arrived.set()
        self._report()
        try:
            return list(await asyncio.gather(*(job.done for job in jobs.values())))
        finally:
            for number in jobs:
                self._waiting.pop(number, None)
            self._report()

    def retry_after(self) -> int:
        """Seconds until what was accepted should be done, from 1 to 60."""
        return min(60, max(1, math.ceil(self._seconds_left())))

    def _seconds_left(self) -> float:
        running = max(0.0, self._free_at - asyncio.get_running_loop().time()) if self._running else 0.0
        return running + sum(self._seconds_of(job.plan) for job in self._waiting.values())

    def _seconds_of(self, plan: Plan) -> float:
        return self._seconds_per_item.get(plan.mode, 0.0)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._next_batch()
            started = loop.time()
            plan = batch[0].plan
            self._running = len(batch)
            self._free_at = started + len(batch) * self._seconds_of(plan)
            self._observer.on_batch(len(batch), [started - job.accepted for job in batch])
            self._report()
            items = [job.interaction for job in batch]
            try:
                results = await loop.run_in_executor(self._thread, self._judge, items, plan)
                for job, result in zip(batch, results, strict=True):
                    if not job.done.done():  # its request may have gone meanwhile
                        job.done.set_result(result)
            except Exception as exc:  # noqa: BLE001 - raised again in each request; the worker must live on
                for job in batch:
                    if not job.done.done():
                        job.done.set_exception(exc)
            self._running = 0
            self._idle_since = loop.time()
            self._report()
            seconds = (self._idle_since - started) / len(batch)
            before = self._seconds_per_item.get(plan.mode, seconds)
            self._seconds_per_item[plan.mode] = 0.7 * before + 0.3 * seconds  # recent batches count most

    async def _next_batch(self) -> list[_Job]:
        loop = asyncio.get_running_loop()
        while True:
            self._arrived.clear()
            batch = self._candidates()
            if not batch:
                await self._arrived.wait()
                continue
            # Counted from when the engine had nothing to do, so that clients which wait for one answer before they send
            # the next request meet again in one batch.
            since = max(next(iter(batch.values())).accepted, self._idle_since)
            left = since + self._max_wait - loop.time()
            if len(batch) == self._max_batch or left <= 0:
                for number in batch:
                    del self._waiting[number]
                return list(batch.values())
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), left)

    def _candidates(self) -> dict[int, _Job]:
        """The oldest item and those that can go with it."""
        if not self._waiting:
            return {}
        plan = next(iter(self._waiting.values())).plan
        same = ((number, job) for number, job in self._waiting.items() if job.plan == plan)
        return dict(itertools.islice(same, self._max_batch))

    def _report(self) -> None:
        self._observer.on_queue(len(self._waiting), self._running)
