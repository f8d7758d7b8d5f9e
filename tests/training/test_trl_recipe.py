from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from guardreasoner_moderation.errors import InputError
from training.recipe import read_recipe, read_strictly
from training.trl_recipe import DpoRecipe, SftRecipe

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "training" / "recipes"
MINIMAL = "base: owner/name\ndata:\n  - file: own.jsonl\n"


def write(folder: Path, text: str) -> Path:
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    return folder / "recipe.yaml"


@pytest.mark.parametrize("file", sorted(RECIPES.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_recipe_is_read_and_tells_what_it_takes(file: Path) -> None:
    if file.stem.endswith("_hs_dpo"):
        assert read_strictly(file, DpoRecipe).base
    elif file.stem.startswith("embedded"):
        assert read_recipe(file).data
    else:
        assert read_strictly(file, SftRecipe).data
    header = "".join(line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("#"))
    assert "Hardware:" in header
    if file.stem != "embedded":
        assert "Expected" in header
        assert "Hours:" in header


def published(column: str) -> dict[str, object]:
    """A column of the one table of the papers' parameters."""
    content = yaml.safe_load((ROOT / "model_cards" / "configurations.yaml").read_text(encoding="utf-8"))
    return {row["parameter"]: row[column] for row in content["rows"] if column in row}


@pytest.mark.parametrize("size", ["1b", "3b", "8b"])
def test_the_first_papers_recipes_have_its_parameters(size: str) -> None:
    sft = read_strictly(RECIPES / f"guardreasoner_{size}_rsft.yaml", SftRecipe)
    dpo = read_strictly(RECIPES / f"guardreasoner_{size}_hs_dpo.yaml", DpoRecipe)
    for column, recipe in (("rsft", sft), ("hs_dpo", dpo)):
        told = published(column)
        batch = f"{recipe.device_batch_size} x {recipe.batch_size // recipe.device_batch_size // 4} x 4"
        assert told["batch (samples of a step)"] == f"{batch} = {recipe.batch_size}"
        assert told["epochs"] == recipe.epochs
        assert float(str(told["learning rate"])) == recipe.learning_rate
        assert told["schedule"] == recipe.schedule
        assert told["warm-up steps"] == recipe.warmup_steps
        assert told["longest sequence (tokens)"] == recipe.max_tokens
        assert told["gradient clipping"] == recipe.max_grad_norm
        assert told["precision"] == recipe.precision
        assert recipe.method == "full"
    assert published("hs_dpo")["DPO beta"] == dpo.beta
    assert published("hs_dpo")["weight of the SFT term"] == dpo.sft_weight


def test_the_second_papers_recipe_has_its_parameters() -> None:
    recipe = read_strictly(RECIPES / "safety_through_reasoning_8b.yaml", SftRecipe)
    told = published("second")
    assert (recipe.batch_size, recipe.epochs) == (told["batch (samples of a step)"], told["epochs"])
    assert recipe.learning_rate == float(str(told["learning rate"]))
    assert recipe.base.endswith(str(told["base model"]))


def test_the_seeds_recipe_is_the_seeds_run() -> None:
    recipe = read_strictly(RECIPES / "llama32_3b_exp18.yaml", SftRecipe)
    assert (recipe.method, recipe.rank, recipe.alpha) == ("qlora", 16, 16)
    assert (recipe.epochs, recipe.device_batch_size, recipe.batch_size) == (1, 2, 2 * 64)
    assert (recipe.learning_rate, recipe.warmup_steps, recipe.schedule) == (5e-5, 100, "cosine")
    assert (recipe.optimizer, recipe.max_tokens, recipe.seed) == ("adamw_8bit", 2048, 3407)
    longer = read_strictly(RECIPES / "llama32_3b_exp18_5epochs.yaml", SftRecipe)
    assert (longer.epochs, longer.save_steps, longer.best) == (5, 0, "request_auprc")


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    text = "data:\n  - fil: own.jsonl\nlerning_rate: 0.1\nrank: many\nmethod: lora\n"
    with pytest.raises(InputError) as caught:
        read_strictly(write(tmp_path, text), SftRecipe)
    for part in (
        "unknown key lerning_rate; did you mean 'learning_rate'?",
        "rank must be of type int, found 'many'",
        "unknown key data[0].fil; did you mean 'file'",
        "the key base is missing",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("method: lorra", "unknown method 'lorra'; did you mean 'lora'"),
        ("precision: fp8", "unknown precision 'fp8'"),
        ("schedule: cosin", "did you mean 'cosine'"),
        ("optimizer: adam", "did you mean 'adamw'"),
        ("tracker: wandbb", "did you mean 'wandb'"),
        ("prompt_format: compakt", "did you mean 'compact'"),
        ("best: request_f2", "did you mean 'request_f1'"),
        ("chat: true\nprompt_format: compact", "chat belongs to the guardreasoner format"),
        ("batch_size: 0", "batch_size must be a whole number of at least 1, found 0"),
        ("beta: 0.1", "unknown key beta"),
    ],
)
def test_a_wrong_value_names_the_nearest(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_strictly(write(tmp_path, f"{MINIMAL}{line}\n"), SftRecipe)


def test_what_belongs_to_sft_is_no_key_of_dpo(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown key data"):
        read_strictly(write(tmp_path, MINIMAL), DpoRecipe)


@pytest.mark.parametrize("text", ["a: [", None])
def test_what_is_no_recipe_is_an_error(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "nowhere.yaml" if text is None else write(tmp_path, text)
    with pytest.raises(InputError, match=r"not valid YAML|cannot be read"):
        read_strictly(file, SftRecipe)


@pytest.mark.parametrize("name", ["ddp", "fsdp", "zero3"])
def test_the_launch_configurations_are_accelerates(name: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(ROOT / "training" / "accelerate" / f"{name}.yaml"))
    assert config.num_processes == 4
    assert config.mixed_precision == "no"  # the recipe decides
