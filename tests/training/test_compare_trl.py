"""Both sides for real on a tiny model; no figure of time is looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from tiny_runs import write_data

from training import compare_trl
from training.compare_trl import Measurement
from training.recipe import DataSource, Recipe


@pytest.fixture
def recipe(tiny_weights: str) -> Recipe:
    torch.set_num_threads(1)
    return Recipe(base=tiny_weights, data=(DataSource("own.jsonl"),), rank=2, batch_size=4, token_budget=400)


@pytest.mark.parametrize("side", ["packed", "trl"])
def test_a_side_counts_real_tokens_of_the_timed_steps(recipe: Recipe, tmp_path: Path, side: str) -> None:
    from guardreasoner_moderation import weights
    from guardreasoner_moderation.checkpoint import read_gguf

    data = write_data(tmp_path)
    measured = compare_trl.measure(side, recipe, data, 1, 1)
    batches = compare_trl.first_batches(recipe, data, read_gguf(weights.base_file(recipe.base)), 2)
    lengths = [sum(map(len, batch)) for batch in batches]
    assert measured.seconds > 0
    assert measured.peak_megabytes > 50
    if side == "packed":
        assert measured.tokens == lengths[1]
    else:  # trl draws its own order
        assert 0 < measured.tokens < sum(lengths)


def test_the_ratio_is_the_median_of_neighbours() -> None:
    runs = {
        "packed": [Measurement(300, 1.0, 10), Measurement(900, 1.0, 12), Measurement(100, 1.0, 11)],
        "trl": [Measurement(100, 1.0, 20), Measurement(100, 1.0, 22), Measurement(100, 1.0, 24)],
    }
    record = compare_trl.summary(runs)
    assert (record["ratio"], record["holds"]) == (3.0, True)
    assert record["sides"]["packed"]["tokens_per_second"] == 300
    assert record["sides"]["trl"]["peak_megabytes"] == 22


def test_sides_take_turns_and_less_than_the_floor_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []

    def run(side: str, *_: Any) -> Measurement:
        order.append(side)
        return Measurement(150 if side == "packed" else 100, 1.0, 10)

    monkeypatch.setattr(compare_trl, "run_apart", run)
    with pytest.raises(typer.Exit):
        compare_trl.main(
            tmp_path / "recipe.yaml", tmp_path, tmp_path / "out.json", rounds=2, steps=1, threads=1, side=""
        )
    assert order == ["packed", "trl", "trl", "packed"]
    record = json.loads((tmp_path / "out.json").read_text())
    assert (record["ratio"], record["floor"], record["holds"]) == (1.5, 2.0, False)
