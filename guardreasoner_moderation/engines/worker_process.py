"""The child's side of :class:`guardreasoner_moderation.engines.worker.WorkerEngine`: runs one engine for its parent.

Calls come on standard input and answers go to standard output, as pickles: both ends are this package's own processes,
on a pipe that nobody else can write to. When the pipe ends, however the parent ended, so does this process, at once.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any, TypeAlias

from guardreasoner_moderation.engines.base import Engine
from guardreasoner_moderation.errors import EngineError, ModerationError

Load: TypeAlias = Callable[[], tuple[Engine, Any]]
"""Starts an engine, and returns it with whatever else the parent should know. Both can be pickled but the engine."""

_CALLS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Call:
    """A method of the engine to call. ``streams``: texts are wanted as they are written."""

    number: int
    method: str
    arguments: Sequence[Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    streams: bool = False


@dataclass(frozen=True, slots=True)
class Cancel:
    """The texts of a call are not wanted any more."""

    number: int


@dataclass(frozen=True, slots=True)
class Started:
    """The engine runs. ``tokenizer``: a copy as JSON, where the engine gives one."""

    name: str
    context_tokens: int
    tokenizer: str | None
    about: Any


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text, as an engine hands it to ``on_text``."""

    number: int
    prompt: int
    piece: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call returned, or the error that it raised."""

    number: int
    result: Any = None
    error: Exception | None = None


class Pipe:
    """Messages to one process and from it. Many threads may send, one receives."""

    def __init__(self, incoming: IO[bytes], outgoing: IO[bytes]) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._sending = threading.Lock()

    def send(self, message: Any) -> None:
        """Raises OSError when the other side has gone."""
        content = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        with self._sending:
            if self._outgoing.closed:
                raise BrokenPipeError
            self._outgoing.write(content)
            self._outgoing.flush()

    def close(self) -> None:
        """Closes both ends that are here."""
        with self._sending, suppress(OSError):  # what could not be sent
            self._outgoing.close()
        self._incoming.close()

    def receive(self) -> Any:
        """The next message; None when the other side has gone, be it in the midst of one."""
        try:
            return pickle.load(self._incoming)  # noqa: S301 - see the head of this module
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):
            return None


class _CancelledError(Exception):
    """Raised inside the engine's callback, where it ends the generation."""


class _Runner:
    """Runs calls on an engine, as many at once as come."""

    def __init__(self, engine: Engine, pipe: Pipe) -> None:
        self._engine = engine
        self._pipe = pipe
        self._unwanted: dict[int, threading.Event] = {}  # by the number of a call that runs
        # A pool, not a thread for each call: libraries keep threads of their own for every thread that calls them.
        self._threads = ThreadPoolExecutor(_CALLS_AT_ONCE, thread_name_prefix="engine-call")

    def take(self, message: Call | Cancel) -> None:
        """Starts a call, or stops one."""
        if isinstance(message, Call):
            unwanted = self._unwanted[message.number] = threading.Event()
            self._threads.submit(self._run, message, unwanted)
        elif message.number in self._unwanted:
            self._unwanted[message.number].set()

    def _run(self, call: Call, unwanted: threading.Event) -> None:
        def on_text(prompt: int, piece: str) -> None:
            if unwanted.is_set():
                raise _CancelledError
            self._pipe.send(Text(call.number, prompt, piece))

        options = {**call.options, "on_text": on_text} if call.streams else call.options
        try:
            answer = Answer(call.number, getattr(self._engine, call.method)(*call.arguments, **options))
        except ModerationError as exc:
            answer = Answer(call.number, error=exc)
        except Exception as exc:  # noqa: BLE001 - its message may hold the text, and it may not be possible to pickle
            answer = Answer(call.number, error=EngineError(f"the engine failed ({type(exc).__name__})"))
        del self._unwanted[call.number]
        self._pipe.send(answer)


def main() -> None:
    """Loads what the first message says, and runs it until the parent has gone."""
    # A terminal's Ctrl-C and a supervisor's SIGTERM reach all processes; the parent knows when the work is done.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    pipe = Pipe(os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb"))
    # What libraries read and print must not meet the messages.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    load: Load = pipe.receive()
    runners: list[_Runner] = []

    def listen() -> None:
        while (message := pipe.receive()) is not None:
            runners[0].take(message)
        os._exit(0)  # whatever the engine is doing

    # Before anything is loaded, because the parent may go meanwhile.
    listening = threading.Thread(target=listen, name="engine-listener", daemon=True)
    listening.start()
    try:
        engine, about = load()
    except ModerationError as exc:
        pipe.send(exc)
        sys.exit(1)
    copy = getattr(engine, "tokenizer_json", None)
    runners.append(_Runner(engine, pipe))
    pipe.send(Started(engine.name, engine.context_tokens, None if copy is None else copy(), about))
    listening.join()
