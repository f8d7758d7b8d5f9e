"""An engine in a process of its own, which is started again when it dies.

What kills an engine (a crash of native code, the system's out-of-memory killer) then costs the calls that were under
way, and a moment; not the process that serves.
"""

from __future__ import annotations

import atexit
import itertools
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from guardreasoner_moderation.engines.base import Generation, OnText, Sampling
from guardreasoner_moderation.engines.encoding import SpanEncoder
from guardreasoner_moderation.engines.worker_process import Answer, Call, Cancel, Load, Pipe, Started, Text
from guardreasoner_moderation.errors import EngineError, ModerationError
from guardreasoner_moderation.prompts import Prompt

Told: TypeAlias = Callable[[str | None], None]
"""Is told why the engine does not run, or None when it runs again."""

_PATIENCE = 15.0  # seconds that a call waits for an engine that is being started again
_PAUSES = (0.0, 1.0, 2.0, 4.0, 8.0)  # seconds before each new start of an engine that dies again and again
_HEALTHY = 30.0  # seconds of life after which a death counts as the first
_ENDING = 5.0  # seconds that a process whose pipe has ended may take to end too


class WorkerEngine:
    """Any engine, in a child process. Safe to call from several threads; the calls run there side by side.

    A call that is under way when the process dies raises EngineError. One that comes while the process is being started
    again waits for it.
    """

    def __init__(self, load: Load) -> None:
        """Starts the process, and waits until it has loaded the engine.

        Args:
            load: is called in that process; it must be possible to pickle it. What it returns beside the engine is
                :attr:`about`, and must be the same at every start.

        Raises:
            ModerationError: what ``load`` raised.
            EngineError: the process died meanwhile.
        """
        from tokenizers import Tokenizer

        self._load = load
        self._changed = threading.Condition()
        self._calls: dict[int, queue.SimpleQueue[Text | Answer]] = {}
        self._numbers = itertools.count()
        self._told: Told = lambda _: None
        self._closed = False
        self._running: _Process | None = None  # takes calls
        self._newest = _Process(load)
        try:
            started = self._newest.started()
        except BaseException:
            self._newest.end(at_once=True)
            raise
        self._running = self._newest
        self.name = started.name
        self.context_tokens = started.context_tokens
        self.about = started.about
        # Texts are cut into windows here: that costs no messages, and goes on while there is no process.
        self._encoder = None if started.tokenizer is None else SpanEncoder(Tokenizer.from_str(started.tokenizer))
        self._keeper = threading.Thread(target=self._keep, name="engine-keeper", daemon=True)
        self._keeper.start()
        atexit.register(self.close)  # a thread that reads a pipe must not be met by the interpreter's end

    def watch(self, told: Told) -> None:
        """Lets ``told`` know of every death, every start that failed, and every new start; in another thread."""
        self._told = told

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        slots: Mapping[str, Sequence[str]] | None = None,
        last_words: Sequence[Mapping[str, Sequence[str]]] | None = None,
        sampling: Sampling | None = None,
        on_text: OnText | None = None,
    ) -> list[Generation]:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.generate`."""
        options: dict[str, Any] = {
            "max_new_tokens": max_new_tokens,
            "stop": stop,
            "slots": slots,
            "last_words": last_words,
            "sampling": sampling,
        }
        generations: list[Generation] = self._call("generate", prompts, on_text=on_text, **options)
        return generations

    def score(self, prompts: Sequence[Prompt], words: Sequence[Sequence[str]]) -> list[dict[str, float]]:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.score`."""
        scores: list[dict[str, float]] = self._call("score", prompts, words)
        return scores

    def encode(self, text: str) -> list[tuple[int, int]]:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.encode`."""
        places: list[tuple[int, int]] = (
            self._call("encode", text) if self._encoder is None else self._encoder.offsets(text)
        )
        return places

    def count_tokens(self, prompt: Prompt) -> int:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.count_tokens`."""
        count: int = self._call("count_tokens", prompt)
        return count

    def chat_template(self, messages: list[dict[str, str]]) -> str:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.chat_template`."""
        text: str = self._call("chat_template", messages)
        return text

    def close(self) -> None:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.close`. Ends the process."""
        with self._changed:
            self._closed = True
            self._newest.kill()
            self._changed.notify_all()
        self._keeper.join()
        atexit.unregister(self.close)

    def _call(self, method: str, *arguments: Any, on_text: OnText | None = None, **options: Any) -> Any:
        number = next(self._numbers)
        events: queue.SimpleQueue[Text | Answer] = queue.SimpleQueue()
        with self._changed:
            self._changed.wait_for(lambda: self._running is not None or self._closed, _PATIENCE)
            if self._closed:
                raise EngineError("this engine is closed")
            if self._running is None:
                raise EngineError("the engine's process has died and does not run again yet")
            process = self._running
            self._calls[number] = events
        unheard: BaseException | None = None
        try:
            with suppress(OSError):  # when the process has died, that is among the events
                process.pipe.send(Call(number, method, arguments, options, streams=on_text is not None))
            while isinstance(event := events.get(), Text):
                try:
                    if on_text is not None and unheard is None:
                        on_text(event.prompt, event.piece)
                except BaseException as exc:  # noqa: BLE001 - raised again below, when the engine has stopped
                    unheard = exc
                    with suppress(OSError):
                        process.pipe.send(Cancel(number))
        finally:
            del self._calls[number]
        if unheard is not None:
            raise unheard
        if event.error is not None:
            raise event.error
        return event.result

    def _keep(self) -> None:
        """Hands out what the process says, and starts it again when it dies, until the engine is closed."""
        deaths = 0  # in a row
        while True:
            started = time.monotonic()
            self._hand_out()
            trouble = f"the engine's process {self._newest.end()}"
            if time.monotonic() - started > _HEALTHY:
                deaths = 0
            while trouble:
                if not self._pause(trouble, _PAUSES[min(deaths, len(_PAUSES) - 1)]):
                    return
                deaths += 1
                trouble = self._start_again()

    def _hand_out(self) -> None:
        """Until there is nothing more to come."""
        while (message := self._newest.pipe.receive()) is not None:
            events = self._calls.get(message.number)
            if events is not None:  # its caller may have been interrupted
                events.put(message)

    def _pause(self, trouble: str, seconds: float) -> bool:
        """Takes the process out of use, and waits; False when it is not wanted any more."""
        with self._changed:
            self._running = None
            why = "this engine is closed" if self._closed else trouble
            for number, events in list(self._calls.items()):  # those that are told go out of it meanwhile
                events.put(Answer(number, error=EngineError(why)))
        if not self._closed:
            self._told(trouble)
        with self._changed:
            return not self._changed.wait_for(lambda: self._closed, seconds)

    def _start_again(self) -> str:
        """Why that failed; empty if it did not."""
        try:
            with self._changed:
                if self._closed:
                    return "this engine is closed"
                self._newest = process = _Process(self._load)
            if process.started().about != self.about:
                raise EngineError("the model's files have changed; end the server and start it again")
        except (ModerationError, OSError) as exc:
            self._newest.end(at_once=True)
            return f"the engine does not start again: {exc}"
        with self._changed:
            self._running = process
            self._changed.notify_all()
        self._told(None)
        return ""


class _Process:
    """One child process."""

    def __init__(self, load: Load) -> None:
        # The same packages as here, wherever this process has found them.
        code = f"import sys; sys.path[:] = {sys.path!r}; from {Pipe.__module__} import main; main()"
        self._child = subprocess.Popen(
            [sys.executable, "-c", code, "guardreasoner-engine"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a terminal's signals are for the parent
        )
        assert self._child.stdin is not None  # noqa: S101 - for the type checker
        assert self._child.stdout is not None  # noqa: S101
        self.pipe = Pipe(self._child.stdout, self._child.stdin)
        with suppress(OSError):  # when it has died already, started() tells
            self.pipe.send(load)

    def started(self) -> Started:
        """Waits for the engine.

        Raises:
            ModerationError: what loading it raised.
            EngineError: the process died.
        """
        message = self.pipe.receive()
        if message is None:
            raise EngineError(f"the engine's process {self.end()} while it loaded the model")
        if isinstance(message, ModerationError):
            raise message
        found: Started = message
        return found

    def kill(self) -> None:
        """Kills the process, if it still runs. Its engine has nothing to lose."""
        self._child.kill()

    def end(self, *, at_once: bool = False) -> str:
        """Waits for the end of a process whose pipe has ended, or kills it; returns how it ended, as a predicate."""
        try:
            if at_once:
                self.kill()
            self._child.wait(_ENDING)
        except subprocess.TimeoutExpired:
            self.kill()
            self._child.wait()
        self.pipe.close()
        code = self._child.returncode
        if code >= 0:
            return f"ended with exit code {code}"
        hint = " (the system does that when memory runs out)" if code == -9 else ""
        return f"was killed by signal {-code}{hint}"
