"""The reproduction scripts: that they are right as shell, and that every command they hold is one that there is."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer
from example_cards import ROOT

HOMES = {"training.data": "training.prepare"}  # where a command's options are declared, if not in its own module
SCRIPTS = {"reproduce_embedded.sh": ["DATA", "BENCHMARKS"], "reproduce_llama32_3b.sh": ["BENCHMARKS", "LICENSE.txt"]}


def call(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(ROOT / "scripts" / script), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_dry_run_prints_commands_that_there_are_with_options_that_they_have(script: str) -> None:
    done = call(script, *SCRIPTS[script], "--dry-run")
    assert done.returncode == 0, done.stderr
    commands = [shlex.split(line[2:]) for line in done.stdout.splitlines() if line.startswith("+ ")]
    modules = {words[2] for words in commands}
    assert {"training.data", "evaluation.run", "evaluation.decide", "model_cards.card"} <= modules
    assert modules & {"training.rsft", "training.trl_sft"}
    for words in commands:
        assert words[:2] == ["python", "-m"]
        app = typer.Typer()
        app.command()(importlib.import_module(HOMES.get(words[2], words[2])).main)
        known = {option for one in typer.main.get_command(app).params for option in one.opts}
        assert {word for word in words[3:] if re.match(r"--?[a-z]", word)} <= known, words


@pytest.mark.parametrize("script", SCRIPTS)
def test_too_few_words_print_the_usage(script: str) -> None:
    done = call(script)
    assert done.returncode == 2
    assert done.stderr.startswith(f"usage: scripts/{script}")


def test_a_missing_folder_is_told_before_anything_runs(tmp_path: Path) -> None:
    done = call("reproduce_embedded.sh", str(tmp_path / "none"), str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"there is no folder {tmp_path}/none\n"


def test_a_missing_licence_or_recipe_is_told_before_anything_runs(tmp_path: Path) -> None:
    done = call("reproduce_llama32_3b.sh", str(tmp_path), str(tmp_path / "LICENSE.txt"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("there is no file ")
