"""How threads of OpenMP wait: the settings, and that the library that takes them is the one that CTranslate2 brings."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from guardreasoner_moderation.engines.openmp import brief_spinning, uncounted

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="other systems have another OpenMP")

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@linux_only
def test_the_settings_stand_in_the_environment_only_while_a_library_is_loaded() -> None:
    with brief_spinning():
        assert (os.environ["OMP_WAIT_POLICY"], os.environ["GOMP_SPINCOUNT"]) == ("active", "300000")
    assert not set(NAMES) & set(os.environ)


@linux_only
def test_they_are_taken_back_where_the_library_cannot_be_loaded() -> None:
    with pytest.raises(ImportError, match="no such library"), brief_spinning():
        raise ImportError("no such library")
    assert not set(NAMES) & set(os.environ)


@pytest.mark.parametrize("name", NAMES)
def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "7")
    with brief_spinning():
        assert {key: os.environ[key] for key in NAMES if key in os.environ} == {name: "7"}
    assert os.environ[name] == "7"


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with brief_spinning():
        assert not set(NAMES) & set(os.environ)


@linux_only
def test_the_engine_loads_ctranslate2_with_them() -> None:
    # OMP_DISPLAY_ENV lets a runtime say what it has read; PyTorch would bring another.
    code = "import sys; sys.modules['torch'] = None;from guardreasoner_moderation import Moderator; Moderator().close()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "OMP_WAIT_POLICY = 'ACTIVE'" in done.stderr
    assert "GOMP_SPINCOUNT = '300000'" in done.stderr


def test_work_is_done_by_a_thread_that_has_ended() -> None:
    worker = uncounted(threading.current_thread)
    assert worker is not threading.current_thread()
    assert not worker.is_alive()


def test_what_it_raises_reaches_the_caller() -> None:
    def fail() -> None:
        raise RuntimeError("no such folder")

    with pytest.raises(RuntimeError, match="no such folder"):
        uncounted(fail)


def test_work_is_done_after_the_main_thread_has_ended_too() -> None:
    code = """
import threading
from guardreasoner_moderation.engines.openmp import uncounted
def late():
    threading.main_thread().join()
    print(uncounted(lambda: "done"))
threading.Thread(target=late).start()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "done\n"


@linux_only
@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: [0])(0)) < 2, reason="one core")
def test_threads_of_the_embedded_model_do_not_sleep_at_every_loop() -> None:
    code = """
import resource
from guardreasoner_moderation import Moderator
with Moderator() as guard:
    guard.classify("How do I bake rye bread without an oven?", mode="verdict")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    for _ in range(5):
        guard.classify("How do I bake rye bread without an oven?", mode="verdict")
    print((resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before) // 5)
"""
    env = {**os.environ, "OMP_NUM_THREADS": "2"}  # tests that run side by side have a thread each
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    # Some 400 where threads sleep. One that the host takes away for long lets the other sleep now and then.
    assert int(done.stdout) < 150
