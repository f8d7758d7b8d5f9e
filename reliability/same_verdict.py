"""Whether an item's verdict depends on what it is judged with, how it is asked for, or on how many threads.

    python -m reliability.same_verdict --out reliability/results/same_verdict.json

Items of the project's own data are judged one by one, and then in every other way; no verdict may differ, no score by
more than 0.001, and in think mode no word of the reasoning.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import httpx
import typer

from evaluation.items import read_rows
from evaluation.load import serving
from guardreasoner_moderation import InputError, Interaction, ModerationError, Moderator
from guardreasoner_moderation.engines.ctranslate2 import CTranslate2Engine
from guardreasoner_moderation.interactions import to_interaction
from guardreasoner_moderation.results import Mode, Task
from reliability.record import Record, Trial
from texts.filler import filler

WRITTEN = Path(__file__).parents[1] / "training" / "datasets" / "written.jsonl"
TOLERANCE = 1e-3

Result: TypeAlias = Mapping[str, Any]
"""What ``ModerationResult.to_dict`` returns."""

Way: TypeAlias = Callable[[Sequence[Interaction], str], list[Result]]
"""Judges items in a mode; the results are in the items' order."""


def items_of(file: Path, count: int) -> list[Interaction]:
    """So many items, spread over a file.

    Raises:
        InputError: it has fewer.
    """
    rows = read_rows(file)
    if count > len(rows):
        raise InputError(f"{file} has {len(rows)} rows, fewer than the {count} that were asked for")
    chosen = [rows[len(rows) * number // count] for number in range(count)]
    return [to_interaction((row.get("prompt"), row.get("response"))) for row in chosen]


def one_by_one(guard: Moderator, items: Sequence[Interaction], mode: str) -> list[Result]:
    """The reference."""
    return [guard.classify(item.prompt, item.response, mode=mode).to_dict() for item in items]


def in_batches(guard: Moderator, items: Sequence[Interaction], mode: str) -> list[Result]:
    """``classify_batch``, in the batches that the moderator was made for."""
    return [result.to_dict() for result in guard.classify_batch(items, mode=mode, on_error="raise")]


def in_another_order(guard: Moderator, items: Sequence[Interaction], mode: str) -> list[Result]:
    """``classify_batch`` of shuffled items."""
    order = random.Random(1).sample(range(len(items)), len(items))
    judged = in_batches(guard, [items[number] for number in order], mode)
    return [result for _, result in sorted(zip(order, judged, strict=True), key=lambda pair: pair[0])]


def among_strangers(guard: Moderator, items: Sequence[Interaction], mode: str) -> list[Result]:
    """``classify_batch`` of the items with as many others, of all lengths, between them."""
    draw = random.Random(2)
    others = [Interaction(filler(draw.randint(3, 120), number)) for number in range(len(items))]
    mixed = [item for pair in zip(items, others, strict=True) for item in pair]
    return in_batches(guard, mixed, mode)[::2]


def from_threads(guard: Moderator, items: Sequence[Interaction], mode: str) -> list[Result]:
    """One by one, from four threads at once."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda item: guard.classify(item.prompt, item.response, mode=mode).to_dict(), items))


def from_a_server(items: Sequence[Interaction], mode: str) -> list[Result]:
    """A server of its own, eight requests at a time."""

    def ask(client: httpx.Client, item: Interaction) -> Result:
        body = {"prompt": item.prompt, "mode": mode, **({"response": item.response} if item.response else {})}
        answer = client.post("/v1/classify", json=body).raise_for_status()
        result: Result = answer.json()
        return result

    with (
        serving() as (url, _),
        httpx.Client(base_url=url, timeout=600, trust_env=False) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        return list(pool.map(partial(ask, client), items))


def from_a_file(items: Sequence[Interaction], mode: str, *arguments: str) -> list[Result]:
    """The command ``guardreasoner batch``, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.jsonl", Path(folder) / "out.jsonl"
        rows = ({"prompt": item.prompt, "response": item.response} for item in items)
        source.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        command = "from guardreasoner_moderation.cli import main; main()"
        options = ["batch", str(source), str(target), "--mode", mode, "--quiet", *arguments]
        subprocess.run([sys.executable, "-c", command, *options], check=True, stdout=subprocess.DEVNULL)
        return [json.loads(line)["moderation"] for line in target.read_text(encoding="utf-8").splitlines()]


def compare(name: str, reference: Sequence[Result], judged: Sequence[Result]) -> Trial:
    """How many items are judged otherwise than in the reference."""
    differing = verdicts = reasoned = 0
    largest = 0.0
    nothing: Result = {}
    for one, other in zip_longest(reference, judged, fillvalue=nothing):
        scores = [0.0]
        same_labels = same_steps = True
        for task in Task:
            first, second = one.get(task) or {}, other.get(task) or {}
            same_labels &= first.get("label") == second.get("label")
            same_steps &= first.get("reasoning") == second.get("reasoning")
            if first and second:
                scores.append(abs(first["score"] - second["score"]))
        largest = max(largest, *scores)
        verdicts += not same_labels
        reasoned += not same_steps
        differing += not (same_labels and same_steps) or max(scores) > TOLERANCE
    found = {"other verdicts": verdicts, "other reasoning": reasoned, "largest score difference": round(largest, 6)}
    return Trial(name, len(reference), differing, found)


def ways(guard: Moderator, threads: Sequence[int]) -> dict[str, Way]:
    """The ways that one process has, with the same weights."""
    engine, spec = guard.model.engine, guard.model.spec

    def like(batch_size: int) -> Moderator:
        return Moderator.from_engine(engine, spec, batch_size=batch_size)

    found: dict[str, Way] = {f"batches of {size}": partial(in_batches, like(size)) for size in (1, 8, 32)}
    found |= {
        "another order": partial(in_another_order, like(32)),
        "other neighbours": partial(among_strangers, like(32)),
        "four threads of the caller": partial(from_threads, guard),
    }
    if isinstance(engine, CTranslate2Engine):
        for count in threads:
            other = CTranslate2Engine(engine._folder, threads=count)
            found[f"threads to compute with: {count}"] = partial(in_batches, Moderator.from_engine(other, spec))
    return found


def measure(items: Sequence[Interaction], mode: str, asked: Mapping[str, Way], reference: Way) -> list[Trial]:
    """A trial for each way."""
    known = reference(items, mode)
    trials = []
    for name, way in asked.items():
        trials.append(compare(f"{name}, {mode} mode", known, way(items, mode)))
        typer.echo(f"{trials[-1].name}: {trials[-1].failed} of {trials[-1].tried} differ, {dict(trials[-1].figures)}")
    return trials


def main(
    out: Annotated[Path, typer.Option(help="File for the record.")] = Path("reliability/results/same_verdict.json"),
    file: Annotated[Path, typer.Option(help="JSONL with prompt and response.")] = WRITTEN,
    count: Annotated[int, typer.Option(help="Items in verdict mode.", min=2)] = 500,
    think: Annotated[int, typer.Option(help="Items in think mode; 0 for none.", min=0)] = 60,
) -> None:
    """Judge the same items in many ways."""
    apart: dict[str, Way] = {"a server": from_a_server, "guardreasoner batch": from_a_file}
    if find_spec("ray") is not None:
        apart["guardreasoner batch on Ray"] = lambda items, mode: from_a_file(items, mode, "--engine", "ray")
    trials = []
    try:
        with Moderator() as guard:
            asked = {**ways(guard, (1, 2)), **apart}
            for mode, number in ((Mode.VERDICT, count), (Mode.THINK, think)):
                if number:
                    trials += measure(items_of(file, number), mode.value, asked, partial(one_by_one, guard))
    except ModerationError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(2) from exc
    Record(
        "The same item, the same verdict",
        f"Judged in another way than one by one, no verdict differs, no score by more than {TOLERANCE}, and no word of "
        "the reasoning.",
        "python -m reliability.same_verdict --out reliability/results/same_verdict.json",
        trials,
        [] if "guardreasoner batch on Ray" in apart else ["Ray was not installed on this machine."],
    ).save(out)


if __name__ == "__main__":
    typer.run(main)
