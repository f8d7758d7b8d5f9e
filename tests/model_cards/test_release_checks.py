from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from example_cards import BASE, EMBEDDED, decision, make_run, results, sha256_of_run, write
from safetensors.numpy import load_file, save_file

from guardreasoner_moderation import weights
from model_cards.bundle import Bundle, write_bundle
from model_cards.checks import find_gate_problem, find_loading_problem, find_problems, read_header
from model_cards.record import read_record
from model_cards.request import Request

LLAMA = "meta-llama/Llama-3.2-3B-Instruct"


def bundle_of(tmp_path: Path, *, base: str = BASE, licence_file: Path | None = None) -> Bundle:
    run = make_run(tmp_path / "run", base=base)
    file = write(tmp_path / "r.json", results(sha256_of_run(run), benchmarks={"ToxicChat": {"task": "request"}}))
    return write_bundle(Request(run, [file]), tmp_path / "out", licence_file=licence_file)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle_of(tmp_path_factory.mktemp("written"))


@pytest.fixture
def bundle(written: Bundle, tmp_path: Path) -> Bundle:
    """A right upload folder, of the test's own."""
    shutil.copytree(written.folder, tmp_path / "bundle")
    return replace(written, folder=tmp_path / "bundle")


def test_a_right_folder_has_no_problems(bundle: Bundle) -> None:
    assert find_problems(bundle, "team/guard") == []


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("pytorch_model.bin", "pytorch_model.bin does not belong into a release"),
        ("train.jsonl", "train.jsonl does not belong into a release"),
        ("optimizer.json", "optimizer.json is a training state"),
        ("results/predictions/a.json", "results/predictions/a.json does not belong into a release"),
    ],
)
def test_data_pickles_and_training_states_are_found(bundle: Bundle, name: str, problem: str) -> None:
    (bundle.folder / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle.folder / name).write_text("{}")
    assert problem in find_problems(bundle, "team/guard")


def test_a_folder_of_this_machine_is_not_told(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bundle.folder)
    write(bundle.folder / "run.json", {"data": f"{bundle.folder}/train.jsonl"})
    assert find_problems(bundle, "team/guard") == [f"run.json names a folder of this machine, {bundle.folder}"]


def test_a_base_by_its_path_is_found(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", base="/models/base")
    bundle = write_bundle(Request(run, licence="mit"), tmp_path / "out")
    problems = find_problems(bundle, "team/guard")
    assert any("names its base by a path, /models/base" in problem for problem in problems)
    assert any("base_model '/models/base' is no id on the Hub" in problem for problem in problems)


def test_other_weights_than_the_runs_are_found(bundle: Bundle) -> None:
    file = bundle.folder / "adapter_model.safetensors"
    save_file({name: tensor * 2 for name, tensor in load_file(file).items()}, file)
    assert "the weights in the upload folder are not those of the run" in find_problems(bundle, "team/guard")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"PK\x03\x04 a pickle in a zip, named otherwise", "is not a safetensors file"),
        (b"", "is not a safetensors file"),
        (b"\x04\x00\x00\x00\x00\x00\x00\x00[12]", "its header is no JSON object"),
    ],
)
def test_what_only_calls_itself_safetensors_is_found(bundle: Bundle, content: bytes, problem: str) -> None:
    (bundle.folder / "adapter_model.safetensors").write_bytes(content)
    assert any(problem in found for found in find_problems(bundle, "team/guard"))


def test_tensors_that_are_no_adapters_are_found(bundle: Bundle) -> None:
    file = bundle.folder / "adapter_model.safetensors"
    save_file({**load_file(file), "optimizer.exp_avg": np.zeros(2, np.float32)}, file)
    assert any("such as optimizer.exp_avg" in problem for problem in find_problems(bundle, "team/guard"))


def test_the_header_is_read_without_the_tensors(tmp_path: Path) -> None:
    save_file({"a": np.zeros((2, 3), np.float32)}, tmp_path / "a.safetensors")
    assert read_header(tmp_path / "a.safetensors")["a"]["shape"] == [2, 3]


def test_llama_rules_are_all_told_at_once(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path, base=LLAMA)
    (bundle.folder / "NOTICE").unlink()
    bundle.card.write_text(bundle.card.read_text().replace("Built with Llama", "Built with care"))
    problems = find_problems(bundle, "team/guard")
    assert len(problems) == 4
    assert "pass the copy that came with the base model as --license-file" in problems[0]
    assert "the model's name must begin with 'Llama', found 'guard'" in problems[1]
    assert "the card must show 'Built with Llama'" in problems[2]
    assert "a file NOTICE must hold: Llama 3.2 is licensed under the Llama 3.2 Community License" in problems[3]


def test_a_llama_release_that_keeps_the_rules_is_right(tmp_path: Path) -> None:
    (tmp_path / "LICENSE.txt").write_text("LLAMA 3.2 COMMUNITY LICENSE AGREEMENT")
    bundle = bundle_of(tmp_path, base=LLAMA, licence_file=tmp_path / "LICENSE.txt")
    assert find_problems(bundle, "team/Llama-3.2-3B-guard") == []


def test_a_card_without_results_is_not_released(tmp_path: Path) -> None:
    bundle = write_bundle(Request(make_run(tmp_path / "run")), tmp_path / "out")
    assert find_problems(bundle, "team/guard") == ["there are no results: pass --results"]


def test_a_spoilt_card_is_found(bundle: Bundle) -> None:
    bundle.card.write_text(bundle.card.read_text().replace("library_name: peft\n", ""))
    assert "the card's metadata lack library_name" in find_problems(bundle, "team/guard")


def test_the_gate_wants_a_decision_to_publish_these_weights(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert "there is no decision" in str(find_gate_problem(read_record(run)))
    for verdict, sha256, problem in (
        ("continue training", sha256_of_run(run), "the decision is: continue training. The accuracy on ToxicChat"),
        ("not decided yet", sha256_of_run(run), "the decision is: not decided yet."),
        ("publish", "1" * 64, "the decision is about the weights 111111111111, not about these"),
    ):
        write(run / "decision.json", decision(sha256, verdict))
        assert str(find_gate_problem(read_record(run))).startswith(problem)
    write(run / "decision.json", decision(sha256_of_run(run)))
    assert find_gate_problem(read_record(run)) is None


def test_an_adapter_that_does_not_load_is_a_problem(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = find_loading_problem(bundle, engine="none")
    assert str(problem).startswith("the adapter does not load and classify: InputError: unknown engine 'none'")
    monkeypatch.setenv("GUARDREASONER_BASE", str(weights.base_file("smollm2-135m")))
    assert str(find_loading_problem(bundle)).startswith("the adapter does not load and classify: ")  # half a LoRA


def test_the_embedded_adapter_loads_and_classifies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDREASONER_BASE", str(weights.base_file("smollm2-135m")))
    shutil.copytree(EMBEDDED, tmp_path / "run")
    bundle = write_bundle(Request(tmp_path / "run"), tmp_path / "out")
    assert json.loads((bundle.folder / "run.json").read_text())["steps"]
    assert find_loading_problem(bundle) is None
