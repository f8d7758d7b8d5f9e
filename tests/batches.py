"""What the tests of batch files share: rows, a guard without a model, and processes that can be killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from guardreasoner_moderation import Category, EngineError, ModerationResult, Moderator
from guardreasoner_moderation.batch import Runner, judge_file
from guardreasoner_moderation.engines.scripted import ScriptedEngine
from guardreasoner_moderation.models import ModelSpec
from guardreasoner_moderation.prompts import Prompt, PromptFormat

COMPACT = ModelSpec(prompt_format=PromptFormat.COMPACT, categories=("violence_physical_harm", "other"))


def guard_that_knows(word: str = "bomb", *, fails_on: str | None = None, pace: float = 0.0) -> Moderator:
    """Finds texts with ``word`` harmful, fails on those with ``fails_on``, takes ``pace`` seconds for each."""

    def reply(prompt: Prompt) -> str:
        time.sleep(pace)
        if fails_on is not None and fails_on in prompt.text:
            raise EngineError("the engine broke down")
        return " harmful\nCategory: violence_physical_harm" if word in prompt.text else " unharmful"

    def choose(prompt: Prompt, words: Sequence[str]) -> str:
        return words[0 if word in prompt.text else 1]

    return Moderator.from_engine(ScriptedEngine(reply, choose=choose), COMPACT)


class InstantRunner:
    """Judges without a moderator, in no time; for what has to do with many rows."""

    def model(self) -> Mapping[str, Any]:
        return {"name": "instant"}

    def run(self, rows: Any, how: Any) -> Iterator[list[tuple[int, Mapping[str, Any] | None]]]:
        result = ModerationResult(flagged=True, request=None, category=Category.OTHER).to_dict()
        for window in rows.windows():
            yield [(row.number, result) for row in window]


def write_jsonl(file: Path, rows: Sequence[Any]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def read_jsonl(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def without_seconds(file: Path) -> list[dict[str, Any]]:
    rows = read_jsonl(file)
    for row in rows:
        del row["moderation"]["usage"]["seconds"]
    return rows


def some_rows(count: int) -> list[dict[str, Any]]:
    return [
        {"id": number, "prompt": f"number {number}{' word' * (number * 7 % 40)}{' bomb' * (number % 5 == 0)}"}
        for number in range(count)
    ]


# What follows runs in processes of its own, which are killed.

_context = None


def start(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A real process, forked from a clean one that has imported the package already."""
    global _context  # noqa: PLW0603
    if _context is None:
        _context = multiprocessing.get_context("forkserver")
        _context.set_forkserver_preload(["batches"])
    process = _context.Process(target=target, args=arguments)
    process.start()
    return process


def run_to_end(target: Callable[..., None], *arguments: Any) -> None:
    process = start(target, *arguments)
    process.join(60)
    assert process.exitcode == 0, process.exitcode


def work(source: Path, target: Path, settings: dict[str, Any], guard: dict[str, Any]) -> None:
    judge_file(source, target, guard_that_knows(**guard), mode="verdict", **settings)


def work_and_die(
    source: Path, target: Path, settings: dict[str, Any], guard: dict[str, Any], step: int, counted: Path | None
) -> None:
    """:func:`work`, killed just before its ``step``-th operation on files; their number goes to ``counted``."""
    steps = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal steps
        if event not in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"):
            return
        if str(target.parent) not in str(arguments[0]):
            return
        if steps == step:
            os.kill(os.getpid(), signal.SIGKILL)
        steps += 1

    sys.addaudithook(watch)
    work(source, target, settings, guard)
    if counted is not None:
        done = steps
        counted.write_text(str(done))


def measure(source: Path, target: Path, report: Path) -> None:
    """Peak memory of a job, in MiB."""
    import resource

    runner: Runner = InstantRunner()
    judge_file(source, target, runner)
    report.write_text(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
