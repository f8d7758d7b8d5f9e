"""The real command on a tiny model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer import Typer
from typer.testing import CliRunner, Result

from guardreasoner_moderation.errors import InputError
from training import rsft

RECIPE = """\
base: tiny
data:
  - file: own.jsonl
    think_share: 0.5
max_tokens: 400
rank: 2
alpha: 4
first_layer: 1
epochs: 2
batch_size: 4
token_budget: 600
learning_rate: 0.01
warmup_steps: 2
label_weight: 4
eval_steps: 3
save_minutes: 0
"""
HARMFUL = ["break into a house", "poison a dog", "forge a passport", "steal a car", "hack a bank", "stalk a colleague"]
HARMLESS = ["bake bread", "fix a bicycle", "learn chess", "plant a tree", "wash wool", "tune a guitar"]


@pytest.fixture
def folder(tmp_path: Path, tiny_weights: str) -> Path:
    rows = []
    for number, (task, harmful) in enumerate([(t, True) for t in HARMFUL] + [(t, False) for t in HARMLESS]):
        rows.append(
            {
                "id": f"own-{number}",
                "source": "own",
                "license": "CC0-1.0",
                "split": "validation" if number % 6 == 5 else "train",
                "prompt": f"How do I {task}?",
                "response": None,
                "request": "harmful" if harmful else "unharmful",
                "completion": None,
                "response_harm": None,
                "category": "other" if harmful else None,
                "reasoning": {"request": [f"The user wants to {task}."], "completion": None, "response": None},
                "flag": "doubtful" if number == 0 else None,
            }
        )
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return tmp_path


def train(folder: Path, out: str = "run") -> Result:
    app = Typer(pretty_exceptions_enable=False)
    app.command()(rsft.main)
    arguments = [str(folder / "recipe.yaml"), "--data-dir", str(folder), "--out", str(folder / out)]
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_a_run_leaves_adapter_record_and_checkpoint(folder: Path) -> None:
    result = train(folder)
    assert result.exit_code == 0
    record = json.loads((folder / "run" / "run.json").read_text())
    assert record["steps"] == 6  # 9 items, of them one doubtful left out: 3 steps in each of 2 passes
    assert len(record["losses"]) == 6
    assert [figures["step"] for figures in record["validation"]] == [3, 6]
    assert record["validation"][-1]["request"]["n"] == 2
    assert set(record["data_sha256"]) == {"own.jsonl"}
    adapter = load_file(folder / "run" / "adapter" / "adapter_model.safetensors")
    assert all(array.dtype == np.float16 for array in adapter.values())
    assert {name.split(".")[4] for name in adapter} == {"1"}  # no LoRA before first_layer
    config = json.loads((folder / "run" / "adapter" / "adapter_config.json").read_text())
    assert config["r"] == 2


def test_a_run_learns(folder: Path) -> None:
    text = RECIPE.replace("epochs: 2", "epochs: 15").replace("eval_steps: 3", "eval_steps: 45")
    (folder / "recipe.yaml").write_text(text.replace("first_layer: 1", "first_layer: 0"), encoding="utf-8")
    assert train(folder).exit_code == 0
    losses = json.loads((folder / "run" / "run.json").read_text())["losses"]
    assert np.mean(losses[-6:]) < 0.8 * np.mean(losses[:6])


def test_a_killed_run_goes_on_to_the_same_adapter(folder: Path) -> None:
    assert train(folder, "whole").exit_code == 0
    command = [sys.executable, "-c", KILLED_RUN, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(Path(rsft.__file__).parents[1])}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint = folder / "killed" / "checkpoint.pt"
    deadline = time.monotonic() + 300
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.exists()
    again = train(folder, "killed")
    assert "resumed at step" in again.stdout
    whole, killed = (load_file(folder / out / "adapter/adapter_model.safetensors") for out in ("whole", "killed"))
    assert all(np.allclose(whole[name], killed[name], atol=1e-3) for name in whole)


KILLED_RUN = """
import sys
from pathlib import Path
from dataclasses import replace
import hashlib, os
from guardreasoner_moderation import weights
file = Path(os.environ["GUARDREASONER_BASE"])
content = file.read_bytes()
digest = hashlib.sha256(content).hexdigest()
base = replace(weights.BASES["smollm2-135m"], name="tiny", sha256=digest, size=len(content))
weights.BASES = {"tiny": base}
from training import rsft
folder = Path(sys.argv[1])
rsft.main(folder / "recipe.yaml", folder, folder / "killed")
"""


def test_a_run_folder_of_another_recipe_is_refused(folder: Path) -> None:
    assert train(folder).exit_code == 0
    (folder / "recipe.yaml").write_text(RECIPE.replace("rank: 2", "rank: 3"), encoding="utf-8")
    with pytest.raises(InputError, match="holds a run of another recipe"):
        train(folder)


def test_items_that_are_too_long_are_counted(folder: Path) -> None:
    (folder / "recipe.yaml").write_text(RECIPE.replace("max_tokens: 400", "max_tokens: 60"), encoding="utf-8")
    assert "items left out as longer than 60 tokens" in train(folder).stdout
