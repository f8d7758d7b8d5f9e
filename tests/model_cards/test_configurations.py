from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from example_cards import make_run

from guardreasoner_moderation.errors import InputError
from model_cards.configurations import read_configurations, render_configurations
from model_cards.record import read_record

COLUMN = {"key": "paper", "title": "The paper", "source": "arXiv 1, table 2"}


def render(tmp_path: Path, **row: object) -> str:
    file = tmp_path / "configurations.yaml"
    file.write_text(yaml.safe_dump({"columns": [COLUMN], "rows": [row]}))
    return render_configurations(read_record(make_run(tmp_path / "run")), file)


def test_the_first_place_that_a_run_has_is_shown(tmp_path: Path) -> None:
    table = render(tmp_path, parameter="rate", paper=1e-06, ours=["run.recipe.lr", "run.recipe.learning_rate"])
    assert "| rate | 1e-06 | 0.0005 |" in table
    assert table.endswith("Sources: The paper: arXiv 1, table 2.")


def test_a_place_may_come_with_words(tmp_path: Path) -> None:
    assert "| size | - | 16 items |" in render(tmp_path, parameter="size", ours=[{"run.recipe.batch_size": "{} items"}])


def test_a_parameter_that_a_recipe_does_not_know_is_none_of_its_methods(tmp_path: Path) -> None:
    assert "| beta | 0.01 | none |" in render(tmp_path, parameter="beta", paper=0.01, ours=["run.beta"], without="none")
    (tmp_path / "run" / "run.json").write_text("{}")
    record = read_record(tmp_path / "run")
    assert "| beta | 0.01 | not recorded |" in render_configurations(record, tmp_path / "configurations.yaml")


def test_what_neither_has_is_said_so(tmp_path: Path) -> None:
    assert "| schedule | - | not recorded |" in render(tmp_path, parameter="schedule", ours=["run.schedule"])


def test_items_are_counted_from_the_inventory(tmp_path: Path) -> None:
    assert "| 3100 items of 2 sources (less those with doubtful labels) |" in render(
        tmp_path, parameter="data", ours=["data.items"]
    )


def test_a_misspelt_column_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown key 'papr'; did you mean 'paper'"):
        render(tmp_path, parameter="rate", papr=1, ours=[])


def test_the_papers_are_not_mixed_up() -> None:
    """DESIGN: each paper's settings are its own."""
    columns, parameters = read_configurations()
    by_name = {parameter.name: parameter.values for parameter in parameters}
    assert [column.key for column in columns] == ["rsft", "hs_dpo", "second", "seed"]
    assert all(column.source for column in columns)
    assert by_name["batch (samples of a step)"]["second"] == 32
    assert by_name["learning rate"] == {"rsft": "5e-05", "hs_dpo": "5e-06", "second": "1e-06", "seed": "5e-05"}
    assert by_name["epochs"] == {"rsft": 3, "hs_dpo": 2, "second": 5, "seed": "1, then 5"}
    assert by_name["DPO beta"]["hs_dpo"] == 0.01
    assert by_name["seed"]["seed"] == 3407
