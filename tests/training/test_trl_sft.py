"""The real command on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tiny_runs import kill_after_checkpoint, run, write_data

from guardreasoner_moderation.errors import EngineError, InputError, ModelNotFoundError
from guardreasoner_moderation.models import load_model, read_spec
from training import trl_sft

RECIPE = (Path(__file__).parents[2] / "training/recipes/tiny_rsft.yaml").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # a tiny model is slower with more


@pytest.fixture
def folder(tmp_path: Path, tiny_base: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("base: tiny-base", f"base: {tiny_base}"), encoding="utf-8")
    return write_data(tmp_path)


def change(folder: Path, **changes: Any) -> None:
    """Sets keys of the recipe."""
    lines = (folder / "recipe.yaml").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.partition(":")[0] not in changes]
    kept += [f"{key}: {json.dumps(value)}" for key, value in changes.items()]
    (folder / "recipe.yaml").write_text("\n".join(kept) + "\n", encoding="utf-8")


def train(folder: Path, out: str = "run") -> dict[str, Any]:
    trl_sft.main(folder / "recipe.yaml", folder, folder / out)
    return read_run(folder / out)


def read_run(out: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((out / "run.json").read_text())
    return record


def test_a_run_leaves_an_adapter_that_judges(folder: Path, tiny_base: Path) -> None:
    record = train(folder)
    assert record["steps"] == len(record["losses"])
    assert record["tokens"] > 0
    assert set(record["data_sha256"]) == {"own.jsonl"}
    assert [look["step"] for look in record["validation"]] == [record["steps"] // 2, record["steps"]]
    assert record["validation"][-1]["request"]["n"] == 3
    assert record["validation"][-1]["completion"]["n"] == 1
    assert {"accuracy", "f1", "auprc", "brier", "calibration_error"} < set(record["validation"][-1]["request"])
    spec = read_spec(folder / "run" / "adapter" / "moderation.json")
    assert (spec.chat, spec.base) == (True, str(tiny_base))
    loaded = load_model(folder / "run" / "adapter")
    assert loaded.engine.name == "transformers"


def test_a_run_learns(folder: Path) -> None:
    change(folder, method="full", epochs=5)
    losses = train(folder)["losses"]
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])


def test_the_loss_is_the_weighted_mean_over_the_step(folder: Path, tiny_base: Path) -> None:
    """Of a whole step, however it is divided into forward passes, as :mod:`training.rsft` has it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from training.recipe import DataSource
    from training.trl_recipe import SftRecipe
    from training.trl_run import ExampleBuilder

    change(folder, batch_size=16, device_batch_size=1, epochs=1)
    losses = train(folder)["losses"]
    recipe = SftRecipe(base=str(tiny_base), data=(DataSource("own.jsonl"),), chat=True, label_weight=4.0)
    build = ExampleBuilder.of(AutoTokenizer.from_pretrained(tiny_base), recipe)
    sources = [(recipe.data[0], trl_sft.read_interactions(folder / "own.jsonl"))]
    examples, _ = trl_sft.build_training(recipe, sources, build)
    assert len(examples) == 16  # one step
    model = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    total = weights = 0.0
    for example in examples:
        ids = torch.tensor([example.ids])
        with torch.no_grad():
            spent = torch.nn.functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none")
        total += float(spent.double() @ torch.tensor(example.weights[1:], dtype=torch.float64))
        weights += sum(example.weights)
    assert losses[0] == pytest.approx(total / weights, abs=2e-5)


def test_accumulated_passes_are_one_batch(folder: Path) -> None:
    change(folder, device_batch_size=4)
    at_once = train(folder, "at-once")["losses"]
    change(folder, device_batch_size=1)
    assert train(folder, "one-by-one")["losses"] == pytest.approx(at_once, abs=1e-4)


@pytest.mark.slow
def test_two_processes_go_the_way_of_one(folder: Path) -> None:
    change(folder, device_batch_size=1)
    alone = train(folder, "alone")
    # Without a GPU these are processes on the CPU, which talk by gloo; --cpu would start one of them only.
    launcher = ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1")
    launcher += ("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0")
    arguments = (folder / "recipe.yaml", "--data-dir", folder, "--out", folder / "two")
    process = run("training.trl_sft", *arguments, launcher=launcher)
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output
    two = read_run(folder / "two")
    assert two["processes"] == 2
    assert two["losses"] == pytest.approx(alone["losses"], abs=1e-4)
    assert [look["loss"] for look in two["validation"]] == pytest.approx(
        [look["loss"] for look in alone["validation"]], abs=1e-4
    )


def test_a_killed_run_goes_on_to_the_same_adapter(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder, save_steps=1, epochs=3)
    arguments = (folder / "recipe.yaml", "--data-dir", folder, "--out", folder / "killed")
    kill_after_checkpoint(run("training.trl_sft", *arguments), folder / "killed")
    assert not (folder / "killed" / "run.json").exists()
    killed = train(folder, "killed")
    assert "goes on from checkpoint-" in capsys.readouterr().out
    whole = train(folder, "whole")
    assert killed["losses"] == pytest.approx(whole["losses"], abs=1e-4)
    one, other = (load_file(folder / out / "adapter/adapter_model.safetensors") for out in ("killed", "whole"))
    assert all(np.allclose(one[name], other[name], atol=1e-4) for name in one)


def test_half_a_checkpoint_is_passed_over(tmp_path: Path) -> None:
    from training.trl_run import newest_checkpoint

    assert newest_checkpoint(tmp_path) is None
    for step, state in ((9, "{}"), (10, '{"half'), (11, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state is not None:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-9")


def test_the_last_step_is_looked_at_too(folder: Path) -> None:
    change(folder, save_steps=3)
    record = train(folder)
    assert [look["step"] for look in record["validation"]] == [3, 6, 8]
    assert record["steps"] == 8


def test_the_best_checkpoint_is_taken(folder: Path) -> None:
    """Which is not the last one where the rate destroys what was learned: with which seed, depends on the machine."""
    for seed, rate in enumerate([2.0, 1.0, 0.3] * 5):
        change(folder, learning_rate=rate, schedule="constant", epochs=4, seed=seed)
        out = f"run-{seed}"
        try:
            record = train(folder, out)
        except EngineError:  # the rate has destroyed all: no look has scores any more
            continue
        best = min(record["validation"], key=lambda look: look["loss"])
        assert record["best_step"] == best["step"]
        if best["step"] < record["steps"]:
            break
    assert best["step"] < record["steps"]
    kept = load_file(folder / out / "adapter" / "adapter_model.safetensors")
    checkpoint = load_file(folder / out / f"checkpoint-{best['step']}" / "adapter_model.safetensors")
    assert all(np.array_equal(kept[name], checkpoint[name]) for name in kept)


def test_a_run_that_diverges_says_so(folder: Path) -> None:
    change(folder, learning_rate=1e6, schedule="constant", max_grad_norm=1e6)
    with pytest.raises(EngineError, match="training has diverged"):
        train(folder)


def test_all_weights_are_trained(folder: Path, tiny_base: Path) -> None:
    change(folder, method="full", max_steps=2, epochs=1)
    train(folder)
    trained = load_file(folder / "run" / "model" / "model.safetensors")
    start = load_file(tiny_base / "model.safetensors")
    assert all(not np.allclose(trained[name], start[name]) for name in start)
    assert read_spec(folder / "run" / "model" / "moderation.json").base is None


def test_bf16_with_checkpointing_trains(folder: Path) -> None:
    change(folder, precision="bf16", max_steps=2, gradient_checkpointing=True)
    assert all(np.isfinite(train(folder)["losses"]))


@pytest.mark.parametrize(
    "changes", [{"method": "qlora"}, {"optimizer": "adamw_8bit"}, {"precision": "fp16"}], ids=lambda one: str(*one)
)
def test_what_needs_a_gpu_says_so(folder: Path, changes: dict[str, str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    change(folder, **changes)
    ((key, value),) = changes.items()
    with pytest.raises(InputError, match=f"{key}: {value} needs a CUDA GPU"):
        train(folder)
    assert not (folder / "run").exists()


def test_a_tracker_that_is_not_installed_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError

    from training import trl_run

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(trl_run, "version", missing)
    change(folder, tracker="trackio")
    with pytest.raises(InputError, match="pip install trackio"):
        train(folder)


def test_a_batch_that_cannot_be_divided_is_an_error(folder: Path) -> None:
    change(folder, batch_size=5)
    with pytest.raises(InputError, match="choose a multiple of 2"):
        train(folder)


def test_a_run_folder_of_another_recipe_is_refused(folder: Path) -> None:
    change(folder, max_steps=1)
    train(folder)
    change(folder, rank=3)
    with pytest.raises(InputError, match="holds a run of another recipe"):
        train(folder)


def test_items_that_are_all_too_long_are_an_error(folder: Path) -> None:
    change(folder, max_tokens=50)
    with pytest.raises(InputError, match="11 items have more than 50 tokens"):
        train(folder)


def test_a_missing_base_is_told(folder: Path, tmp_path: Path) -> None:
    change(folder, base=str(tmp_path / "nowhere"))
    with pytest.raises(ModelNotFoundError, match="could not be loaded"):
        train(folder)


def test_reasoning_alone_is_looked_at_by_think_prompts(folder: Path, tiny_base: Path) -> None:
    from transformers import AutoTokenizer

    from training.recipe import DataSource
    from training.trl_recipe import SftRecipe
    from training.trl_run import ExampleBuilder

    source = DataSource("own.jsonl", think_share=1.0)
    recipe = SftRecipe(base=str(tiny_base), data=(source,), chat=True, answers_alone=False)
    build = ExampleBuilder.of(AutoTokenizer.from_pretrained(tiny_base), recipe)
    sources = [(source, trl_sft.read_interactions(folder / "own.jsonl"))]
    shown, _ = trl_sft.build_training(recipe, sources, build)
    assert len(shown) == 11  # each item once, with its reasoning
    for example in trl_sft.build_validation(recipe, sources, build):
        text = build.encoder.decode(list(example.ids))
        assert "You must think step by step" in text
        assert "The user wants to" not in text
