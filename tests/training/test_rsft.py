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
from guardreasoner_moderation.models import weights_sha256
from training import packed, rsft

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


def train(folder: Path, out: str = "run", *more: str) -> Result:
    app = Typer(pretty_exceptions_enable=False)
    app.command()(rsft.main)
    arguments = [str(folder / "recipe.yaml"), "--data-dir", str(folder), "--out", str(folder / out), *more]
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
    lengthen(folder, "own-1")
    assert "2 items left out as longer than 400 tokens" in train(folder).stdout


def lengthen(folder: Path, *ids: str) -> None:
    rows = [json.loads(line) for line in (folder / "own.jsonl").read_text().splitlines()]
    for row in rows:
        if row["id"] in ids or not ids:
            row["prompt"] += " and more" * 300
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_nothing_short_enough_is_an_error(folder: Path) -> None:
    lengthen(folder)
    with pytest.raises(InputError, match="nothing to learn from: all 18 items are longer than 400 tokens"):
        train(folder)


def test_the_adapter_is_that_of_the_look_with_the_least_loss(folder: Path) -> None:
    assert train(folder).exit_code == 0
    record = json.loads((folder / "run" / "run.json").read_text())
    assert record["best"]["step"] == min(record["validation"], key=lambda look: look["loss"])["step"]
    assert (folder / "run" / "curves.png").stat().st_size > 10_000
    assert len(json.loads((folder / "run" / "curves.json").read_text())["training loss"]) == 6


def test_bfloat16_comes_to_nearly_the_same_losses(folder: Path) -> None:
    assert train(folder, "fp32").exit_code == 0
    (folder / "recipe.yaml").write_text(RECIPE + "precision: bf16\n", encoding="utf-8")
    assert train(folder, "bf16").exit_code == 0
    losses = [json.loads((folder / out / "run.json").read_text())["losses"] for out in ("fp32", "bf16")]
    assert losses[0] != losses[1]
    assert np.allclose(*losses, rtol=0.05)


def test_a_run_can_be_cut_short_before_its_decay_and_not_after(folder: Path) -> None:
    longer = RECIPE.replace("epochs: 2", "epochs: 4")
    (folder / "recipe.yaml").write_text(longer, encoding="utf-8")
    assert train(folder).exit_code == 0
    (folder / "recipe.yaml").write_text(longer + "max_steps: 6\n", encoding="utf-8")
    with pytest.raises(InputError, match="max_steps cannot change any more: the run is at step 12"):
        train(folder)


def test_a_second_round_starts_from_an_adapter(folder: Path) -> None:
    assert train(folder, "first").exit_code == 0
    first = json.loads((folder / "first" / "run.json").read_text())
    assert train(folder, "second", "--start", str(folder / "first" / "adapter")).exit_code == 0
    second = json.loads((folder / "second" / "run.json").read_text())
    assert second["started_from"]["weights_sha256"] == weights_sha256(folder / "first" / "adapter")
    assert second["started_from"]["run"]["tokens"] == first["tokens"]
    assert "losses" not in second["started_from"]["run"]
    assert second["losses"][0] < first["losses"][0]


def test_an_adapter_of_another_shape_is_refused(folder: Path) -> None:
    assert train(folder, "first").exit_code == 0
    (folder / "recipe.yaml").write_text(RECIPE.replace("rank: 2", "rank: 3"), encoding="utf-8")
    with pytest.raises(InputError, match="does not fit: its layers or shapes are not those of rank 3 from layer 1"):
        train(folder, "second", "--start", str(folder / "first" / "adapter"))


def test_where_memory_runs_out_the_pass_gets_smaller(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = packed.loss_sum

    def limited(model: object, batch: packed.PackedBatch) -> object:
        if batch.ids.shape[1] > 160:
            raise MemoryError
        return real(model, batch)  # type: ignore[arg-type]

    assert train(folder, "whole").exit_code == 0
    monkeypatch.setattr(packed, "loss_sum", limited)
    result = train(folder, "small")
    assert "did not fit into memory; going on with 150 tokens in a pass" in result.stdout
    losses = [json.loads((folder / out / "run.json").read_text())["losses"] for out in ("whole", "small")]
    assert np.allclose(*losses, atol=1e-3)
