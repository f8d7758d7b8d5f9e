from __future__ import annotations

import json
from pathlib import Path

import pytest
from example_cards import make_run, results, sha256_of_run, write

from guardreasoner_moderation.cache import read_sha256
from guardreasoner_moderation.errors import InputError
from model_cards.bundle import list_files, unique_names, write_bundle
from model_cards.request import Request


@pytest.fixture
def request_of_run(tmp_path: Path) -> Request:
    run = make_run(tmp_path / "run")
    file = write(tmp_path / "verdict.json", results(sha256_of_run(run), benchmarks={"ToxicChat": {"task": "request"}}))
    return Request(run, [file], repo_id="team/guard", version="1.0.0")


def test_the_folder_holds_what_is_published_and_nothing_else(request_of_run: Request, tmp_path: Path) -> None:
    adapter = request_of_run.run / "adapter"
    for name in ("optimizer.pt", "training_args.bin", "rng_state.pth", "train.jsonl", "checkpoint.json"):
        (adapter / name).write_bytes(b"x")
        (request_of_run.run / name).write_bytes(b"x")
    (adapter / "tokenizer.json").write_text("{}")
    bundle = write_bundle(request_of_run, tmp_path / "out")
    assert set(bundle.files) == {
        ".eval_results/toxicchat.yaml",
        "LICENSE",
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "calibration.json",
        "figures/published.png",
        "figures/training.png",
        "moderation.json",
        "release.json",
        "results/verdict.json",
        "run.json",
        "tokenizer.json",
    }
    for name in ("adapter_model.safetensors", "adapter_config.json", "moderation.json"):
        assert (bundle.folder / name).read_bytes() == (adapter / name).read_bytes()
    assert (bundle.folder / "LICENSE").read_text(encoding="utf-8").lstrip().startswith("Apache License")


def test_the_manifest_names_version_weights_and_every_file(request_of_run: Request, tmp_path: Path) -> None:
    bundle = write_bundle(request_of_run, tmp_path / "out")
    manifest = json.loads((bundle.folder / "release.json").read_text())
    assert (manifest["repo_id"], manifest["version"], manifest["license"]) == ("team/guard", "1.0.0", "apache-2.0")
    assert manifest["weights_sha256"] == sha256_of_run(request_of_run.run)
    files = {path: read_sha256(file) for path, file in bundle.files.items() if path != "release.json"}
    assert manifest["files"] == files


def test_the_same_inputs_give_the_same_bytes(request_of_run: Request, tmp_path: Path) -> None:
    def written() -> dict[str, bytes]:
        return {path: file.read_bytes() for path, file in write_bundle(request_of_run, tmp_path / "out").files.items()}

    assert written() == written()


def test_a_folder_of_something_else_is_never_removed(request_of_run: Request, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds something else than an upload folder"):
        write_bundle(request_of_run, tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"


def test_a_failure_leaves_the_earlier_folder_and_no_rubbish(request_of_run: Request, tmp_path: Path) -> None:
    before = list_files(write_bundle(request_of_run, tmp_path / "out" / "guard").folder)
    with pytest.raises(InputError, match="there is no licence file"):
        write_bundle(request_of_run, tmp_path / "out" / "guard", licence_file=tmp_path / "none")
    assert list_files(tmp_path / "out" / "guard") == before
    assert [place.name for place in (tmp_path / "out").iterdir()] == ["guard"]


def test_a_llama_adapter_gets_its_notice_and_the_licence_that_was_passed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", base="meta-llama/Llama-3.2-3B-Instruct")
    (tmp_path / "LICENSE.txt").write_text("LLAMA 3.2 COMMUNITY LICENSE AGREEMENT")
    bundle = write_bundle(Request(run), tmp_path / "out", licence_file=tmp_path / "LICENSE.txt")
    assert (bundle.folder / "LICENSE").read_text() == "LLAMA 3.2 COMMUNITY LICENSE AGREEMENT"
    assert (bundle.folder / "NOTICE").read_text(encoding="utf-8").startswith("Llama 3.2 is licensed under")


def test_results_of_one_name_get_their_folders(tmp_path: Path) -> None:
    files = [tmp_path / "verdict" / "results.json", tmp_path / "think" / "results.json", tmp_path / "errors.json"]
    assert unique_names(files) == ["verdict.results.json", "think.results.json", "errors.json"]
    assert unique_names([files[0], files[0]]) == ["verdict.results.json", "1.verdict.results.json"]
