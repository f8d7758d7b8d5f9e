"""Reasoning as it is written, without the headings and the answers around it."""

from __future__ import annotations

import atexit
import queue
import threading
from collections.abc import Callable, Iterator

from guardreasoner_moderation.results import ModerationResult

_PATIENCE = 30.0  # seconds that the end of the program waits for an engine to come to its next token


class AbandonedError(Exception):
    """Nobody listens any more. Raised inside an engine's callback, where it ends the generation."""


class ReasoningStream:
    """Hands on the steps of a growing text, piece by piece; a step ends with a line break.

    Args:
        put: takes each piece.
        check: called whenever the model has written something, shown or not; what it raises ends the generation.
    """

    def __init__(self, put: Callable[[str], None], check: Callable[[], None] | None = None) -> None:
        self._put = put
        self._check = check
        self._line = ""
        self._shown = False
        self._done = False

    def __call__(self, _: int, piece: str) -> None:
        """Takes the next piece of the text; the number of the prompt, always the same here, is not used."""
        if self._check is not None:
            self._check()
        for part in piece.splitlines(keepends=True):
            self._line += part
            whole = self._line.endswith("\n")
            start = self._line.lstrip()
            # Hold a line back until it is clear that it is no heading, rule or answer block.
            self._done = self._done or start.startswith(("---", "Answers:"))
            if not self._done and not start.startswith("#") and (self._shown or whole or len(start) > len("Answers:")):
                text = part if self._shown else self._line
                if text.strip() or self._shown:
                    self._put(text)
                    self._shown = True
            if whole:
                self._line, self._shown = "", False


def stream_from_thread(judge: Callable[[ReasoningStream], ModerationResult]) -> Iterator[str | ModerationResult]:
    """Lets ``judge`` run in a thread, and hands out the pieces of reasoning, then the result.

    Closing the generator stops the model at its next token. What ``judge`` raises is raised here.
    """
    events: queue.SimpleQueue[str | ModerationResult | BaseException] = queue.SimpleQueue()
    abandoned = threading.Event()

    def check() -> None:
        if abandoned.is_set():
            raise AbandonedError

    def work() -> None:
        try:
            events.put(judge(ReasoningStream(events.put, check)))
        except BaseException as exc:  # noqa: BLE001 - raised again in the caller's thread
            if not abandoned.is_set():  # else nobody takes it, and its traceback would hold the engine
                events.put(exc)
        finally:
            atexit.unregister(leave)

    def leave() -> None:
        abandoned.set()
        thread.join(_PATIENCE)

    thread = threading.Thread(target=work, name="moderator-stream", daemon=True)
    atexit.register(leave)  # an engine that is still writing must not be met by the interpreter's end
    thread.start()
    try:
        while True:
            event = events.get()
            if isinstance(event, BaseException):
                raise event
            yield event
            if isinstance(event, ModerationResult):
                return
    finally:
        abandoned.set()
