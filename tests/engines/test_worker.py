"""An engine in a real child process: a scripted one, which does what the tests tell it to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from engine_processes import engine_processes

from guardreasoner_moderation.engines import worker
from guardreasoner_moderation.engines.base import Engine, Sampling
from guardreasoner_moderation.engines.scripted import ScriptedEngine
from guardreasoner_moderation.engines.worker import WorkerEngine
from guardreasoner_moderation.errors import EngineError, InputError, MissingDependencyError, ModelNotFoundError
from guardreasoner_moderation.prompts import Prompt, Span

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills processes with signals")

SLOTS = {"Request:": ("harmful", "unharmful")}


def reply(prompt: Prompt) -> str:
    """What the engine in the child writes, or does."""
    text = prompt.text
    if "loud" in text:
        print("this goes to standard output")
        os.write(1, b"and so does this")
    if "unlucky" in text:
        raise EngineError("out of memory")
    if "broken" in text:
        raise RuntimeError(f"a bug, seen with {text}")
    if "deadly" in text:
        os._exit(7)
    if "slow" in text:
        time.sleep(20)
    if "meeting" in text:
        MEETING.wait()
    if "long" in text:
        return " word" * 5000
    return " harmful" if "bomb" in text else " unharmful"


MEETING = threading.Barrier(2, timeout=20)


def load() -> tuple[Engine, Any]:
    return ScriptedEngine(reply), {"weights": "c1977e"}


def load_or_raise(error: Exception) -> tuple[Engine, Any]:
    raise error


def load_and_die() -> tuple[Engine, Any]:
    os._exit(3)


def load_unless(file: Path) -> tuple[Engine, Any]:
    """Fails while there is a file; what it holds is told of the engine."""
    if file.exists() and not file.read_text():
        raise ModelNotFoundError("there is no model")
    return ScriptedEngine(reply), file.read_text() if file.exists() else ""


@contextmanager
def running(loading: Callable[[], tuple[Engine, Any]] = load) -> Iterator[WorkerEngine]:
    engine = WorkerEngine(loading)
    try:
        yield engine
    finally:
        engine.close()


@pytest.fixture(scope="module")
def engine() -> Iterator[WorkerEngine]:
    with running() as one:
        yield one


def ask(text: str) -> Prompt:
    return Prompt((Span("Human user:\n"), Span(text, trusted=False), Span("\nAnswers:\nRequest:")))


def child() -> psutil.Process:
    """The engine's process that was started last."""
    return engine_processes()[-1]


def wait_until(true: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def test_it_answers_as_the_engine_does_in_this_process(engine: WorkerEngine) -> None:
    here = ScriptedEngine(reply)
    assert isinstance(engine, Engine)
    assert (engine.name, engine.context_tokens, engine.about) == (here.name, here.context_tokens, {"weights": "c1977e"})
    prompts = [ask("a bomb"), ask("a cake"), ask("half a pair \ud800, a zero \0")]
    options: dict[str, Any] = {"max_new_tokens": 5, "slots": SLOTS, "stop": ("x",), "sampling": Sampling(seed=3)}
    options["last_words"] = [SLOTS] * 3
    assert engine.generate(prompts, **options) == here.generate(prompts, **options)
    words = [("harmful", "unharmful")] * 3
    assert engine.score(prompts, words) == here.score(prompts, words)
    assert engine.encode("two words") == here.encode("two words")
    assert engine.count_tokens(prompts[0]) == here.count_tokens(prompts[0])
    messages = [{"role": "user", "content": "x"}]
    assert engine.chat_template(messages) == here.chat_template(messages)


def test_its_errors_are_raised_here_and_tell_nothing_of_the_text(engine: WorkerEngine) -> None:
    with pytest.raises(EngineError, match=r"^out of memory$"):
        engine.generate([ask("unlucky")], max_new_tokens=5)
    with pytest.raises(EngineError, match=r"^the engine failed \(RuntimeError\)$"):
        engine.generate([ask("broken")], max_new_tokens=5)


def test_what_the_engine_prints_is_no_answer(engine: WorkerEngine) -> None:
    assert engine.generate([ask("loud")], max_new_tokens=5)[0].text == " unharmful"


def test_texts_come_as_they_are_written(engine: WorkerEngine) -> None:
    pieces: list[tuple[int, str]] = []
    texts = engine.generate([ask("a bomb"), ask("long")], max_new_tokens=50, on_text=lambda *one: pieces.append(one))
    assert pieces == [(0, " harmful"), *[(1, " word")] * 50]
    assert [one.text for one in texts] == [" harmful", " word" * 50]


def test_what_a_listener_raises_stops_the_model_and_is_raised_here(engine: WorkerEngine) -> None:
    def enough(*_: Any) -> None:
        raise KeyError("enough")

    started = time.monotonic()
    with pytest.raises(KeyError, match="enough"):
        engine.generate([ask("long")] * 200, max_new_tokens=5000, on_text=enough)
    assert time.monotonic() - started < 5  # a million pieces would take a minute


def test_calls_run_side_by_side(engine: WorkerEngine) -> None:
    """Each waits in the child until the other has come."""
    other = threading.Thread(target=engine.generate, args=([ask("meeting")],), kwargs={"max_new_tokens": 5})
    other.start()
    assert engine.generate([ask("meeting")], max_new_tokens=5)[0].text == " unharmful"
    other.join()


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_to_all_processes_leave_the_engine_to_its_parent(kind: signal.Signals) -> None:
    with running() as engine:
        child().send_signal(kind)
        assert engine.generate([ask("a bomb")], max_new_tokens=5)[0].text == " harmful"


def slow_calls(engine: WorkerEngine, count: int) -> tuple[list[threading.Thread], list[EngineError]]:
    """Calls under way, and the errors with which they will have ended."""
    caught: list[EngineError] = []

    def call() -> None:
        try:
            engine.generate([ask("slow")], max_new_tokens=5)
        except EngineError as exc:
            caught.append(exc)

    threads = [threading.Thread(target=call) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, caught


def test_a_death_is_an_error_of_the_calls_under_way_and_the_next_ones_wait_for_the_new_process() -> None:
    told: list[str | None] = []
    with running() as engine:
        engine.watch(told.append)
        first = child()
        threads, caught = slow_calls(engine, 3)
        time.sleep(0.3)
        first.kill()
        wait_until(lambda: len(told) > 0)
        assert engine.generate([ask("a bomb")], max_new_tokens=5)[0].text == " harmful"
        for thread in threads:
            thread.join(5)
        trouble = "the engine's process was killed by signal 9 (the system does that when memory runs out)"
        assert [str(exc) for exc in caught] == [trouble] * 3
        assert told == [trouble, None]
        assert child().pid != first.pid


def test_a_stream_ends_with_the_error_of_the_death() -> None:
    with running() as engine:
        pieces: list[str] = []

        def listen(_: int, piece: str) -> None:
            if not pieces:
                child().kill()
            pieces.append(piece)

        with pytest.raises(EngineError, match="was killed by signal 9"):
            engine.generate([ask("long")] * 500, max_new_tokens=5000, on_text=listen)
        assert pieces


def test_an_exit_is_told_with_its_code() -> None:
    with running() as engine, pytest.raises(EngineError, match="the engine's process ended with exit code 7"):
        engine.generate([ask("deadly")], max_new_tokens=5)


def test_a_text_that_kills_again_and_again_slows_the_starts_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_PAUSES", (0.0, 0.0, 3.0))
    with running() as engine:
        for _ in range(3):
            with pytest.raises(EngineError, match="exit code 7"):
                engine.generate([ask("deadly")], max_new_tokens=5)
        started = time.monotonic()
        assert engine.generate([ask("a bomb")], max_new_tokens=5)[0].text == " harmful"
        assert time.monotonic() - started > 2.5


def test_a_start_that_fails_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_PAUSES", (0.0, 0.1))
    monkeypatch.setattr(worker, "_PATIENCE", 0.5)
    missing = tmp_path / "missing"
    told: list[str | None] = []
    with running(partial(load_unless, missing)) as engine:
        engine.watch(told.append)
        missing.touch()
        child().kill()
        wait_until(lambda: len(told) > 2)
        assert told[1] == "the engine does not start again: there is no model"
        with pytest.raises(EngineError, match="has died and does not run again yet"):
            engine.generate([ask("a bomb")], max_new_tokens=5)
        missing.unlink()
        wait_until(lambda: told[-1] is None)
        assert engine.generate([ask("a bomb")], max_new_tokens=5)[0].text == " harmful"


def test_another_model_in_its_place_is_refused(tmp_path: Path) -> None:
    facts = tmp_path / "facts"
    told: list[str | None] = []
    with running(partial(load_unless, facts)) as engine:
        engine.watch(told.append)
        facts.write_text("other weights")
        child().kill()
        wait_until(lambda: len(told) > 1)
        assert told[1] is not None
        assert "the model's files have changed" in told[1]


@pytest.mark.parametrize(
    "error",
    [ModelNotFoundError("there is no model"), InputError("no such mode"), MissingDependencyError("this", "that")],
)
def test_an_error_of_loading_is_raised_as_it_is(error: Exception) -> None:
    before = engine_processes()
    with pytest.raises(type(error)) as caught:
        WorkerEngine(partial(load_or_raise, error))
    assert str(caught.value) == str(error)
    assert engine_processes() == before


def test_a_death_while_loading_is_an_error() -> None:
    with pytest.raises(EngineError, match="the engine's process ended with exit code 3 while it loaded the model"):
        WorkerEngine(load_and_die)


def test_closing_ends_the_process_and_the_calls() -> None:
    engine = WorkerEngine(load)
    process = child()
    (thread,), caught = slow_calls(engine, 1)
    time.sleep(0.2)
    engine.close()
    thread.join(5)
    assert not process.is_running()
    engine.close()
    with pytest.raises(EngineError, match="this engine is closed"):
        engine.score([ask("a bomb")], [("a", "b")])
    assert [str(exc) for exc in caught] == ["this engine is closed"]


def test_closing_while_the_process_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_PAUSES", (0.0, 60.0))
    missing = tmp_path / "missing"
    told: list[str | None] = []
    engine = WorkerEngine(partial(load_unless, missing))
    engine.watch(told.append)
    missing.touch()
    child().kill()
    wait_until(lambda: len(told) > 1)  # it waits a minute for the next start
    started = time.monotonic()
    engine.close()
    assert time.monotonic() - started < 5


def test_deaths_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_PAUSES", (0.0,))
    with running() as engine:
        here = psutil.Process()

        def die() -> None:
            with pytest.raises(EngineError):
                engine.generate([ask("deadly")], max_new_tokens=5)
            engine.score([ask("a bomb")], [("a", "b")])

        die()
        before = (here.num_fds(), here.num_threads(), len(engine_processes()))
        for _ in range(3):
            die()
        assert (here.num_fds(), here.num_threads(), len(engine_processes())) == before


PARENT = """
import sys, threading
import test_worker
from guardreasoner_moderation.engines.worker import WorkerEngine
engine = WorkerEngine(test_worker.load)
print("started", flush=True)
if sys.argv[1] == "busy":
    engine.generate([test_worker.ask("slow")], max_new_tokens=5)
if sys.argv[1] == "waiting":
    sys.stdin.read()
"""


@pytest.mark.parametrize("state", ["waiting", "busy"])
def test_the_process_ends_with_its_parent_even_if_that_is_killed(state: str) -> None:
    command = [sys.executable, "-c", PARENT, state]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"started\n"
        (orphan,) = psutil.Process(parent.pid).children()
        time.sleep(0.3)
        parent.kill()
        parent.wait()
        wait_until(lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE, 5)


def test_a_script_that_does_not_close_it_ends_in_good_order() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-W", "error", "-c", PARENT, "ends"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
