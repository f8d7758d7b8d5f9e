"""How fast the embedded model is: against plain transformers and llama.cpp in one run, and against the machine itself.

    python -m evaluation.speed --out evaluation/results/speed.json --gguf guard-q8_0.gguf

Each side runs in a process of its own and takes its turn on the same texts, so that a noisy machine slows all alike: it
is the ratios of the medians that count. Plain transformers is what one would write from a model card (float32, unmerged
adapter): a verdict is one forward pass, and when thinking it writes as many tokens as ours did. Times are of the whole
call, with building prompts, tokenising and reading answers; ours in think mode also with its pass without reasoning.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer

from evaluation.runs import write_json
from evaluation.speed_limits import bytes_to_write, measure_peaks, operations_to_read
from evaluation.summary import hardware, versions
from guardreasoner_moderation import Moderator, weights
from guardreasoner_moderation.checkpoint import read_gguf
from guardreasoner_moderation.results import Mode
from texts.filler import filler_of_tokens

LENGTHS = {"short": 20, "medium": 200, "long": 1500}
"""Tokens of the texts whose latency is measured."""

BATCHES = (1, 8, 32)
BUDGET = 64  # tokens of reasoning at most

_START = """
from guardreasoner_moderation import Moderator
Moderator().classify("How do I bake bread?", mode="verdict")
"""
_START_TRANSFORMERS = """
from evaluation.speed_sides import PlainTransformers
from guardreasoner_moderation.results import Mode
PlainTransformers().judge(["How do I bake bread?"], Mode.VERDICT, 1)
"""


def main(
    out: Annotated[Path | None, typer.Option(help="File for the figures.")] = None,
    gguf: Annotated[Path | None, typer.Option(help="The same model as a GGUF file, to measure llama.cpp too.")] = None,
    rounds: Annotated[int, typer.Option(help="How often each side judges each text.", min=3)] = 9,
) -> None:
    """Measure the embedded model's speed."""
    figures: dict[str, Any] = {"hardware": hardware(), "rounds": rounds, "start": measure_starts()}
    typer.echo(json.dumps(figures["start"]))
    with Moderator() as guard:
        # No text comes twice: an engine that remembers what it has read must read it all the same.
        texts = {
            name: [[filler_of_tokens(guard, tokens, f"{name} {n}")] for n in range(rounds + 1)]
            for name, tokens in LENGTHS.items()
        }
        dice = random.Random(0)
        few = max(2, rounds // 3)
        items = [
            [filler_of_tokens(guard, dice.randint(190, 210), f"batch {n} {k}") for k in range(max(BATCHES))]
            for n in range(few + 1)
        ]
    with ExitStack() as stack:
        sides = {"ours": stack.enter_context(side("ours")), "transformers": stack.enter_context(side("transformers"))}
        if gguf is not None:
            sides["llamacpp"] = stack.enter_context(side("llamacpp", str(gguf)))
        figures["latency"] = {}
        for mode in (Mode.VERDICT, Mode.THINK):
            for name, runs in texts.items():
                chosen = runs if mode is Mode.VERDICT else runs[: max(4, few + 1)]
                figures["latency"][f"{mode}, {name}"] = row = race(sides, chosen, mode)
                typer.echo(f"{mode}, {name} ({LENGTHS[name]} tokens): {json.dumps(row)}")
        figures["peak_mb_one_by_one"] = {name: round(one.peak_mb) for name, one in sides.items()}
        figures["throughput"] = {}
        for mode in (Mode.VERDICT, Mode.THINK):
            for size in BATCHES:
                row = race(sides, [run[:size] for run in items], mode)
                figures["throughput"][f"{mode}, batch {size}"] = row
                typer.echo(f"{mode}, batch {size}: {json.dumps(row)}")
        figures["peak_mb_with_batches"] = {name: round(one.peak_mb) for name, one in sides.items()}
    figures["limits"] = compare_with_machine(figures["latency"])
    figures["versions"] = versions()
    typer.echo(json.dumps({key: figures[key] for key in ("peak_mb_one_by_one", "peak_mb_with_batches", "limits")}))
    if out is not None:
        write_json(out, figures)


class RunningSide:
    """A side's process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.peak_mb = 0.0

    def judge(self, texts: Sequence[str], mode: Mode, tokens: int) -> tuple[float, list[int]]:
        """Seconds that it took, and the tokens that were written for each text."""
        assert self._process.stdin is not None  # noqa: S101 - both are pipes
        assert self._process.stdout is not None  # noqa: S101
        self._process.stdin.write(json.dumps({"texts": texts, "mode": mode, "tokens": tokens}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a side ended with exit code {self._process.wait()}; what it printed stands above")
        answer = json.loads(line)
        self.peak_mb = answer["peak_mb"]
        return answer["seconds"], answer["tokens"]


@contextmanager
def side(*arguments: str) -> Iterator[RunningSide]:
    """Starts a side, and ends it."""
    command = [sys.executable, "-m", "evaluation.speed_sides", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield RunningSide(process)
        process.communicate()


def race(sides: Mapping[str, RunningSide], runs: Sequence[Sequence[str]], mode: Mode) -> dict[str, Any]:
    """Medians of each side's seconds, the sides taking turns.

    Args:
        sides: who takes part.
        runs: the texts of each round, judged together; the first round warms up.
        mode: of the judging.

    Returns:
        For each side ``p50`` and ``p95`` in seconds, ``items_per_second`` and the mean ``tokens`` written for an item;
        and under ``ratio`` how many times ours is faster than each other.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    written: dict[str, list[float]] = {name: [] for name in sides}
    budget = BUDGET
    for number, texts in enumerate(runs):
        for name, one in sides.items():
            took, tokens = one.judge(texts, mode, budget if name == "transformers" else BUDGET)
            if name == "ours":
                budget = max(1, round(statistics.mean(tokens)))
            if number:
                seconds[name].append(took)
                written[name].append(statistics.mean(tokens))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    result: dict[str, Any] = {
        name: {
            "p50": round(medians[name], 4),
            "p95": round(sorted(times)[-1 - len(times) // 20], 4),
            "items_per_second": round(len(runs[0]) / medians[name], 2),
            "tokens": round(statistics.mean(written[name]), 1),
        }
        for name, times in seconds.items()
    }
    result["ratio"] = {name: round(medians[name] / medians["ours"], 2) for name in sides if name != "ours"}
    return result


def measure_starts(tries: int = 3) -> dict[str, float]:
    """Seconds of whole processes, medians: importing, the first verdict on an empty cache, and on a warm one."""
    base = weights.base_file("smollm2-135m")
    seconds: dict[str, list[float]] = {}
    for _ in range(tries):
        with tempfile.TemporaryDirectory() as empty:
            starts = {
                "nothing": ("pass", {}),
                "import": ("import guardreasoner_moderation", {}),
                # The base is at hand: what a network would cost is not measured.
                "cold start": (_START, {"GUARDREASONER_CACHE": empty, "GUARDREASONER_BASE": str(base)}),
                "warm start": (_START, {}),
                "transformers start": (_START_TRANSFORMERS, {}),
            }
            for name, (code, environment) in starts.items():
                started = perf_counter()
                subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **environment})
                seconds.setdefault(name, []).append(perf_counter() - started)
    return {name: round(statistics.median(times), 3) for name, times in seconds.items()}


def compare_with_machine(latency: Mapping[str, Any]) -> dict[str, Any]:
    """The least time that the machine's peaks allow for a medium verdict and for a token, and our share of it."""
    shape = read_gguf(weights.base_file("smollm2-135m")).shape
    peaks = measure_peaks()
    verdict, think = (latency[f"{mode}, medium"]["ours"] for mode in (Mode.VERDICT, Mode.THINK))
    frame = 20  # tokens of the prompt around the text
    operations = operations_to_read(shape, LENGTHS["medium"] + frame) / 1e9
    peak = peaks.int8_gops
    # Think mode reads the prompt twice, once for the answer without reasoning; the rest is writing.
    per_token = (think["p50"] - 2 * verdict["p50"]) / max(1, think["tokens"] - verdict["tokens"])
    gigabytes = bytes_to_write(shape, 1) / 1e9
    return {
        "peaks": {name: round(value, 1) for name, value in asdict(peaks).items()},
        "verdict": {
            "gop": round(operations, 1),
            "least_seconds": round(operations / peak, 4),
            "share_of_peak": round(operations / peak / verdict["p50"], 3),
        },
        "token": {
            "gigabytes": round(gigabytes, 4),
            "seconds": round(per_token, 4),
            "least_seconds": round(gigabytes / peaks.read_gbs, 4),
            "share_of_peak": round(gigabytes / peaks.read_gbs / per_token, 3),
        },
    }


if __name__ == "__main__":
    typer.run(main)
