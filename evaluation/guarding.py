"""What a guarded stream lets through, and what it costs: labelled responses replayed as if they were being written.

    python -m evaluation.guarding interactions.jsonl training/datasets/written.jsonl \
        --split validation --limit 100 --out evaluation/results/guarding.json

A response comes in chunks of four characters, about a token, and without any wait between them. So the seconds before a
piece comes out are what the guard adds; the first piece also waits for the judgement of the request.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from evaluation.items import Item, draw_sample
from evaluation.judging import Advance, shown_progress, work
from evaluation.runs import write_json
from evaluation.shares import Share
from evaluation.split_items import read_split
from evaluation.summary import hardware, versions
from guardreasoner_moderation.errors import ModerationError
from guardreasoner_moderation.guarding import Every, GuardResult
from guardreasoner_moderation.moderator import Moderator
from guardreasoner_moderation.results import LABELS, Label, Task

SETTINGS: dict[str, Every] = {"sentence": "sentence", "200 characters": 200, "whole": sys.maxsize}
"""What is compared; "whole" waits for the end of the response."""

CHUNK = 4  # characters


@dataclass(frozen=True, slots=True)
class Replay:
    """One response, guarded.

    Attributes:
        label: whether it is harmful, as its annotators say.
        characters: its length.
        result: how the stream ended.
        seconds: for each piece that came out, how long it was waited for.
    """

    label: Label
    characters: int
    result: GuardResult
    seconds: tuple[float, ...]

    @property
    def stopped(self) -> bool:
        """Whether harm was found; a failed judgement ends a stream too, but finds nothing."""
        return self.result.stopped and self.result.error is None

    @property
    def released(self) -> float:
        """The share of its text that came out."""
        return self.result.released / self.characters


def replay(guard: Moderator, item: Item, every: Every) -> Replay:
    """Guards one response."""
    text = item.interaction.response or ""
    chunks = [text[start : start + CHUNK] for start in range(0, len(text), CHUNK)]
    seconds: list[float] = []
    since = time.perf_counter()
    for piece in guard.guard_stream(item.interaction.prompt, chunks, every=every):
        if isinstance(piece, GuardResult):
            return Replay(item.label, len(text), piece, tuple(seconds))
        seconds.append(time.perf_counter() - since)
        since = time.perf_counter()
    raise RuntimeError("the stream ended without a result")


def measure(guard: Moderator, items: Sequence[Item], advance: Advance | None = None) -> dict[str, Any]:
    """The figures of each of :data:`SETTINGS`."""
    guard.classify("Hello.", "Hello.", mode="verdict")  # the first judgement is slower than the others
    replays: dict[str, list[Replay]] = {name: [] for name in SETTINGS}
    for item in items:
        # The settings take turns, so that a machine which is busy for a while slows all of them.
        for name, every in SETTINGS.items():
            replays[name].append(replay(guard, item, every))
            if advance is not None:
                advance(name, len(replays[name]), len(items), work(item))
    return {name: summarise(found) for name, found in replays.items()}


def summarise(replays: Sequence[Replay]) -> dict[str, Any]:
    """The figures of one setting.

    ``released`` is a share of the text: of the harmful responses that were stopped, and of all of them, where those
    that were not stopped came out whole.
    """
    harmful, unharmful = ([one for one in replays if one.label is label] for label in LABELS[Task.RESPONSE])
    pieces = [second for one in replays for second in one.seconds]
    return {
        "harmful": {
            "stopped": Share(sum(one.stopped for one in harmful), len(harmful)).to_json(),
            "released_where_stopped": _middle([one.released for one in harmful if one.stopped]),
            "released": _middle([one.released for one in harmful]),
        },
        "unharmful": {"stopped": Share(sum(one.stopped for one in unharmful), len(unharmful)).to_json()},
        "unjudged": sum(one.result.error is not None for one in replays),
        "judgements": _middle([one.result.judgements for one in replays]),
        "seconds_to_first_piece": _quantiles([one.seconds[0] for one in replays if one.seconds]),
        "seconds_per_piece": _quantiles(pieces),
    }


def main(
    files: Annotated[list[Path], typer.Argument(help="JSONL with prompt, response, response_harm and split.")],
    out: Annotated[Path, typer.Option(help="File for the figures.")],
    split: Annotated[str, typer.Option(help="The rows to take.")] = "validation",
    model: Annotated[str, typer.Option(help="Short name, folder or repository id.")] = "embedded",
    limit: Annotated[int, typer.Option(help="Take so many, drawn by label with a fixed seed.", min=2)] = 100,
) -> None:
    """Measure guarded streams in verdict mode."""
    try:
        items = draw_sample(read_split(files, split, Task.RESPONSE), limit, seed=0)
        with Moderator(model) as guard:
            with shown_progress(len(SETTINGS) * sum(map(work, items)), Console(stderr=True)) as advance:
                figures = measure(guard, items, advance)
            about = {"model": model, "weights_sha256": guard.model.sha256, "engine": guard.model.engine.name}
    except ModerationError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(2) from exc
    rows = {"split": split, "files": [file.name for file in files], "responses": len(items), "chunk": CHUNK}
    write_json(out, {**about, **rows, "versions": versions(), "hardware": hardware(), "every": figures})
    for name, row in figures.items():
        stopped = [row[kind]["stopped"] for kind in ("harmful", "unharmful")]
        found, wrong = (Share(share["count"], share["of"]).percent() for share in stopped)
        typer.echo(f"{name}: stopped {found}% of the harmful responses, {wrong}% of the others")


def _middle(numbers: Sequence[float]) -> dict[str, float] | None:
    if not numbers:
        return None
    return {"mean": round(float(np.mean(numbers)), 4), "median": round(float(np.median(numbers)), 4)}


def _quantiles(seconds: Sequence[float]) -> dict[str, float | int] | None:
    if not seconds:
        return None
    middle, high = (round(float(value), 4) for value in np.quantile(seconds, [0.5, 0.95]))
    return {"n": len(seconds), "p50": middle, "p95": high}


if __name__ == "__main__":
    typer.run(main)
