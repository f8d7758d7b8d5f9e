"""The real command on a tiny model, and its loss by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import load_file
from tiny_runs import kill_after_checkpoint, run, write_pairs
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig

from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.models import read_spec
from training import hs_dpo, trl_run
from training.pairs import read_pairs
from training.preference_trainer import PairCollator, PreferenceTrainer, hs_dpo_losses
from training.trl_recipe import DpoRecipe

RECIPE = (Path(__file__).parents[2] / "training/recipes/tiny_hs_dpo.yaml").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # a tiny model is slower with more


@pytest.fixture
def folder(tmp_path: Path, tiny_base: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("base: tiny-base", f"base: {tiny_base}"), encoding="utf-8")
    write_pairs(tmp_path)
    return tmp_path


def train(folder: Path, start: Path, out: str = "run") -> dict[str, Any]:
    hs_dpo.main(folder / "recipe.yaml", folder / "pairs.jsonl", start, folder / out)
    record: dict[str, Any] = json.loads((folder / out / "run.json").read_text())
    return record


def log_probability(model: Any, prompt: list[int], answer: list[int]) -> float:
    """Of a whole answer, by a pass of its own without padding."""
    with torch.no_grad():
        rows = model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)
    return float(rows[range(len(answer)), answer].sum())


def test_the_loss_is_equation_2_with_its_sft_term(folder: Path, tiny_base: Path, tiny_adapter: Path) -> None:
    def adapted() -> Any:
        base = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float64)
        return PeftModel.from_pretrained(base, str(tiny_adapter), is_trainable=True, autocast_adapter_dtype=False)

    recipe = DpoRecipe(base=str(tiny_base), chat=True)
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    build = trl_run.ExampleBuilder.of(tokenizer, recipe)
    rows, _ = hs_dpo.build_rows(read_pairs(folder / "pairs.jsonl")[:3], build, 600)
    from datasets import load_from_disk

    settings = DPOConfig(
        output_dir=str(folder / "run"),
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        remove_unused_columns=False,
        report_to="none",
        beta=0.01,
        max_length=None,
        precompute_ref_log_probs=True,
        precompute_ref_batch_size=2,
    )
    trainer = PreferenceTrainer(
        adapted(),
        args=settings,
        sft_weight=2.0,
        data_collator=PairCollator(pad_token_id=tokenizer.pad_token_id),
        train_dataset=load_from_disk(str(hs_dpo.write_rows_once(rows, folder / "pairs"))),
        processing_class=tokenizer,
    )
    policy = adapted()
    for model in (trainer.model, policy):  # training has gone some way
        torch.manual_seed(2)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data += 0.5 * torch.randn_like(parameter)

    by_hand = []
    reference = adapted()
    for row in rows:
        prompt, chosen, rejected = (list(row[key]) for key in ("prompt_ids", "chosen_ids", "rejected_ids"))
        a = 0.01 * (log_probability(policy, prompt, chosen) - log_probability(reference, prompt, chosen))
        b = 0.01 * (log_probability(policy, prompt, rejected) - log_probability(reference, prompt, rejected))
        preference = -row["alpha"] * math.log(1 / (1 + math.exp(-(a - b))))
        by_hand.append(preference + 2.0 * -log_probability(policy, prompt, chosen) / len(chosen))
        assert abs(a - b) > 1e-3  # so that the reference counts

    batch = trainer.data_collator(list(trainer.train_dataset))
    loss = trainer.compute_loss(trainer.model, batch)
    assert loss.item() == pytest.approx(sum(by_hand) / 3, abs=1e-6)
    assert "ref" not in trainer.model.peft_config


def test_a_weight_counts_for_the_preference_alone() -> None:
    zeros = torch.zeros(2)
    losses, margins = hs_dpo_losses(
        zeros, zeros, torch.tensor([1.0, 1.5]), torch.tensor([0.25, 0.25]), beta=0.01, sft_weight=2.0
    )
    assert losses.tolist() == pytest.approx([math.log(2) + 0.5, 1.5 * math.log(2) + 0.5])
    assert margins.tolist() == [0, 0]


def test_a_run_prefers_the_chosen_answers(folder: Path, tiny_adapter: Path) -> None:
    with (folder / "recipe.yaml").open("a", encoding="utf-8") as recipe:
        recipe.write("sft_weight: 0.0\n")
    record = train(folder, tiny_adapter)
    assert record["steps"] == len(record["losses"]) == 6  # 11 pairs, 4 in a step, twice
    assert record["margins"][0] == pytest.approx(0, abs=1e-5)  # nothing is learned yet: policy and reference are one
    assert record["margins"][-1] > 0
    assert record["preferred"][-1] == 1
    assert set(record["data_sha256"]) == {"pairs"}
    adapter = load_file(folder / "run" / "adapter" / "adapter_model.safetensors")
    start = load_file(tiny_adapter / "adapter_model.safetensors")
    assert adapter.keys() == start.keys()  # one adapter, not a copy of the reference
    assert any(not np.allclose(adapter[name], start[name]) for name in adapter)
    spec = read_spec(folder / "run" / "adapter" / "moderation.json")
    assert spec.chat
    assert spec.base is not None


def test_a_killed_run_goes_on_to_the_same_adapter(folder: Path, tiny_adapter: Path) -> None:
    arguments = (folder / "recipe.yaml", "--pairs", folder / "pairs.jsonl", "--adapter", tiny_adapter, "--out")
    kill_after_checkpoint(run("training.hs_dpo", *arguments, folder / "killed"), folder / "killed")
    assert not (folder / "killed" / "run.json").exists()
    killed, whole = train(folder, tiny_adapter, "killed"), train(folder, tiny_adapter, "whole")
    assert killed["losses"] == pytest.approx(whole["losses"], abs=1e-4)
    one, other = (load_file(folder / out / "adapter/adapter_model.safetensors") for out in ("killed", "whole"))
    assert all(np.allclose(one[name], other[name], atol=1e-4) for name in one)


def test_all_weights_are_trained_from_a_whole_model(folder: Path, tiny_base: Path) -> None:
    text = RECIPE.replace("base: tiny-base", f"base: {tiny_base}") + "method: full\nmax_steps: 2\n"
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    assert train(folder, tiny_base)["margins"][-1] > 0
    assert (folder / "run" / "model" / "model.safetensors").exists()
    assert read_spec(folder / "run" / "model" / "moderation.json").base is None


@pytest.mark.filterwarnings("ignore:Could not find a config file")  # peft asks the Hub for the embedded base's
def test_the_embedded_base_is_trained_from_its_adapter(folder: Path, tiny_weights: str, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    from guardreasoner_moderation import weights
    from guardreasoner_moderation.checkpoint import read_gguf
    from guardreasoner_moderation.engines.transformers import llama_from_checkpoint

    model = llama_from_checkpoint(read_gguf(weights.base_file(tiny_weights)))
    config = LoraConfig(r=2, target_modules=["q_proj"], layers_to_transform=[1], task_type="CAUSAL_LM")
    get_peft_model(model, config).save_pretrained(tmp_path / "start")
    text = RECIPE.replace("base: tiny-base", f"base: {tiny_weights}").replace(
        "chat: true", "prompt_format: compact\nmax_steps: 2"
    )
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    assert train(folder, tmp_path / "start")["steps"] == 2
    adapter = load_file(folder / "run" / "adapter" / "adapter_model.safetensors")
    assert {name.split(".")[4] for name in adapter} == {"1"}  # its layers are those of the start
    assert read_spec(folder / "run" / "adapter" / "moderation.json").base == tiny_weights


def test_an_adapter_does_not_go_with_training_of_all_weights(folder: Path, tiny_base: Path, tiny_adapter: Path) -> None:
    text = RECIPE.replace("base: tiny-base", f"base: {tiny_base}") + "method: full\n"
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="holds an adapter, which does not go with method: full"):
        train(folder, tiny_adapter)


def test_a_start_that_is_asked_otherwise_is_refused(folder: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    start = tmp_path / "start"
    start.mkdir()
    for file in tiny_adapter.iterdir():
        (start / file.name).write_bytes(file.read_bytes())
    (start / "moderation.json").write_text('{"prompt_format": "compact"}')
    with pytest.raises(InputError, match="is asked with prompt_format: compact and chat: false"):
        train(folder, start)


def test_pairs_that_are_all_too_long_are_an_error(folder: Path, tiny_base: Path, tiny_adapter: Path) -> None:
    text = RECIPE.replace("base: tiny-base", f"base: {tiny_base}").replace("max_tokens: 600", "max_tokens: 60")
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="no pair is left: all 11 have more than 60 tokens"):
        train(folder, tiny_adapter)
