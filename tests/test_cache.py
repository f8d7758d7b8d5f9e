from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import pytest
from conftest import leftovers
from filelock import FileLock

from guardreasoner_moderation import cache as cache_module
from guardreasoner_moderation.cache import cache_dir, cached_entry, known_sha256
from guardreasoner_moderation.errors import InputError, WeightsError


def test_cache_dir_is_what_the_variable_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("GUARDREASONER_CACHE", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"


def test_cache_dir_may_begin_with_a_tilde(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("GUARDREASONER_CACHE", "~/own")
    assert cache_dir() == tmp_path / "own"


def test_a_relative_cache_dir_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GUARDREASONER_CACHE", "own")
    assert cache_dir() == tmp_path / "own"


def test_cache_dir_is_in_an_absolute_xdg_cache_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GUARDREASONER_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "guardreasoner-moderation"


@pytest.mark.parametrize(
    ("platform", "folder"),
    [("linux", ".cache"), ("darwin", "Library/Caches"), ("win32", "AppData/Local")],
)
@pytest.mark.parametrize("relative", [None, "", "relative/cache"])
def test_without_an_absolute_xdg_cache_home_cache_dir_is_the_platforms(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, platform: str, folder: str, relative: str | None
) -> None:
    for name in ("GUARDREASONER_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    if relative is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", relative)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", platform)
        found = cache_dir()
    assert found == tmp_path / folder / "guardreasoner-moderation"


def test_without_a_home_the_error_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> NoReturn:
        raise RuntimeError("Could not determine home directory.")

    for name in ("GUARDREASONER_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", home)
    with pytest.raises(WeightsError, match="Set GUARDREASONER_CACHE to a folder"):
        cache_dir()


def write_entry(folder: Path) -> None:
    (folder / "part").mkdir()
    (folder / "part" / "file").write_text("built")


@pytest.mark.parametrize("key", ["", ".", "..", "../up", "a/b", ".hidden", "-x", "a b", "a~b", "a\\b", "a\n"])
def test_keys_that_are_no_folder_name_are_refused(cache: Path, key: str) -> None:
    with pytest.raises(InputError, match="cannot name a cache entry"):
        cached_entry(key, write_entry)
    assert not cache.exists()


def test_an_entry_is_built_once(cache: Path) -> None:
    built: list[Path] = []
    for _ in range(2):
        assert (
            cached_entry("key-1.0", lambda folder: (built.append(folder), write_entry(folder))[1]) == cache / "key-1.0"
        )
    assert len(built) == 1
    assert (cache / "key-1.0" / "part" / "file").read_text() == "built"


def test_an_entry_that_is_not_valid_is_built_anew(cache: Path) -> None:
    (cache / "key").mkdir(parents=True)
    (cache / "key" / "old").touch()
    entry = cached_entry("key", write_entry, valid=lambda folder: (folder / "part").exists())
    assert [path.name for path in entry.iterdir()] == ["part"]
    assert leftovers(cache) == ["key"]


def test_a_build_that_fails_leaves_nothing(cache: Path) -> None:
    def build(folder: Path) -> NoReturn:
        write_entry(folder)
        raise KeyError("no such tensor")

    with pytest.raises(KeyError, match="no such tensor"):
        cached_entry("key", build)
    assert leftovers(cache) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_with_the_room_needed_and_leaves_nothing(cache: Path, number: int) -> None:
    def build(folder: Path) -> NoReturn:
        write_entry(folder)
        raise OSError(number, os.strerror(number))

    with pytest.raises(WeightsError, match=r"no space left in .*cache, where about 250 MB.*GUARDREASONER_CACHE"):
        cached_entry("key", build, needed=250_000_000)
    assert leftovers(cache) == []


def test_a_full_disk_is_named_when_the_room_needed_is_not_known(cache: Path) -> None:
    def build(folder: Path) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(WeightsError, match=r"no space left in .*cache\. Free some"):
        cached_entry("key", build)


def test_a_cache_that_cannot_be_written_is_named(cache: Path) -> None:
    cache.touch()
    with pytest.raises(WeightsError, match=r"cannot write to .*cache: .*Set GUARDREASONER_CACHE"):
        cached_entry("key", write_entry)


def test_threads_build_an_entry_once(cache: Path) -> None:
    built: list[Path] = []

    def build(folder: Path) -> None:
        built.append(folder)
        time.sleep(0.1)
        write_entry(folder)

    with ThreadPoolExecutor(4) as pool:
        entries = list(pool.map(lambda _: cached_entry("key", build), range(4)))
    assert entries == [cache / "key"] * 4
    assert len(built) == 1


SCRIPT = """\
import sys, time
from pathlib import Path
from guardreasoner_moderation.cache import cached_entry

def build(folder):
    (folder / "file").write_text("half")
    print("building", flush=True)
    time.sleep({seconds})
    (folder / "file").write_text("built")

print(cached_entry("key", build), flush=True)
"""


@pytest.fixture
def process(cache: Path) -> Iterator[Callable[[float], subprocess.Popen[str]]]:
    """Starts processes that build the entry "key", which takes them so many seconds."""
    started: list[subprocess.Popen[str]] = []

    def start(seconds: float) -> subprocess.Popen[str]:
        code = textwrap.dedent(SCRIPT).format(seconds=seconds)
        running = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        started.append(running)
        return running

    yield start
    for running in started:
        running.kill()
        running.communicate()


def test_processes_build_an_entry_once(cache: Path, process: Callable[[float], subprocess.Popen[str]]) -> None:
    said = [running.communicate(timeout=120)[0] for running in [process(0.3), process(0.3)]]
    assert sorted(said) == sorted([f"building\n{cache / 'key'}\n", f"{cache / 'key'}\n"])
    assert (cache / "key" / "file").read_text() == "built"


def test_a_killed_build_leaves_no_entry_and_is_cleaned_up_by_the_next(
    cache: Path, process: Callable[[float], subprocess.Popen[str]]
) -> None:
    running = process(60)
    assert running.stdout is not None
    assert running.stdout.readline() == "building\n"
    running.kill()
    running.wait()
    (left,) = leftovers(cache)
    assert left.startswith(".key~")
    cached_entry("key", write_entry)
    assert leftovers(cache) == ["key"]


def test_what_another_key_is_building_is_left_alone(cache: Path) -> None:
    (cache / ".key-2~1234").mkdir(parents=True)
    cached_entry("key", write_entry)
    assert leftovers(cache) == [".key-2~1234", "key"]


def test_waiting_for_another_process_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir()
    held, told = threading.Event(), threading.Event()
    lines: list[str] = []

    def hold() -> None:
        with FileLock(cache / ".key.lock"):
            held.set()
            told.wait(60)

    def tell(line: str) -> None:
        lines.append(line)
        told.set()

    monkeypatch.setattr(cache_module, "_LOCK_NOTICE_SECONDS", 0.05)
    monkeypatch.setattr(cache_module, "tell", tell)
    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    cached_entry("key", write_entry)
    other.join()
    assert lines == [f"waiting for another process that is preparing {cache / 'key'}"]


def test_the_hash_of_a_file_that_changed_a_moment_ago_is_not_noted(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another change within the same tick of the clock would leave the same times."""
    file = tmp_path / "weights"
    file.write_bytes(b"weights")
    now = file.stat().st_ctime_ns
    monkeypatch.setattr(time, "time_ns", lambda: now + 1_000_000)
    known_sha256(file)
    assert not (cache / ".verified").exists()
    monkeypatch.setattr(time, "time_ns", lambda: now + 1_000_000_000)
    known_sha256(file)
    assert len(list((cache / ".verified").iterdir())) == 1


def test_a_file_that_changes_while_it_is_read_is_not_noted(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"weights")
    monkeypatch.setattr(time, "time_ns", lambda: file.stat().st_ctime_ns + 1_000_000_000)

    def read(path: Path) -> str:
        path.write_bytes(b"other weights")
        return "0" * 64

    monkeypatch.setattr(cache_module, "read_sha256", read)
    known_sha256(file)
    assert not (cache / ".verified").exists()
