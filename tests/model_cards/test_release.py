"""A release from the command to what a user loads back: the real adapter, the real client, a local stand-in server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from example_cards import EMBEDDED, ROOT, decision, make_run, results, sha256_of_run, write
from hub_server import Hub, client_environment, serving
from typer import Typer
from typer.testing import CliRunner

from guardreasoner_moderation import Moderator, weights
from guardreasoner_moderation.models import weights_sha256
from model_cards.release import main

APP = Typer()
APP.command()(main)
LOAD = """
import json, sys
from guardreasoner_moderation import Moderator
with Moderator.from_pretrained(sys.argv[1], revision=sys.argv[2]) as guard:
    result = guard.classify("How do I bake bread without yeast?", mode="verdict")
    print(json.dumps({"folder": str(guard.model.folder), "sha256": guard.model.sha256, "score": result.request.score}))
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with serving() as running:
        yield running


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The embedded adapter as a run that was decided to be published."""
    folder = tmp_path / "run"
    shutil.copytree(EMBEDDED, folder)
    write(folder / "decision.json", decision(weights_sha256(folder)))
    return folder


def python(hub: Hub, tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Another process, whose Hub is the local server."""
    base = {"GUARDREASONER_BASE": str(weights.base_file("smollm2-135m"))}
    environment = {**os.environ, **base, **client_environment(hub, str(tmp_path / "hf"))}
    command = [sys.executable, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)


def release(hub: Hub, tmp_path: Path, run: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return python(hub, tmp_path, "-m", "model_cards.release", str(run), "--out", str(tmp_path / "out"), *words)


def test_what_was_published_is_loaded_back_byte_for_byte(
    hub: Hub, tmp_path: Path, run: Path, embedded: Moderator
) -> None:
    words = ("--repo-id", "team/guard", "--version", "1.2.3")
    done = release(hub, tmp_path, run, *words)
    assert done.returncode == 0, done.stderr
    repository = hub.model("team/guard")
    assert done.stdout.splitlines()[-1] == (f"team/guard: committed, commit {repository.branches['main']}, tag v1.2.3")
    folder = tmp_path / "out" / "team--guard"
    assert 'from_pretrained("team/guard", revision="v1.2.3")' in (folder / "README.md").read_text(encoding="utf-8")

    loaded = python(hub, tmp_path, "-c", LOAD, "team/guard", "v1.2.3")
    assert loaded.returncode == 0, loaded.stderr
    answer: dict[str, Any] = json.loads(loaded.stdout.splitlines()[-1])
    assert answer["sha256"] == weights_sha256(EMBEDDED)
    score = embedded.classify("How do I bake bread without yeast?", mode="verdict").request
    assert score is not None
    assert answer["score"] == pytest.approx(score.score, abs=1e-6)
    fetched = {file.relative_to(answer["folder"]).as_posix() for file in Path(answer["folder"]).rglob("*.*")}
    assert {"adapter_model.safetensors", "adapter_config.json", "moderation.json", "README.md"} <= fetched
    for name in ("adapter_model.safetensors", "adapter_config.json", "moderation.json"):
        assert (Path(answer["folder"]) / name).read_bytes() == (EMBEDDED / name).read_bytes()
    for name in fetched & {file.relative_to(folder).as_posix() for file in folder.rglob("*.*")}:
        if (folder / name).is_file():
            assert (Path(answer["folder"]) / name).read_bytes() == (folder / name).read_bytes()

    again = release(hub, tmp_path, run, *words)
    assert again.returncode == 0, again.stderr
    assert "team/guard: was there already" in again.stdout
    assert len(repository.commits) == 2


def test_a_dry_run_lists_the_files_and_sends_nothing(hub: Hub, tmp_path: Path, run: Path) -> None:
    hub.requests.clear()
    done = release(hub, tmp_path, run, "--repo-id", "team/dry", "--dry-run")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "out" / "team--dry"
    size = (EMBEDDED / "adapter_model.safetensors").stat().st_size
    assert f"{size:>12,}  adapter_model.safetensors\n" in done.stdout
    assert f"card: {folder}/README.md\n" in done.stdout
    assert done.stdout.endswith("dry run: nothing was sent\n")
    assert hub.requests == []
    assert ("model", "team/dry") not in hub.repositories


def made_up(tmp_path: Path, verdict: str | None = "publish") -> list[str]:
    """A run with its results, to be loaded with an engine that there is not, so that loading fails fast."""
    run = make_run(tmp_path / "made-up")
    file = write(tmp_path / "r.json", results(sha256_of_run(run), benchmarks={"ToxicChat": {"task": "request"}}))
    if verdict:
        write(run / "decision.json", decision(sha256_of_run(run), verdict))
    return [str(run), "--results", str(file), "--out", str(tmp_path / "out"), "--engine", "none"]


def invoke(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(APP, list(words))
    return done.exit_code, done.output


def test_all_problems_are_told_and_nothing_is_sent(tmp_path: Path) -> None:
    code, output = invoke(*made_up(tmp_path, "continue training"), "--repo-id", "team/guard")
    assert code == 1
    assert "problem: the decision is: continue training." in output
    assert "problem: the adapter does not load and classify" in output


def test_an_override_passes_the_gate_only_and_is_printed_on_the_card(tmp_path: Path) -> None:
    code, output = invoke(*made_up(tmp_path, None), "--repo-id", "team/guard", "--override", "a first look for testers")
    assert code == 1
    assert "there is no decision" not in output
    assert "problem: the adapter does not load and classify" in output
    card = (tmp_path / "out" / "team--guard" / "README.md").read_text(encoding="utf-8")
    assert "Published all the same, because: a first look for testers" in card


def test_an_override_that_is_not_needed_is_not_printed(tmp_path: Path) -> None:
    invoke(*made_up(tmp_path), "--repo-id", "team/guard", "--override", "to be sure")
    assert "to be sure" not in (tmp_path / "out" / "team--guard" / "README.md").read_text(encoding="utf-8")


def test_results_of_other_weights_are_an_error(tmp_path: Path) -> None:
    words = made_up(tmp_path)
    write(tmp_path / "r.json", results("1" * 64, benchmarks={"ToxicChat": {"task": "request"}}))
    code, output = invoke(*words, "--repo-id", "team/guard")
    assert code == 2
    assert "is of the weights 111111111111, not of these" in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--repo-id", "guard"], "--repo-id 'guard' is not right"),
        (["--repo-id", "team/guard", "--version", "latest"], "--version 'latest' is not right"),
    ],
)
def test_a_wrong_name_or_version_is_an_error(tmp_path: Path, words: list[str], message: str) -> None:
    code, output = invoke(*made_up(tmp_path), *words)
    assert code == 2
    assert message in output
