"""Between HTTP and the moderator: accepts, waits, counts, and turns failures into answers that keep texts blocked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from guardreasoner_moderation.engines.worker import WorkerEngine
from guardreasoner_moderation.errors import InputError, ModerationError
from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.moderator import Moderator
from guardreasoner_moderation.results import Mode, ModerationResult
from guardreasoner_moderation.server.metrics import Metrics
from guardreasoner_moderation.server.microbatch import MicroBatcher, Plan, QueueFullError
from guardreasoner_moderation.server.problems import Problem
from guardreasoner_moderation.server.settings import ServerSettings
from guardreasoner_moderation.server.streams import Stream, StreamPool, event

_log = logging.getLogger("guardreasoner_moderation.server")
_WARM_UP_AGAIN = 5.0  # seconds after a warm-up that failed


class Service:
    """One moderator, shared by all requests. :meth:`start` and :meth:`stop` belong to the event loop that serves."""

    def __init__(self, guard: Moderator, settings: ServerSettings, metrics: Metrics) -> None:
        self._guard = guard
        self._settings = settings
        self._metrics = metrics
        self._batcher = MicroBatcher(
            self._judge_batch,
            max_batch=settings.max_batch,
            max_wait=settings.max_wait_ms / 1000,
            capacity=settings.queue_size,
            patience=settings.patience,
            observer=metrics,
        )
        self._streams = StreamPool(guard, settings.max_streams, metrics.on_streams)
        # Beside the queue: after a death of the engine that may be full, and all in it wait for the warm-up.
        self._warm_thread = ThreadPoolExecutor(1, thread_name_prefix="moderator-warm-up")
        self._warming: asyncio.Task[None] | None = None
        self._trouble: str | None = None  # why the engine does not run
        self._stopping = False
        self.ready = False

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._guard.model.name

    async def start(self) -> None:
        """Begins to work, and warms the model up in the background."""
        self._batcher.start()
        self._warming = asyncio.create_task(self._warm_up())
        engine = self._guard.model.engine
        if isinstance(engine, WorkerEngine):
            loop = asyncio.get_running_loop()

            def told(trouble: str | None) -> None:
                with suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(self._on_engine, trouble)

            engine.watch(told)

    async def stop(self) -> None:
        """Ends the work. The HTTP server has waited for what was accepted."""
        self.ready = False
        self._stopping = True
        if self._warming is not None:
            self._warming.cancel()
            with suppress(asyncio.CancelledError):
                await self._warming
        self._warm_thread.shutdown(wait=False, cancel_futures=True)
        self._streams.close()
        await self._batcher.stop()

    async def judge(
        self, interactions: Sequence[Interaction], plan: Plan, gone: Callable[[], Coroutine[Any, Any, None]]
    ) -> list[ModerationResult]:
        """Results of the items of one request, in order. An item that could not be judged is flagged.

        Args:
            interactions: the items.
            plan: how they are judged.
            gone: ends when the client has gone; then the items leave the queue.

        Raises:
            Problem: 422, 429, 499 (the client has gone), 503 or 504.
        """
        self.refuse_unless_ready()
        loop = asyncio.get_running_loop()
        started = loop.time()
        work = asyncio.ensure_future(self._batcher.submit(interactions, plan))
        leaving = asyncio.ensure_future(gone())
        try:
            await asyncio.wait({work, leaving}, timeout=self._settings.timeout, return_when=asyncio.FIRST_COMPLETED)
            if work.cancelled():
                raise self._not_ready()  # the server has stopped
            if work.done():
                results = work.result()
            elif leaving.done():
                raise Problem(499, "client_gone", "the client has gone")
            else:
                raise self._timed_out()
        except QueueFullError as exc:
            self._metrics.on_rejected("queue_full")
            raise Problem(429, "queue_full", "the queue is full; try again later", retry_after=exc.retry_after) from exc
        except InputError as exc:
            raise Problem(422, "invalid_value", str(exc)) from exc
        finally:
            work.cancel()
            leaving.cancel()
        self._metrics.on_results(plan.mode, loop.time() - started, results)
        return results

    def open_stream(self, interaction: Interaction, plan: Plan) -> AsyncIterator[str]:
        """Judges one item, and returns its server-sent events: ``reasoning`` pieces, then ``result`` or ``error``.

        Raises:
            Problem: 429 or 503; later troubles are the last event.
        """
        self.refuse_unless_ready()
        stream = self._streams.open(interaction, plan)
        if stream is None:
            self._metrics.on_rejected("streams_full")
            raise Problem(
                429,
                "too_many_streams",
                "all streams are taken; try again later",
                retry_after=self._batcher.retry_after(),
            )
        return self._events(stream, plan)

    async def _events(self, stream: Stream, plan: Plan) -> AsyncIterator[str]:
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async for piece in stream.events(self._settings.timeout):
                if isinstance(piece, str):
                    yield event("reasoning", {"text": piece})
                    continue
                self._metrics.on_results(plan.mode, loop.time() - started, [piece])
                yield event("result", piece.to_dict())
        except asyncio.TimeoutError:
            yield event("error", self._timed_out().body())
        except Exception as exc:  # noqa: BLE001 - the text stays blocked, whatever went wrong
            result = self._unjudged(exc, plan)
            self._metrics.on_results(plan.mode, loop.time() - started, [result])
            yield event("result", result.to_dict())
        finally:
            stream.abandon()

    def refuse_unless_ready(self) -> None:
        """Raises a Problem, 503, before the warm-up, while the engine is started again, and after the end."""
        if not self.ready:
            raise self._not_ready()

    def _judge_batch(self, interactions: Sequence[Interaction], plan: Plan) -> list[ModerationResult]:
        try:
            return self._guard.classify_batch(interactions, on_error="block", **plan.settings())
        except InputError:
            raise
        except Exception as exc:  # noqa: BLE001 - the texts stay blocked, whatever went wrong
            return [self._unjudged(exc, plan)] * len(interactions)

    def _unjudged(self, exc: Exception, plan: Plan) -> ModerationResult:
        # Only our own messages are known to hold nothing of the text.
        reason = str(exc) if isinstance(exc, ModerationError) else f"the engine failed ({type(exc).__name__})"
        _log.error("not judged: %s", reason)
        return ModerationResult(flagged=True, request=None, mode=Mode(plan.mode), model=self.model, error=reason)

    def _not_ready(self) -> Problem:
        self._metrics.on_rejected("not_ready")
        why = "the server is starting or stopping" if self._trouble is None else self._trouble
        return Problem(503, "not_ready", f"{why}; try again later", retry_after=1)

    def _timed_out(self) -> Problem:
        self._metrics.on_error("timeout")
        return Problem(504, "timeout", f"not judged within {self._settings.timeout:g} s; treat the text as unsafe")

    def _on_engine(self, trouble: str | None) -> None:
        """The engine's process has died, could not be started again, or runs again."""
        if self._stopping:
            return
        self._trouble = trouble
        if trouble is None:
            _log.info("the engine's process runs again")
            self._metrics.on_restart()
            self._warming = asyncio.create_task(self._warm_up())
            return
        _log.error("%s; it will be started again", trouble)
        self.ready = False
        self._metrics.on_ready(False)
        if self._warming is not None:
            self._warming.cancel()

    async def _warm_up(self) -> None:
        plan = Plan(self._settings.mode)
        loop = asyncio.get_running_loop()
        while True:
            try:
                (result,) = await loop.run_in_executor(
                    self._warm_thread, self._judge_batch, [Interaction("Hello.")], plan
                )
            except InputError as exc:
                reason: str | None = str(exc)
            else:
                reason = result.error
            if reason is None:
                self.ready = True
                self._metrics.on_ready(True)
                _log.info("ready")
                return
            _log.error("the warm-up failed, trying again: %s", reason)
            await asyncio.sleep(_WARM_UP_AGAIN)
