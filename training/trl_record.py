"""What a trainer on trl leaves beside the weights: the time it took, how the model is asked, the record of the run."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from guardreasoner_moderation.cache import read_sha256
from guardreasoner_moderation.models import SPEC_FILE, ModelSpec, read_spec
from guardreasoner_moderation.prompts import PromptFormat
from guardreasoner_moderation.results import Category
from training.run_folder import RECORD_FILE, environment, replace_text
from training.trl_recipe import TrlRecipe


class Clock(TrainerCallback):
    """Writes the seconds of training into each line of the log, those before a stop included."""

    def __init__(self) -> None:
        self._zero = time.monotonic()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Counts on from the checkpoint's log."""
        self._zero = time.monotonic() - (state.log_history[-1].get("seconds", 0.0) if state.log_history else 0.0)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Adds the time to the newest line."""
        state.log_history[-1]["seconds"] = round(time.monotonic() - self._zero, 1)


def write_spec(recipe: TrlRecipe, folder: Path, start: Path | None = None) -> None:
    """Writes the ``moderation.json`` that tells how the model is asked; calibration is still to be fitted.

    Args:
        recipe: of the run.
        folder: of the trained weights.
        start: what training started from; the rest of its ``moderation.json`` is kept.
    """
    if start is not None and (start / SPEC_FILE).exists():
        spec = replace(read_spec(start / SPEC_FILE), calibration={})
    else:
        prompt_format = PromptFormat(recipe.prompt_format)
        categories = tuple(Category) if prompt_format is PromptFormat.COMPACT else ()
        base = None if recipe.method == "full" else recipe.base
        spec = ModelSpec(prompt_format=prompt_format, chat=recipe.chat, base=base, categories=categories)
    (folder / SPEC_FILE).write_text(spec.to_json(), encoding="utf-8")


def write_record(out: Path, recipe: TrlRecipe, files: Mapping[str, Path], state: TrainerState, **more: Any) -> None:
    """Writes run.json: what went in, on which machine, and what it cost.

    Args:
        out: the run folder.
        recipe: of the run.
        files: what was learned from, by the names that the record gives them.
        state: the trainer's at the end.
        more: further entries.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    steps = [line for line in state.log_history if "loss" in line]
    record = {
        "recipe": dataclasses.asdict(recipe),
        "data_sha256": {name: read_sha256(file) for name, file in files.items()},
        **environment("trl", "accelerate"),
        "processes": processes,
        "steps": state.global_step,
        "tokens": int(state.num_input_tokens_seen),
        "hours": round(max((line.get("seconds", 0.0) for line in state.log_history), default=0.0) / 3600, 2),
        "losses": [round(line["loss"], 5) for line in steps],
        **more,
    }
    replace_text(out / RECORD_FILE, json.dumps(record, indent=2) + "\n")
