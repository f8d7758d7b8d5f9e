"""Every setting of the server, in one place."""

from __future__ import annotations

from dataclasses import dataclass, field

from guardreasoner_moderation.checks import encodable, finite_number, known_word, whole_number
from guardreasoner_moderation.errors import InputError, shown
from guardreasoner_moderation.results import Mode

_WHOLE = ("max_batch", "queue_size", "max_streams", "max_items", "max_text_chars", "keep_alive")
_POSITIVE = ("timeout", "read_timeout", "max_body_mb")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Limits and defaults of a server.

    Attributes:
        host, port: where it listens; port 0 takes a free one.
        mode: how requests are judged that do not ask for a mode.
        max_batch: how many items go to the engine together at most.
        max_wait_ms: how long, in milliseconds, an engine with nothing to do waits for more items before it starts.
        queue_size: how many items may wait for the engine; what does not fit is answered with 429.
        queue_seconds: how many seconds the work that is under way and that waits may take, as recent batches went; what
            would take longer is answered with 429. It bounds the wait behind an overload. None: half of ``timeout``, so
            that what is accepted is done in time even if it takes twice as long as was expected.
        max_streams: how many requests with ``stream: true`` may run at once.
        timeout: seconds that a request may take before it is answered with 504; also the time that a shutdown gives
            to what was accepted.
        read_timeout: seconds that a client may take to send the head of a request, then its body, and to read when much
            waits for it; beyond it the connection is closed.
        keep_alive: whole seconds that a connection is kept after an answer. It should be longer than clients and load
            balancers keep theirs (60 is usual): a request that is sent on a connection just as it is closed is lost.
        max_body_mb: size of a request's body, in MiB.
        max_items: how many items one request may hold.
        max_text_chars: how long one item may be, in characters, all of its texts together.
        api_key: what clients must send; None lets everyone in.
        allow_images: let images of a LiteLLM call pass unjudged, instead of blocking the call.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    mode: str = "think"
    max_batch: int = 32
    max_wait_ms: float = 5.0
    queue_size: int = 256
    queue_seconds: float | None = None
    max_streams: int = 4
    timeout: float = 60.0
    read_timeout: float = 20.0
    keep_alive: int = 75
    max_body_mb: float = 1.0
    max_items: int = 64
    max_text_chars: int = 50_000
    api_key: str | None = field(default=None, repr=False)
    allow_images: bool = False

    def __post_init__(self) -> None:
        known_word("mode", self.mode, Mode)
        for name in _WHOLE:
            whole_number(name, getattr(self, name))
        for name in _POSITIVE:
            if finite_number(name, getattr(self, name)) <= 0:
                raise InputError(f"{name} must be above 0, found {shown(getattr(self, name))}")
        if not 0 < finite_number("queue_seconds", self.patience) <= self.timeout:
            raise InputError(
                f"queue_seconds must be above 0 and at most timeout ({self.timeout:g}), found {shown(self.patience)}"
            )
        if not 0 <= finite_number("max_wait_ms", self.max_wait_ms) <= 10_000:
            raise InputError(f"max_wait_ms must be from 0 to 10000, found {shown(self.max_wait_ms)}")
        whole_number("port", self.port, least=0, most=65_535)
        if self.max_items > self.queue_size:
            raise InputError(
                f"max_items ({self.max_items}) is more than queue_size ({self.queue_size}): "
                "a request of that many items could never be accepted"
            )
        if self.api_key is not None:
            self._check_key(self.api_key)

    @staticmethod
    def _check_key(key: object) -> None:
        """Never shows the key."""
        if not isinstance(key, str) or not encodable(key):
            raise InputError("the API key is not text")
        if not key.strip():
            raise InputError("the API key is empty; leave it out to let everyone in")

    @property
    def patience(self) -> float:
        """Seconds within which an item must be expected to be done to be accepted."""
        return self.timeout / 2 if self.queue_seconds is None else self.queue_seconds

    @property
    def max_body_bytes(self) -> int:
        """Size of a request's body, in bytes."""
        return int(self.max_body_mb * 2**20)

    @property
    def max_in_flight(self) -> int:
        """How many requests can be under way: each has an item that waits, is judged or streams."""
        return self.queue_size + self.max_batch + self.max_streams
