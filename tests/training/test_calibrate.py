from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from conftest import scripted

from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.results import Label, Mode, Task
from training.calibrate import Pair, describe, fit, judge_all, log_odds, read_either
from training.data import LabelledInteraction

RECIPES = Path(__file__).parents[2] / "training" / "recipes"


def draw(scale: float, shift: float, count: int) -> list[Pair]:
    dice = random.Random(3)
    odds = [dice.uniform(-6, 6) for _ in range(count)]
    return [((value, 0.0), dice.random() < 1 / (1 + math.exp(-scale * value - shift))) for value in odds]


def test_an_answer_that_would_count_against_itself_is_left_out() -> None:
    dice = random.Random(5)
    pairs: list[Pair] = []
    for _ in range(5000):
        after, first = dice.uniform(-4, 4), dice.uniform(-4, 4)
        pairs.append(((after, first), dice.random() < 1 / (1 + math.exp(0.3 * after - first))))
    calibration = fit(pairs)
    assert calibration.scale == 0
    assert calibration.first_scale > 0.5


def test_the_fit_finds_the_true_scale_and_shift() -> None:
    calibration = fit(draw(0.6, -0.8, 20_000))
    assert calibration.scale == pytest.approx(0.6, abs=0.05)
    assert calibration.shift == pytest.approx(-0.8, abs=0.1)


def test_the_fit_stays_finite_where_the_labels_are_separated() -> None:
    calibration = fit([((-2.0, 0.0), False), ((-1.0, 0.0), False), ((1.0, 0.0), True), ((2.0, 0.0), True)])
    assert 0 < calibration.scale < 100
    assert calibration.first_scale == 0


def test_the_fit_weighs_the_first_answers_by_what_they_tell() -> None:
    dice = random.Random(4)
    pairs: list[Pair] = []
    for _ in range(20_000):
        after, first = dice.uniform(-4, 4), dice.uniform(-4, 4)
        pairs.append(((after, first), dice.random() < 1 / (1 + math.exp(-0.2 * after - first))))
    calibration = fit(pairs)
    assert calibration.scale == pytest.approx(0.2, abs=0.05)
    assert calibration.first_scale == pytest.approx(1.0, abs=0.1)


def test_one_label_alone_cannot_be_calibrated() -> None:
    with pytest.raises(InputError, match="needs both"):
        fit([((1.0, 0.0), True), ((2.0, 0.0), True)])


def test_calibration_lowers_the_brier_score() -> None:
    pairs = draw(0.3, 1.0, 5000)
    figures = describe(pairs, fit(pairs))
    assert figures["brier"] < figures["brier_before"]


@pytest.mark.parametrize("score", [0.0, 1.0, 0.25])
def test_log_odds_are_finite(score: float) -> None:
    assert math.isfinite(log_odds(score))
    assert log_odds(0.5) == 0


def item(number: int) -> LabelledInteraction:
    return LabelledInteraction(
        f"own-{number}", "own", "CC0-1.0", "validation", Interaction(f"text {number}"), {Task.REQUEST: Label.HARMFUL},
        None, {}, doubtful=False,
    )  # fmt: skip


def test_judging_goes_on_where_it_stopped(tmp_path: Path) -> None:
    file = tmp_path / "verdict.jsonl"
    items = [item(number) for number in range(5)]
    asked: list[str] = []

    def reply(prompt: object) -> str:
        asked.append(str(prompt))
        return " harmful"

    whole = judge_all(scripted(reply), items[:3], Mode.VERDICT, file)
    file.write_text(file.read_text() + '{"id": "own-3", "requ', encoding="utf-8")
    again = judge_all(scripted(reply), items, Mode.VERDICT, file)
    assert len(asked) == 5
    assert {key: again[key] for key in whole} == whole
    assert again["own-4"]["request"] == pytest.approx(math.log(9))
    assert len(file.read_text().splitlines()) == 5


@pytest.mark.parametrize(
    "name", ["embedded.yaml", "embedded_second_round.yaml", "tiny_rsft.yaml", "llama32_3b_exp18.yaml"]
)
def test_recipes_of_both_trainers_are_read(name: str) -> None:
    assert read_either(RECIPES / name).data


def test_a_recipe_of_neither_trainer_says_what_each_would_need(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("base: tiny\ndata: []\nlerning_rate: 1\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"no recipe of training\.rsft \(.*learning_rate.*nor of training\.trl_sft \("):
        read_either(tmp_path / "recipe.yaml")
