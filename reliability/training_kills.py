"""What kill -9 costs a training run: the resumed run's losses against those of a run that is left alone.

    python -m reliability.training_kills --out reliability/results/training_kills.json

Small runs of both trainers on the real embedded base, on some of the written interactions. A kill comes at a random
moment, or is aimed at the writing of a checkpoint; after each, the checkpoints are read. About 15 minutes.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from reliability.record import Record, Trial

TOLERANCE = 1e-4  # of a loss, and of an adapter's weights
_ROOT = Path(__file__).parents[1]
_WRITTEN = _ROOT / "training" / "datasets" / "written.jsonl"
_PATIENCE = 600  # seconds that a run may take until its next checkpoint
_BASE = "smollm2-135m"

RSFT_RECIPE = """\
base: {base}
data:
  - file: own.jsonl
    think_share: 0.5
max_tokens: 400
rank: 4
alpha: 8
first_layer: {first_layer}
max_steps: {steps}
epochs: 12
batch_size: 2
token_budget: 600
warmup_steps: 2
eval_steps: 4
eval_items: 4
save_minutes: 0
"""
TRL_RECIPE = """\
base: {base}
{prompts}
data:
  - file: own.jsonl
    think_share: 0.5
precision: fp32
max_tokens: 1500
rank: 4
max_steps: {steps}
epochs: 12
batch_size: 2
device_batch_size: 2
learning_rate: 0.001
gradient_checkpointing: false
save_steps: 1
eval_items: 4
"""


@dataclass(frozen=True, slots=True)
class Trainer:
    """One of the trainers, with how its run folder is read.

    Attributes:
        name: of its module.
        command: what starts it; recipe, ``--data-dir`` and ``--out`` follow.
        recipe: text of the recipe, with ``{steps}``.
        step: the step of the newest checkpoint in a run folder, 0 without one; raises where it cannot be read.
        parts: files and folders of checkpoints that are not whole.
    """

    name: str
    command: tuple[str, ...]
    recipe: str
    step: Callable[[Path], int]
    parts: Callable[[Path], Iterable[Path]]

    def half_written(self, out: Path, since: int) -> bool:
        """Whether part of a checkpoint has been there since a time, in nanoseconds."""
        with suppress(FileNotFoundError):  # whole by now
            return any(part.stat().st_mtime_ns > since for part in self.parts(out))
        return False

    def start(self, folder: Path, out: Path) -> subprocess.Popen[bytes]:
        """Starts a run, or goes on with it. What it says is added to ``log`` in the folder."""
        arguments = [str(folder / "recipe.yaml"), "--data-dir", str(folder), "--out", str(out)]
        environment = {**os.environ, "PYTHONPATH": str(_ROOT), "HF_HUB_OFFLINE": "1"}
        with (folder / "log").open("ab") as log:
            return subprocess.Popen([*self.command, *arguments], env=environment, stdout=log, stderr=log)


def rsft_step(out: Path) -> int:
    """The step of :mod:`training.rsft`'s checkpoint; its best adapter, if there is one, is read too."""
    import torch

    if (out / "best.pt").exists():
        torch.load(out / "best.pt", weights_only=True)
    if not (out / "checkpoint.pt").exists():
        return 0
    step: int = torch.load(out / "checkpoint.pt", weights_only=True)["progress"]["step"]
    return step


def trl_step(out: Path) -> int:
    """The step of the checkpoint from which :mod:`training.trl_sft` goes on, all of which is read."""
    import torch
    from safetensors.torch import load_file

    from training.trl_run import newest_checkpoint

    newest = newest_checkpoint(out)
    if newest is None:
        return 0
    load_file(Path(newest) / "adapter_model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt"):
        torch.load(Path(newest) / name, weights_only=True)
    step: int = json.loads((Path(newest) / "trainer_state.json").read_text(encoding="utf-8"))["global_step"]
    return step


def _rsft_parts(out: Path) -> Iterator[Path]:
    return out.glob("*.new")


def _trl_parts(out: Path) -> Iterator[Path]:
    return (folder for folder in out.glob("checkpoint-*") if not (folder / "trainer_state.json").exists())


def rsft(base: str = _BASE, first_layer: int = 28, command: tuple[str, ...] | None = None) -> Trainer:
    """The packed trainer; few layers have a LoRA, for short steps."""
    recipe = RSFT_RECIPE.replace("{base}", base).replace("{first_layer}", str(first_layer))
    command = command or (sys.executable, "-m", "training.rsft")
    return Trainer("training.rsft", command, recipe, rsft_step, _rsft_parts)


def trl(base: str = _BASE, prompts: str = "prompt_format: compact") -> Trainer:
    """The trainer on trl."""
    recipe = TRL_RECIPE.replace("{base}", base).replace("{prompts}", prompts)
    return Trainer("training.trl_sft", (sys.executable, "-m", "training.trl_sft"), recipe, trl_step, _trl_parts)


def kills(trainer: Trainer, folder: Path, count: int, steps: int) -> list[Trial]:
    """A run of ``steps`` that is killed ``count`` times, every second time while a checkpoint is written, and one that
    is left alone.

    Raises:
        RuntimeError: a run ended by itself with an error.
    """
    dice = random.Random(0)
    _write_data(folder / "own.jsonl")
    (folder / "recipe.yaml").write_text(trainer.recipe.replace("{steps}", str(steps)), encoding="utf-8")
    started = time.monotonic()
    _finish(trainer, folder, folder / "whole")
    pace = (time.monotonic() - started) / steps  # of a step and its share of the start
    out = folder / "killed"
    tried, failed, half = [0, 0], [0, 0], [0, 0]
    step = 0
    for number in range(count):
        aimed = number % 2
        since = time.time_ns()
        process = trainer.start(folder, out)
        _wait_for_checkpoints(process, out, dice.randrange(1, 3))
        if aimed:
            while process.poll() is None and not trainer.half_written(out, time.time_ns() - 10**7):
                time.sleep(0.0002)  # such a moment is short
            time.sleep(dice.choice((0, 0.001, 0.01)))
        else:
            time.sleep(dice.uniform(0, pace))
        process.kill()
        if process.wait() != -signal.SIGKILL:
            break  # it came to its end
        tried[aimed] += 1
        half[aimed] += trainer.half_written(out, since)
        before, step = step, _step(trainer, out)
        failed[aimed] += step < max(before, 1)
    _finish(trainer, folder, out)
    names = ("at a random moment", "while a checkpoint is written")
    trials = [
        Trial(f"{trainer.name}: kill -9 {name}", tried[one], failed[one], {"left half a checkpoint": half[one]})
        for one, name in enumerate(names)
    ]
    whole, resumed = (list(_losses(json.loads((one / "run.json").read_text()))) for one in (folder / "whole", out))
    differences = [abs(one - other) for one, other in zip(whole, resumed, strict=True)]
    differences.append(_adapter_difference(folder / "whole", out))
    return [
        *trials,
        Trial(
            f"{trainer.name}: losses of steps and looks, and the adapter, after all kills",
            len(differences),
            sum(one > TOLERANCE for one in differences),
            {"largest difference": max(differences)},
        ),
    ]


def _wait_for_checkpoints(process: subprocess.Popen[bytes], out: Path, more: int) -> None:
    """Until the run has written so many checkpoints, or has ended."""
    seen = {_newest(out)}
    deadline = time.monotonic() + _PATIENCE
    while len(seen) <= more and process.poll() is None:
        if time.monotonic() > deadline:
            process.kill()
            raise TimeoutError(f"the run in {out} wrote no checkpoint for {_PATIENCE} s")
        seen.add(_newest(out))
        time.sleep(0.005)


def _newest(out: Path) -> int:
    """Time of the newest whole checkpoint."""
    with suppress(FileNotFoundError):  # the oldest was taken away meanwhile
        whole = (*out.glob("checkpoint.pt"), *out.glob("checkpoint-*/trainer_state.json"))
        return max((file.stat().st_mtime_ns for file in whole), default=0)
    return _newest(out)


def _step(trainer: Trainer, out: Path) -> int:
    """The step of the newest checkpoint; -1 where it cannot be read."""
    try:
        return trainer.step(out)
    except Exception as exc:  # noqa: BLE001 - whatever makes it unreadable is what is looked for
        typer.echo(f"{trainer.name}: a checkpoint cannot be read: {exc!r}", err=True)
        return -1


def _finish(trainer: Trainer, folder: Path, out: Path) -> None:
    if trainer.start(folder, out).wait():
        tail = (folder / "log").read_text(encoding="utf-8", errors="replace")[-2000:]
        raise RuntimeError(f"{trainer.name} failed: {tail}")


def _losses(record: Mapping[str, Any]) -> Iterator[float]:
    yield from record["losses"]
    for look in record["validation"]:
        yield look["loss"]


def _adapter_difference(one: Path, other: Path) -> float:
    from safetensors.numpy import load_file

    first, second = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (one, other))
    return max(float(abs(first[name].astype("f4") - second[name].astype("f4")).max()) for name in first)


def _write_data(file: Path, count: int = 40) -> None:
    """Short written interactions, an eighth of them held out."""
    lines = _WRITTEN.read_text(encoding="utf-8").splitlines(keepends=True)
    short = [line for line in lines if len(line) < 900]
    held_out = [line for line in short if json.loads(line)["split"] == "validation"]
    shown = [line for line in short if json.loads(line)["split"] == "train"]
    file.write_text("".join(shown[: count - count // 8] + held_out[: count // 8]), encoding="utf-8")


def main(
    out: Annotated[Path, typer.Option(help="File for the record.")],
    count: Annotated[int, typer.Option("--kills", help="Of the packed trainer.", min=2)] = 10,
    trl_count: Annotated[int, typer.Option("--trl-kills", help="Of the trainer on trl.", min=0)] = 4,
) -> None:
    """Kill runs of both trainers, and record how they went on."""
    trials = []
    for trainer, number in ((rsft(), count), (trl(), trl_count)):
        if number:
            with tempfile.TemporaryDirectory() as folder:
                trials += kills(trainer, Path(folder), number, 3 * number + 4)
    for trial in trials:
        typer.echo(f"{trial.name}: {trial.tried} tried, {trial.failed} failed, {dict(trial.figures)}")
    Record(
        title="Training: runs that are killed",
        promise=(
            "After kill -9 the newest checkpoint can be read and is no older than the one before. The run that goes "
            f"on comes to the same losses and the same adapter as one that is left alone, within {TOLERANCE}. A "
            "checkpoint that cannot be read, and a loss that differs by more, count as failed."
        ),
        command="python -m reliability.training_kills --out reliability/results/training_kills.json",
        trials=trials,
        notes=["All kills of one trainer fall upon the same run, which then goes on to its end."],
    ).save(out)


if __name__ == "__main__":
    typer.run(main)
