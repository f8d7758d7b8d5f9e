"""Memory that was freed goes back to the system, and an engine that was loaded keeps little beside its weights."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from guardreasoner_moderation.engines.heap import give_back
from guardreasoner_moderation.models import converted, find_folder, weights_sha256


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def gnu_c_library() -> bool:
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim")


needs_gnu = pytest.mark.skipif(not gnu_c_library(), reason="another C library")


@needs_gnu
def test_freed_memory_goes_back_to_the_system() -> None:
    library = ctypes.CDLL(None)
    library.malloc.restype = library.memset.restype = ctypes.c_void_p
    library.malloc.argtypes = [ctypes.c_size_t]
    library.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    size, count = 100_000, 1_000  # small enough to come from the heap, which ends where the last of them does
    blocks = [library.memset(library.malloc(size), 1, size) for _ in range(count)]
    for block in blocks[:-1]:
        library.free(block)
    held = resident_mb()
    give_back()
    assert held - resident_mb() > 0.9 * size * count / 2**20
    library.free(blocks[-1])


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail(f"{name} was loaded"))
    give_back()


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    give_back()


GROWTH = """
import os, sys
from pathlib import Path
import ctranslate2
from guardreasoner_moderation.engines.ctranslate2 import CTranslate2Engine

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

before = resident()
engine = CTranslate2Engine(Path(sys.argv[1]))
print((resident() - before) / (Path(sys.argv[1]) / "model.bin").stat().st_size)
"""


@needs_gnu
def test_a_loaded_engine_holds_little_beside_its_weights() -> None:
    folder = find_folder("embedded")
    files = converted(folder, weights_sha256(folder), base="smollm2-135m")
    done = subprocess.run([sys.executable, "-c", GROWTH, str(files)], capture_output=True, text=True, check=True)
    assert 0.9 < float(done.stdout) < 1.35  # 1.4 to 2.1 with what loading has freed
