from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from example_cards import make_run, results, write
from hub_server import find_errors
from huggingface_hub import ModelCard, parse_eval_result_entries
from huggingface_hub.repocard_data import model_index_to_eval_results

from evaluation.benchmarks import BENCHMARKS
from model_cards.metadata import (
    card_data,
    entries_to_yaml,
    eval_entries,
    eval_results,
    find_card_problems,
    find_entry_problems,
    hub_benchmarks,
)
from model_cards.record import find_licence, read_record
from model_cards.results import Row, read_evidence

SHA = "0" * 64


def rows_of(tmp_path: Path, **benchmarks: dict[str, object]) -> list[Row]:
    return list(read_evidence([write(tmp_path / "r.json", results(SHA, benchmarks=benchmarks))], SHA).rows)


def card_of(tmp_path: Path, rows: list[Row]) -> str:
    record = read_record(make_run(tmp_path / "run"))
    return f"---\n{card_data(record, rows, find_licence(record.base), 'guard')}\n---\n# Guard\n"


def test_every_benchmark_has_its_home_on_the_hub() -> None:
    assert {name: home.dataset for name, home in hub_benchmarks().items()} == {
        name: benchmark.hub.id for name, benchmark in BENCHMARKS.items() if not benchmark.shipped
    }


def test_data_sets_are_told_apart_by_what_the_model_index_groups_by() -> None:
    names: dict[tuple[str, str | None], str] = {}
    for home in hub_benchmarks().values():
        assert names.setdefault((home.dataset, home.split), home.name) == home.name


def test_the_model_index_comes_back_through_the_hubs_own_reader(tmp_path: Path) -> None:
    everything = {name: {"task": benchmark.task.value} for name, benchmark in BENCHMARKS.items()}
    rows = rows_of(tmp_path, **everything)
    text = card_of(tmp_path, rows)
    data = ModelCard(text).data
    assert data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert (data.library_name, data.license, data.pipeline_tag) == ("peft", "apache-2.0", "text-generation")
    assert data.datasets == ["allenai/wildguardmix"]  # the other source is not on the Hub
    assert data.eval_results is not None
    assert len(data.eval_results) == 2 * len(hub_benchmarks())  # F1 and accuracy of each
    index = yaml.safe_load(text.split("---\n")[1])["model-index"]
    name, entries = model_index_to_eval_results(index)
    assert name == "guard"
    assert sorted(map(repr, entries)) == sorted(map(repr, eval_results(rows)))


def test_cells_that_were_trained_on_and_files_of_ones_own_are_left_out(tmp_path: Path) -> None:
    rows = rows_of(
        tmp_path,
        ToxicChat={"task": "request"},
        HarmBenchPrompt={"task": "request", "trained_on": True},
        Own={"task": "request"},
    )
    assert {one.dataset_type for one in eval_results(rows)} == {"lmsys/toxic-chat"}
    assert list(eval_entries(rows)) == ["toxicchat.yaml"]


def test_values_carry_mode_items_interval_and_scorer(tmp_path: Path) -> None:
    f1 = eval_results(rows_of(tmp_path, ToxicChat={"task": "request", "unjudged": 3}))[0]
    assert (f1.metric_type, f1.metric_value) == ("f1", 0.75)
    assert f1.metric_args == {
        "mode": "verdict",
        "n": 200,
        "interval_95": [0.68, 0.81],
        "scorer": "strict",
        "unjudged": 3,
    }
    assert f1.metric_name == "F1 of prompt harmfulness, verdict mode"


def test_eval_results_files_come_back_through_the_hubs_own_reader(tmp_path: Path) -> None:
    files = eval_entries(rows_of(tmp_path, ToxicChat={"task": "request", "revision": "a" * 40}))
    text = entries_to_yaml(files["toxicchat.yaml"])
    assert parse_eval_result_entries(yaml.safe_load(text)) == files["toxicchat.yaml"]
    (entry,) = yaml.safe_load(text)
    assert entry["dataset"] == {"id": "lmsys/toxic-chat", "task_id": "default", "revision": "a" * 40}
    assert entry["value"] == 0.75
    assert find_entry_problems(text) == []


def test_a_card_without_results_has_no_model_index(tmp_path: Path) -> None:
    text = card_of(tmp_path, [])
    assert "model-index" not in text
    assert find_card_problems(text) == []


def test_right_metadata_pass_here_and_at_the_stand_in(tmp_path: Path) -> None:
    text = card_of(tmp_path, rows_of(tmp_path, ToxicChat={"task": "request"}))
    assert find_card_problems(text) == []
    assert find_errors(text, "model") == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("library_name: peft\n", ""), "the card's metadata lack library_name"),
        (
            ("base_model: HuggingFaceTB/SmolLM2-135M-Instruct", "base_model: /tmp/base"),
            "base_model '/tmp/base' is no id",
        ),
        (("- allenai/wildguardmix", "- not an id"), "datasets 'not an id' is no id"),
        (("license: apache-2.0", "license: [unclosed"), "the card's metadata cannot be read"),
        (("---\n", ""), "the card has no metadata block"),
        (("      value: 0.75\n", ""), "the card's metadata cannot be read"),
    ],
)
def test_wrong_metadata_are_found(tmp_path: Path, change: tuple[str, str], problem: str) -> None:
    text = card_of(tmp_path, rows_of(tmp_path, ToxicChat={"task": "request"}))
    assert change[0] in text
    assert any(found.startswith(problem) for found in find_card_problems(text.replace(*change)))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- dataset: {id: a/b}\n  value: 1\n", "not in the format"),
        ("- dataset: {id: a/b, task_id: default}\n  value: high\n", "the value 'high' is no number"),
        ("- dataset: {id: a/b, task_id: default}\n  value: 1\n  score: 2\n", "holds keys"),
        ("hello", "not in the format"),
    ],
)
def test_wrong_eval_results_are_found(text: str, problem: str) -> None:
    assert any(found.startswith(problem) for found in find_entry_problems(text))
