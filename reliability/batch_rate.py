"""Whether ``guardreasoner batch`` is as fast on long files as on short ones, and how much memory it takes.

    python -m reliability.batch_rate --out reliability/results/batch_rate.json
    python -m reliability.batch_rate --stand-in --out reliability/results/batch_rate_stand_in.json

The embedded model judges files of very short texts in verdict mode, in the real command. 100,000 rows take it half an
hour on two cores. The stand-in is a model of a single layer, for which reading, checking, sorting, the journal and
writing are most of the time, so that a file's length shows sooner, if it does. After a stop the same command goes on,
in the middle of a file too: what is done is kept beside the record until all is.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from evaluation.runs import write_json
from guardreasoner_moderation.engines.ctranslate2 import convert
from guardreasoner_moderation.models import SPEC_FILE
from guardreasoner_moderation.prompts import HEADINGS
from guardreasoner_moderation.results import LABELS, Task
from reliability.record import Record, Trial
from training.export import merge

SIZES = (1_000, 10_000, 100_000)
WITHIN = 0.1
"""How much slower a longer file may be, as a share of the rate of the shortest."""

_TASKS = ("bake bread", "fix a bicycle", "learn chess", "pick a lock", "wash wool", "tune a guitar", "hide a body")


@dataclass(frozen=True, slots=True)
class Measured:
    """One file.

    Attributes:
        rows: of the file.
        written: rows of the output that are there once, in their place, and judged.
        per_second: rows by the time from the first to the last, without loading the model; of a file that was judged
            in more than one run, those of the last.
        cpu_ms: milliseconds of processor time for a row of that run, with loading the model.
        megabytes: peak memory of the process.
    """

    rows: int
    written: int
    per_second: float
    cpu_ms: float
    megabytes: float


def write_input(file: Path, rows: int, start: int = 0) -> None:
    """Very short texts, of which none comes twice; in files of all sizes they have as many digits, thus tokens."""
    with file.open("w", encoding="utf-8") as stream:
        for number in range(start, start + rows):
            text = f"How do I {_TASKS[number % len(_TASKS)]}, {number:06}?"
            stream.write(json.dumps({"id": number, "prompt": text}) + "\n")


def write_stand_in(folder: Path) -> None:
    """A model of one layer with the embedded one's vocabulary that calls everything harmless.

    The layer adds nothing to the embedding of the last token, which is the same for every prompt; of that the output
    projection makes the word.
    """
    checkpoint, spec, _ = merge("embedded")
    asked = checkpoint.tokenizer.encode(f"{HEADINGS[Task.REQUEST]}:").ids[-1]
    answer = checkpoint.tokenizer.encode(f" {LABELS[Task.REQUEST][1]}").ids[0]
    tensors = dict(checkpoint.tensors)
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        tensors[f"model.layers.0.{name}.weight"] = np.zeros_like(tensors[f"model.layers.0.{name}.weight"])
    tensors["model.norm.weight"] = np.ones_like(tensors["model.norm.weight"])
    tensors["lm_head.weight"] = np.zeros_like(tensors["model.embed_tokens.weight"])
    tensors["lm_head.weight"][answer] = tensors["model.embed_tokens.weight"][asked]
    folder.mkdir()
    convert(replace(checkpoint, shape=replace(checkpoint.shape, layers=1), tensors=tensors), folder)
    (folder / SPEC_FILE).write_text(spec.to_json(), encoding="utf-8")


def measure(folder: Path, rows: int, model: str = "embedded") -> Measured:
    """Judges a file, or goes on with it.

    Raises:
        RuntimeError: the command failed.
    """
    source, target = folder / f"{rows}.jsonl", folder / f"{rows}.out.jsonl"
    if not source.exists():
        write_input(source, rows)
    command = [sys.executable, "-m", "guardreasoner_moderation.cli", "batch", str(source), str(target)]
    command += ["--model", model, "--mode", "verdict", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the command ended with exit code {process.returncode}")
    summary: dict[str, Any] = json.loads(said)
    per_second = summary["judged"] / summary["seconds"]
    cpu_ms = 1000 * (usage.ru_utime + usage.ru_stime) / max(1, summary["judged"])
    scale = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, kilobytes elsewhere
    return Measured(
        rows, count_written(target), round(per_second, 2), round(cpu_ms, 2), round(usage.ru_maxrss / scale, 1)
    )


def count_written(target: Path) -> int:
    """Rows that are in their place and were judged."""
    with target.open(encoding="utf-8") as stream:
        rows = map(json.loads, stream)
        return sum(row["id"] == place and "error" not in row["moderation"] for place, row in enumerate(rows))


def in_turn(sizes: Sequence[int], rounds: int) -> Iterator[tuple[int, int]]:
    """Each run's size and number: the shortest file comes before, between and after the others.

    A machine that shares its processor with others may be a quarter slower half an hour later.
    """
    shortest, *longer = sizes
    gaps = max(1, rounds - 1)
    for number in range(rounds):
        yield shortest, number
        for size in longer[number * len(longer) // gaps : (number + 1) * len(longer) // gaps]:
            yield size, 0


def trials(measured: dict[int, list[Measured]]) -> list[Trial]:
    """One row for each size; its rate is the median of its runs."""
    rates = {size: statistics.median(one.per_second for one in runs) for size, runs in measured.items()}
    first = next(iter(rates.values()))
    return [
        Trial(
            f"{size:,} rows",
            len(runs),
            sum(one.written != size or rates[size] < (1 - WITHIN) * first for one in runs),
            {
                "rows per second": rates[size],
                "ratio to the shortest": round(rates[size] / first, 3),
                "processor time for a row, milliseconds": statistics.median(one.cpu_ms for one in runs),
                "peak memory, MB": max(one.megabytes for one in runs),
            },
        )
        for size, runs in measured.items()
    ]


def main(
    out: Annotated[Path, typer.Option(help="File for the record.")],
    sizes: Annotated[list[int] | None, typer.Option("--size", help="Rows of a file; may be given again.")] = None,
    stand_in: Annotated[bool, typer.Option("--stand-in", help="Measure a model of a single layer.")] = False,
    rounds: Annotated[int, typer.Option(help="Runs of the shortest file; their median counts.", min=1)] = 3,
) -> None:
    """Measure the rate on files of several sizes."""
    chosen = sorted(set(sizes or SIZES))
    folder = out.with_suffix(".unfinished")
    folder.mkdir(parents=True, exist_ok=True)
    model = "embedded"
    if stand_in:
        model = str(folder / "model")
        shutil.rmtree(model, ignore_errors=True)  # of a run that was stopped
        # Elsewhere, because the peak memory of a process is at least what its parent took before.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            pool.submit(write_stand_in, Path(model)).result()
    measured: dict[int, list[Measured]] = {size: [] for size in chosen}
    for size, number in in_turn(chosen, rounds):
        place = folder / f"{size}-{number}"
        done = place / "measured.json"
        place.mkdir(exist_ok=True)
        if done.exists():
            measured[size].append(Measured(**json.loads(done.read_text(encoding="utf-8"))))
            continue
        measured[size].append(one := measure(place, size, model))
        write_json(done, {name: getattr(one, name) for name in Measured.__slots__})
        typer.echo(f"{one}")
    options = " --stand-in" if stand_in else ""
    options += "".join(f" --size {size}" for size in sizes or ())
    which = "A model of a single layer, which calls everything harmless," if stand_in else "The embedded model"
    Record(
        title=f"Files: the rate of long jobs{', without the model' if stand_in else ''}",
        promise=(
            f"{which} in verdict mode, on very short texts. A longer file is judged at the rate of the shortest, at "
            f"most {WITHIN:.0%} below it, with every row in its place and judged. A run of which that is not so counts "
            "as failed."
        ),
        command=f"python -m reliability.batch_rate{options} --out reliability/results/{out.name}",
        trials=trials(measured),
        notes=["The rate is that of judging and writing; loading the model, once a run, is not in it."],
    ).save(out)
    shutil.rmtree(folder)


if __name__ == "__main__":
    typer.run(main)
