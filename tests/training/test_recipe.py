from __future__ import annotations

from pathlib import Path

import pytest

from guardreasoner_moderation.errors import InputError
from training.recipe import DataSource, Recipe, read_recipe

RECIPES = Path(__file__).parents[2] / "training" / "recipes"
MINIMAL = "base: smollm2-135m\ndata:\n  - file: own.jsonl\n"


def write(folder: Path, text: str) -> Path:
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    return folder / "recipe.yaml"


# The others are of the trainers on trl; see test_trl_recipe.py.
@pytest.mark.parametrize(
    "file", [RECIPES / "embedded.yaml", RECIPES / "embedded_second_round.yaml"], ids=lambda file: file.stem
)
def test_every_shipped_recipe_is_read(file: Path) -> None:
    assert read_recipe(file).data


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    assert read_recipe(write(tmp_path, MINIMAL)) == Recipe(base="smollm2-135m", data=(DataSource("own.jsonl"),))


def test_a_whole_number_may_stand_for_a_fraction(tmp_path: Path) -> None:
    assert read_recipe(write(tmp_path, f"{MINIMAL}learning_rate: 1\n")).learning_rate == 1.0


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    text = "data:\n  - fil: own.jsonl\n    think_share: 2\nlerning_rate: 0.1\nrank: many\n"
    with pytest.raises(InputError) as caught:
        read_recipe(write(tmp_path, text))
    for part in (
        "did you mean 'learning_rate'",
        "rank must be of type int, found 'many'",
        "unknown key data[0].fil; did you mean 'file'",
        "the key data[0].file is missing",
        "the key base is missing",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "the recipe must be a mapping"),
        ("a: [", "not valid YAML"),
        (MINIMAL + "    think_share: 1.5\n", "think_share must be between 0 and 1"),
        ("base: smollm2-135m\ndata: own.jsonl\n", "must be a mapping, found str"),
        (MINIMAL + "rank: true\n", "rank must be of type int"),
        (MINIMAL + "rank: -16\n", "rank must be a whole number of at least 1, found -16"),
        (MINIMAL + "first_layer: -1\n", "first_layer must be a whole number of at least 0"),
        (MINIMAL + "learning_rate: .nan\n", "learning_rate must be a finite number, found nan"),
        (MINIMAL + f"learning_rate: 1{'0' * 400}\n", "learning_rate must be a finite number"),
        (MINIMAL + "rank: 8\nrank: 16\n", "the key 'rank' stands there twice"),
        (MINIMAL + "presicion: bf16\n", "unknown key presicion; did you mean 'precision'"),
        (MINIMAL + "precision: bf61\n", "unknown precision 'bf61'; did you mean 'bf16'"),
    ],
)
def test_a_wrong_recipe_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_recipe(write(tmp_path, text))


def test_a_missing_recipe_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_recipe(tmp_path / "nowhere.yaml")
