"""What a training run keeps on disk: its recipe, a checkpoint to resume from, the best adapter so far, its record."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import typer

from guardreasoner_moderation.cache import read_sha256
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.models import weights_sha256
from training.data import LabelledInteraction
from training.inventory import take_inventory
from training.recipe import DataSource, Recipe

if TYPE_CHECKING:
    from peft import PeftModel

RECORD_FILE = "run.json"
BEST_FILE = "best.pt"
_CHECKPOINT_FILE = "checkpoint.pt"


def refuse_other_run(out: Path, recipe: Recipe) -> None:
    """Writes the recipe into a new run folder; in an old one, insists that it is the same but for ``max_steps``."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "recipe.json"
    content = json.loads(json.dumps(dataclasses.asdict(recipe)))
    if file.exists() and json.loads(file.read_text(encoding="utf-8")) | {"max_steps": 0} != content | {"max_steps": 0}:
        raise InputError(f"{out} holds a run of another recipe ({file}); choose another --out")
    replace_text(file, json.dumps(content, indent=2) + "\n")


def refuse_late_cut(progress: dict[str, Any], decay_from: int) -> None:
    """Lets ``max_steps`` cut or prolong a run only as long as neither plan's learning rate has begun to fall.

    Args:
        progress: gets the plan that holds from now on.
        decay_from: the step from which it falls.
    """
    planned = progress.setdefault("decay_from", decay_from)
    if planned != decay_from and progress["step"] > min(planned, decay_from):
        raise InputError(
            f"max_steps cannot change any more: the run is at step {progress['step']}, and its learning rate falls "
            f"from step {min(planned, decay_from)} on; choose another --out"
        )
    progress["decay_from"] = decay_from


def load_progress(out: Path, model: PeftModel, *states: Any) -> dict[str, Any]:
    """The newest whole checkpoint, or a fresh start."""
    import torch
    from peft import set_peft_model_state_dict

    file = out / _CHECKPOINT_FILE
    if not file.exists():
        return {"step": 0, "tokens": 0, "seconds": 0.0, "losses": [], "validation": []}
    saved = torch.load(file, weights_only=True)
    set_peft_model_state_dict(model, saved["adapter"])
    for state, content in zip(states, saved["states"], strict=True):
        state.load_state_dict(content)
    progress: dict[str, Any] = saved["progress"]
    typer.echo(f"resumed at step {progress['step']}")
    return progress


def save_progress(out: Path, model: PeftModel, progress: Mapping[str, Any], *states: Any) -> None:
    """Replaces the checkpoint in one move, so that a kill leaves the old or the new one, whole."""
    content = {
        "adapter": adapter_weights(model),
        "states": [state.state_dict() for state in states],
        "progress": dict(progress),
    }
    replace(out / _CHECKPOINT_FILE, content)


def save_best(out: Path, model: PeftModel, step: int) -> None:
    """Keeps the adapter as it is now, with the step that it belongs to."""
    replace(out / BEST_FILE, {"adapter": adapter_weights(model), "step": step})


def load_best(out: Path, model: PeftModel) -> int:
    """Puts the kept adapter into the model and returns its step."""
    import torch
    from peft import set_peft_model_state_dict

    saved = torch.load(out / BEST_FILE, weights_only=True)
    set_peft_model_state_dict(model, saved["adapter"])
    step: int = saved["step"]
    return step


def adapter_weights(model: PeftModel) -> dict[str, Any]:
    """The adapter's tensors by their names in its file."""
    from peft import get_peft_model_state_dict

    weights: dict[str, Any] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return weights


def replace(file: Path, content: Mapping[str, Any]) -> None:
    """Writes a file that torch reads, whole or not at all, in the place of what was there."""
    import torch

    with _replacing(file) as stream:
        torch.save(content, stream)


def replace_text(file: Path, text: str) -> None:
    """Writes a text file, whole or not at all, in the place of what was there."""
    with _replacing(file) as stream:
        stream.write(text.encode())


@contextmanager
def _replacing(file: Path) -> Iterator[IO[bytes]]:
    """A file beside it that takes its place when all is on the disk."""
    new = file.with_suffix(".new")
    with new.open("wb") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(new, file)


def write_record(
    out: Path,
    recipe: Any,
    data_dir: Path,
    sources: Sequence[tuple[DataSource, Sequence[LabelledInteraction]]],
    progress: Mapping[str, Any],
    **more: Any,
) -> None:
    """Writes run.json: what went in, whose it is, on which machine, and what it cost.

    Args:
        out: the run folder.
        recipe: a dataclass.
        data_dir: where the sources' files are.
        sources: what was learned from and validated on.
        progress: as :func:`load_progress` gives it, brought up to the end.
        more: further keys.
    """
    record = {
        "recipe": dataclasses.asdict(recipe),
        "data_sha256": {source.file: read_sha256(data_dir / source.file) for source, _ in sources},
        "inventory": take_inventory([item for _, items in sources for item in items]),
        **more,
        **environment(),
        "steps": progress["step"],
        "tokens": progress["tokens"],
        "hours": round(progress["seconds"] / 3600, 2),
        "losses": progress["losses"],
        "validation": progress["validation"],
    }
    replace_text(out / RECORD_FILE, json.dumps(record, indent=2) + "\n")


def describe_start(start: Path) -> dict[str, Any]:
    """The adapter that a second round starts from: the hash of its weights and, where there is one, its run's record.

    Of that record everything but the course of the run is kept: what it learned from, how, and what it cost.
    """
    record = next((file for file in (start / RECORD_FILE, start.parent / RECORD_FILE) if file.is_file()), None)
    run = json.loads(record.read_text(encoding="utf-8")) if record else {}
    return {
        "weights_sha256": weights_sha256(start),
        "run": {key: value for key, value in run.items() if key not in ("losses", "validation")} or None,
    }


def environment(*packages: str) -> dict[str, Any]:
    """Commit, versions (of ``packages`` too) and hardware, as a run record names them."""
    import torch

    git = shutil.which("git")
    commit = (
        git and subprocess.run([git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    )
    devices = torch.cuda.device_count()
    cpu = f"{os.cpu_count()} x {platform.processor() or platform.machine()} CPU"
    return {
        "commit": commit or None,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "peft", *packages)},
        },
        "hardware": f"{devices} x {torch.cuda.get_device_name()}" if devices else cpu,
    }
