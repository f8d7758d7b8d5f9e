"""What Prometheus reads from ``/metrics``. No label holds a text, and every label has few values."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from guardreasoner_moderation.results import Category, ModerationResult

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "guardreasoner_requests", "Requests by path and status.", ["path", "status"], registry=registry
        )
        self._rejected = Counter(
            "guardreasoner_rejected", "Requests that were not accepted, by reason.", ["reason"], registry=registry
        )
        self._errors = Counter(
            "guardreasoner_errors", "What went wrong: item, timeout, internal.", ["kind"], registry=registry
        )
        self._latency = Histogram(
            "guardreasoner_judgement_seconds",
            "From the acceptance of a request to its results, by the mode it asked for.",
            ["mode"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._waited = Histogram(
            "guardreasoner_queue_seconds", "Wait of an item in the queue.", buckets=_SECONDS, registry=registry
        )
        self._batches = Histogram(
            "guardreasoner_batch_items", "Items of an engine batch.", buckets=_ITEMS, registry=registry
        )
        self._waiting = Gauge("guardreasoner_queue_items", "Items that wait.", registry=registry)
        self._running = Gauge("guardreasoner_running_items", "Items that are judged now.", registry=registry)
        self._streams = Gauge("guardreasoner_streams", "Streams that run now.", registry=registry)
        self._ready = Gauge("guardreasoner_ready", "1 after the warm-up inference.", registry=registry)
        self._restarts = Counter(
            "guardreasoner_engine_restarts", "New starts of the engine's process after it died.", registry=registry
        )
        self._items = Counter("guardreasoner_items", "Judged items, by mode.", ["mode"], registry=registry)
        self._flagged = Counter(
            "guardreasoner_flagged", "Flagged items, by category (none, custom).", ["category"], registry=registry
        )

    def on_request(self, path: str, status: int) -> None:
        """A request was answered."""
        self._requests.labels(path, str(status)).inc()

    def on_rejected(self, reason: str) -> None:
        """A request was turned away."""
        self._rejected.labels(reason).inc()

    def on_error(self, kind: str) -> None:
        """An item, a request or the server failed."""
        self._errors.labels(kind).inc()

    def on_results(self, mode: str, seconds: float, results: Sequence[ModerationResult]) -> None:
        """A request has its results."""
        self._latency.labels(mode).observe(seconds)
        for result in results:
            self._items.labels(result.mode.value).inc()
            if result.error is not None:
                self._errors.labels("item").inc()
            if result.flagged:
                category = result.category
                word = "none" if category is None else category if isinstance(category, Category) else "custom"
                self._flagged.labels(str(word)).inc()

    def on_batch(self, items: int, waited: Sequence[float]) -> None:
        """An engine batch starts."""
        self._batches.observe(items)
        for seconds in waited:
            self._waited.observe(seconds)

    def on_queue(self, waiting: int, running: int) -> None:
        """The queue has changed."""
        self._waiting.set(waiting)
        self._running.set(running)

    def on_streams(self, running: int) -> None:
        """A stream has begun or ended."""
        self._streams.set(running)

    def on_ready(self, ready: bool) -> None:
        """The warm-up inference has succeeded, or the engine has died."""
        self._ready.set(ready)

    def on_restart(self) -> None:
        """The engine's process was started again."""
        self._restarts.inc()

    def exposition(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)
