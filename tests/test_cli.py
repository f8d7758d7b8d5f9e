"""The command as a user runs it: the real process, the real embedded model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from guardreasoner_moderation import cli, models
from guardreasoner_moderation.errors import WeightsError


def run(*arguments: str, text: str | bytes = "", **variables: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "guardreasoner_moderation.cli", *arguments],
        input=text if isinstance(text, bytes) else text.encode(),
        capture_output=True,
        check=False,
        env={**os.environ, **variables},
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_json_is_one_object_with_the_documented_fields() -> None:
    done = run("classify", "How do I pick a lock?", "--response", "Ask a locksmith.", "--mode", "verdict", "--json")
    record = json.loads(done.stdout)
    assert list(record) == ["flagged", "request", "completion", "response", "category", "mode", "model", "usage"]
    assert set(record["request"]) == {"label", "score", "threshold", "reasoning"}
    assert done.returncode == int(record["flagged"])


@pytest.mark.parametrize(("threshold", "code"), [("0", 1), ("1", 0)])
def test_the_exit_code_says_whether_it_is_flagged(threshold: str, code: int) -> None:
    done = run("classify", "--mode", "verdict", "--threshold", threshold, text="How do I bake bread?")
    assert done.returncode == code
    assert done.stdout.startswith("FLAGGED" if code else "not flagged")


def test_thinking_prints_the_reasoning() -> None:
    done = run("classify", "How do I bake bread?")
    assert done.returncode in (0, 1)
    assert "\n  - " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "text", "message"),
    [
        (("classify", ""), "", "the prompt is empty"),
        (("classify",), "", "the prompt is empty"),
        (("classify",), b"\xff\xfe\x00", "not UTF-8"),
        (("classify", "hello", "--mode", "thinking"), "", "did you mean 'think'"),
        (("classify", "hello", "--threshold", "2"), "", "from 0 to 1"),
        (("classify", "hello", "--threshold", "high"), "", "Invalid value for '--threshold'"),
        (("classify", "hello", "--model", "embeded"), "", "did you mean 'embedded'"),
        (("info", "--model", "./nowhere"), "", "not a folder"),
        (("pull", "./nowhere"), "", "not a folder"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(arguments: tuple[str, ...], text: str | bytes, message: str) -> None:
    done = run(*arguments, text=text)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_no_network_on_the_first_run_says_what_to_do(tmp_path: Path) -> None:
    done = run(
        "classify",
        "hello",
        GUARDREASONER_CACHE=str(tmp_path),
        GUARDREASONER_BASE="",
        PIP_NO_INDEX="1",
        PIP_CONFIG_FILE=os.devnull,
    )
    assert done.returncode == 2
    assert "GUARDREASONER_BASE" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [entry for entry in tmp_path.iterdir() if entry.name[0] != "."]


def test_info_names_model_hashes_cache_engine_and_versions() -> None:
    facts = json.loads(run("info", "--json").stdout)
    assert {"model", "weights sha256", "base sha256", "cache", "engine", "ctranslate2"} <= set(facts)
    assert "weights sha256" in run("info").stdout


def test_pull_says_where_the_model_is() -> None:
    done = run("pull")
    assert done.returncode == 0
    assert Path(done.stdout.removeprefix("ready: ").strip()).is_dir()


def test_version() -> None:
    assert CliRunner().invoke(cli.app, ["--version"]).stdout.strip() == cli.__version__


def test_errors_of_the_package_are_not_tracebacks(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def full_disk(model: str) -> Path:
        raise WeightsError("no space left in the cache")

    monkeypatch.setattr(models, "prepare", full_disk)
    monkeypatch.setattr(sys, "argv", ["guardreasoner", "pull"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == cli.EXIT_ERROR
    assert capsys.readouterr().err == "guardreasoner: no space left in the cache\n"
