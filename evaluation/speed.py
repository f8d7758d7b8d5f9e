"""How long one verdict takes, against plain transformers in float32 on the same machine in the same run.

    python -m evaluation.speed --rounds 15 --out evaluation/results/speed.json

The two sides take turns, so that a noisy machine slows both; the claim is the ratio of the medians.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from guardreasoner_moderation import Moderator
from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.prompts import PromptFormat, build_prompt
from guardreasoner_moderation.results import Mode

_SENTENCE = "I run a small bakery and would like to know how other shops plan their week, order flour and pay. "


def main(
    rounds: Annotated[int, typer.Option(help="How often each side judges each text.")] = 15,
    out: Annotated[Path | None, typer.Option(help="File for the figures.")] = None,
) -> None:
    """Measure the latency of the embedded model."""
    sides = {"ctranslate2 int8": Moderator(), "transformers float32": Moderator(engine="transformers")}
    figures: dict[str, Any] = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "versions": {name: version(name) for name in ("ctranslate2", "torch", "transformers")},
        "rounds": rounds,
    }
    for tokens in (50, 200, 400):
        text, read = text_of(sides["ctranslate2 int8"], tokens)
        for mode in (Mode.VERDICT, Mode.THINK):
            seconds = race(sides, text, mode, rounds if mode is Mode.VERDICT else max(3, rounds // 5))
            medians = {name: round(statistics.median(times), 4) for name, times in seconds.items()}
            fast, plain = medians.values()
            figures[f"{mode}, {read} tokens"] = {**medians, "ratio": round(plain / fast, 2)}
            typer.echo(f"{mode}, {read} tokens: {medians}, ratio {plain / fast:.2f}")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def text_of(guard: Moderator, tokens: int) -> tuple[str, int]:
    """A text whose whole prompt has about so many tokens, and how many it has."""
    words = (_SENTENCE * (tokens // 10)).split()
    for count in range(len(words), 0, -1):
        text = " ".join(words[:count])
        read = guard.model.engine.count_tokens(build_prompt(Interaction(text), PromptFormat.COMPACT, Mode.VERDICT))
        if read <= tokens:
            return text, read
    raise ValueError(f"no text has {tokens} tokens")


def race(sides: dict[str, Moderator], text: str, mode: Mode, rounds: int) -> dict[str, list[float]]:
    """Seconds of each side's judgements, the sides taking turns; the first round warms up and is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, guard in sides.items():
            started = time.perf_counter()
            guard.classify(text, mode=mode)
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    typer.run(main)
