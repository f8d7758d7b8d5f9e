"""Speed and memory of the packed trainer against a plain trl SFTTrainer, on the same data, adapter and batch.

    python -m training.compare_trl training/recipes/embedded.yaml --data-dir DATA --out speed.json

Both sides run in processes of their own, by turns, so that what else the machine does meets both. Tokens are those of
the sequences: no padding is counted, and what the packed trainer computes once for two sequences counts for both. The
first step of each run warms up and is left out. Ends with 1 when the packed trainer is not faster by the floor.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from guardreasoner_moderation import weights
from guardreasoner_moderation.errors import EngineError
from training.data import Example, read_interactions
from training.recipe import Recipe, read_recipe
from training.rsft import add_adapter, gradients, make_batches

FLOOR = 2.0
"""The packed trainer has to be faster by this."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run of one side: real tokens and seconds of its timed steps, and the process's peak memory."""

    tokens: int
    seconds: float
    peak_megabytes: int

    @property
    def tokens_per_second(self) -> float:
        """Real tokens."""
        return self.tokens / self.seconds


def main(
    recipe_file: Annotated[Path, typer.Argument(help="A recipe of training.rsft.")],
    data_dir: Annotated[Path, typer.Option(help="Folder with the recipe's data files.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each side.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Timed optimiser steps of a run.")] = 4,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    side: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Compare the trainers."""
    if side:
        out.write_text(json.dumps(asdict(measure(side, read_recipe(recipe_file), data_dir, steps, threads))))
        return
    runs: dict[str, list[Measurement]] = {name: [] for name in SIDES}
    for number in range(rounds):
        for name in list(SIDES)[:: -1 if number % 2 else 1]:
            runs[name].append(run_apart(name, recipe_file, data_dir, steps, threads))
            typer.echo(f"{name}: {runs[name][-1].tokens_per_second:.0f} tokens/s")
    record = summary(runs)
    record |= {
        "recipe": recipe_file.name,
        "steps": steps,
        "threads": threads,
        "hardware": f"{os.cpu_count()} x {platform.processor() or platform.machine()} CPU",
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "trl")},
    }
    out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    typer.echo(f"packed is {record['ratio']} times as fast; the floor is {FLOOR}")
    if not record["holds"]:
        raise typer.Exit(1)


def run_apart(side: str, recipe_file: Path, data_dir: Path, steps: int, threads: int) -> Measurement:
    """One side in a process of its own.

    Raises:
        EngineError: it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "measurement.json"
        command = [sys.executable, "-m", "training.compare_trl", str(recipe_file), "--data-dir", str(data_dir)]
        command += ["--out", str(out), "--steps", str(steps), "--threads", str(threads), "--side", side]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise EngineError(f"the {side} side failed:\n{done.stderr[-2000:]}")
        return Measurement(**json.loads(out.read_text()))


def summary(runs: dict[str, list[Measurement]]) -> dict[str, Any]:
    """All runs, the median of each side, and how many times as fast the packed trainer is."""
    sides = {
        name: {
            "tokens_per_second": round(statistics.median(run.tokens_per_second for run in some), 1),
            "peak_megabytes": round(statistics.median(run.peak_megabytes for run in some)),
            "runs": [asdict(run) for run in some],
        }
        for name, some in runs.items()
    }
    pairs = zip(runs["packed"], runs["trl"], strict=True)
    ratio = statistics.median(packed.tokens_per_second / plain.tokens_per_second for packed, plain in pairs)
    return {"ratio": round(ratio, 2), "floor": FLOOR, "holds": ratio >= FLOOR, "sides": sides}


def measure(side: str, recipe: Recipe, data_dir: Path, steps: int, threads: int) -> Measurement:
    """Runs one side in this process."""
    import torch

    from guardreasoner_moderation.checkpoint import read_gguf

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(recipe.seed)
    checkpoint = read_gguf(weights.base_file(recipe.base))
    batches = first_batches(recipe, data_dir, checkpoint, steps + 1)
    tokens, seconds = SIDES[side](recipe, checkpoint, batches)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Measurement(tokens, seconds, round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)))


def first_batches(recipe: Recipe, data_dir: Path, checkpoint: Any, count: int) -> list[list[Example]]:
    """The first steps of the recipe's run, as :mod:`training.rsft` has them."""
    from guardreasoner_moderation.engines.encoding import SpanEncoder

    sources = [(source, read_interactions(data_dir / source.file)) for source in recipe.data]
    encoder, eos_id = SpanEncoder(checkpoint.tokenizer), checkpoint.tokens.index(checkpoint.eos_token)
    return make_batches(replace(recipe, epochs=1, max_steps=count), sources, encoder, eos_id)[0]


def run_packed(recipe: Recipe, checkpoint: Any, batches: Sequence[Sequence[Example]]) -> tuple[int, float]:
    """The packed trainer's steps: real tokens and seconds after the first."""
    import torch

    from training.packed import PassWorkers

    model: Any = add_adapter(checkpoint, recipe)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate)
    started = 0.0
    with PassWorkers() as workers:
        for number, batch in enumerate(batches):
            if number == 1:
                started = time.perf_counter()
            gradients(workers, model.get_base_model(), batch, recipe.token_budget, recipe.precision)
            torch.nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return sum(len(one) for batch in batches[1:] for one in batch), time.perf_counter() - started


def run_trl(recipe: Recipe, checkpoint: Any, batches: Sequence[Sequence[Example]]) -> tuple[int, float]:
    """trl's steps over the same sequences: padded, shuffled, as many tokens in a forward pass as the packed trainer."""
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from training.trl_run import CHECKPOINTING

    options: dict[str, Any] = {CHECKPOINTING: False}
    seen: list[tuple[int, float]] = []  # real tokens and time at the end of each step

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            seen.append((int(state.num_input_tokens_seen), time.perf_counter()))

    sequences = [one for batch in batches for one in batch]
    at_once = max(1, recipe.token_budget * len(sequences) // sum(map(len, sequences)))
    passes = max(1, round(len(sequences) / len(batches) / at_once))
    model: Any = add_adapter(checkpoint, recipe)
    model.get_base_model().set_attn_implementation("sdpa")
    rows = [
        {
            "input_ids": list(one.ids),
            "labels": [token if weight else -100 for token, weight in zip(one.ids, one.weights, strict=True)],
        }
        for one in sequences
    ]
    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            output_dir=folder,
            max_steps=len(batches),
            per_device_train_batch_size=at_once,
            gradient_accumulation_steps=passes,
            learning_rate=recipe.learning_rate,
            max_grad_norm=recipe.max_grad_norm,
            bf16=recipe.precision != "fp32",
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            report_to="none",
            max_length=None,
            include_num_input_tokens_seen="non_padding",
            dataset_kwargs={"skip_prepare_dataset": True},
            dataloader_pin_memory=False,
            seed=recipe.seed,
            **options,
        )
        tokenizer: Any = PreTrainedTokenizerFast
        SFTTrainer(
            model,
            args=settings,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer(
                tokenizer_object=checkpoint.tokenizer, eos_token=checkpoint.eos_token, pad_token=checkpoint.eos_token
            ),
            callbacks=[Watch()],
        ).train()
    (first, started), (last, ended) = seen[0], seen[-1]
    return last - first, ended - started


SIDES = {"packed": run_packed, "trl": run_trl}

if __name__ == "__main__":
    typer.run(main)
