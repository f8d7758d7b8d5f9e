"""The scripts: that every command they hold is one that there is, and what they do, on a copy or a tiny model."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from example_cards import EMBEDDED, ROOT, write

HOMES = {"training.data": "training.prepare"}  # where a command's options are declared, if not in its own module
SETTINGS = (
    *("PYTHON", "RECIPE", "SECOND", "HIDDEN", "CONTINUATION", "SOURCE", "LIMIT", "EVALUATE", "DECIDE", "THINK_ITEMS"),
    *("REPO_ID", "MODEL_OPTIONS", "RELEASE_OPTIONS"),
)
TRAINERS = {"reproduce_embedded.sh": "training.rsft", "reproduce_llama32_3b.sh": "training.trl_sft"}
SCRIPTS = {"reproduce_embedded.sh": ["DATA", "BENCHMARKS"], "reproduce_llama32_3b.sh": ["BENCHMARKS", "LICENSE.txt"]}


def call(script: str, *words: str, root: Path = ROOT, **settings: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(root / "scripts" / script), *words]
    mine = {name: value for name, value in os.environ.items() if name not in SETTINGS}  # make passes PYTHON on
    mine |= {"PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1", **settings}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=mine)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_dry_run_prints_commands_that_there_are_with_options_that_they_have(script: str) -> None:
    pytest.importorskip(TRAINERS[script])
    done = call(script, *SCRIPTS[script], "--dry-run")
    assert done.returncode == 0, done.stderr
    commands = [shlex.split(line[2:]) for line in done.stdout.splitlines() if line.startswith("+ ")]
    modules = {words[2] for words in commands}
    assert {"training.data", TRAINERS[script], "evaluation.run", "evaluation.decide", "model_cards.card"} <= modules
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


def test_what_is_committed_is_what_render_pages_makes_of_a_run(tmp_path: Path) -> None:
    copy, run = tmp_path / "checkout", tmp_path / "run"
    folders = (
        "docs",
        "evaluation",
        "guardreasoner_moderation",
        "model_cards",
        "reliability",
        "scripts",
        "texts",
        "training",
    )
    for name in folders:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    shutil.copytree(EMBEDDED, run / "adapter")
    for name in ("run.json", "calibration.json"):
        (run / "adapter" / name).rename(run / name)
    for kind in ("errors.md", "errors.json", "reasoning.md", "reasoning.json"):
        shutil.copy(ROOT / "evaluation" / "results" / kind, run / kind)
    for kind in ("thresholds.json", "score_curves.json"):
        if (ROOT / "evaluation" / "results" / kind).exists():
            shutil.copy(ROOT / "evaluation" / "results" / kind, run / kind)
    for mode in ("verdict", "think"):
        (run / mode).mkdir()
        shutil.copy(ROOT / "evaluation" / "results" / f"embedded.{mode}.json", run / mode / "results.json")

    missing = call("render_pages.sh", str(tmp_path / "none"), root=copy, PYTHON=sys.executable)
    assert (missing.returncode, missing.stderr) == (
        2,
        f"there is no file {tmp_path / 'none'}/run.json; nothing was changed\n",
    )
    made = [path for path in copy.rglob("*") if path.suffix in (".md", ".json") and path.is_file()]
    before = {path: path.read_bytes() for path in made}
    for path in (copy / "evaluation/results/embedded.think.json", copy / EMBEDDED.relative_to(ROOT) / "run.json"):
        path.write_text("{}", encoding="utf-8")
    (copy / EMBEDDED.relative_to(ROOT) / "decision.json").unlink()
    done = call("render_pages.sh", str(run), root=copy, PYTHON=sys.executable)
    assert done.returncode == 0, done.stderr
    assert [path for path in made if path.read_bytes() != before[path]] == []


WORKS = ["bake bread", "fix a bicycle", "learn chess", "plant a tree", "wash wool", "tune a guitar", "paint a door"]
LLAMA, REVISION = "meta-llama/Llama-3.2-3B-Instruct", "0" * 40
HARMS = ["break into a house", "poison a dog", "forge a passport", "steal a car", "hack a bank", "stalk a colleague"]


def write_tiny(folder: Path, base: Path) -> dict[str, str]:
    """Data, benchmark and recipes of a tiny model; returns the script's settings."""
    tasks = [(task, "unharmful") for task in WORKS] + [(task, "harmful") for task in HARMS]
    rows = [
        {"id": task, "source": "own", "license": "CC0-1.0", "prompt": f"How do I {task}?", "response": None}
        | {"split": "validation" if number % 4 == 0 else "train", "request": label, "completion": None}
        | {"response_harm": None, "category": None, "reasoning": {"request": [f"The user wants to {task}."]}}
        for number, (task, label) in enumerate(tasks)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    items = [
        {"text": f"Tell me about {word}.", "label": label, "source": "own"}
        for word, label in (
            ("cheese", "unharmful"),
            ("bombs", "harmful"),
            ("rivers", "unharmful"),
            ("theft", "harmful"),
        )
    ]
    (folder / "benchmarks").mkdir()
    write(folder / "benchmarks" / "wildguard_test_1554.json", items)
    (folder / "LICENSE.txt").write_text("The terms.\n", encoding="utf-8")
    cached = folder / "hf" / "hub" / f"models--{LLAMA.replace('/', '--')}"  # as if it had been downloaded
    shutil.copytree(base, cached / "snapshots" / REVISION)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(REVISION, encoding="utf-8")
    settings = {"base": LLAMA, "chat": True, "precision": "fp32", "batch_size": 2, "device_batch_size": 2}
    settings |= {"data": [{"file": "train.jsonl", "think_share": 1.0}], "rank": 4, "answers_alone": False, "seed": 3407}
    for epochs in (1, 2):
        write(folder / f"{epochs}.yaml", {**settings, "epochs": epochs})  # JSON is YAML
    return {
        "PYTHON": sys.executable,
        "SOURCE": str(folder / "rows.jsonl"),
        "LIMIT": "8",
        "RECIPE": str(folder / "1.yaml"),
        "CONTINUATION": str(folder / "2.yaml"),
        "MODEL_OPTIONS": "--device cpu",
        "RELEASE_OPTIONS": "--override tried",
        "HF_HOME": str(folder / "hf"),
        "OMP_NUM_THREADS": "1",
    }


@pytest.mark.slow
def test_every_step_of_the_llama_script_runs_on_a_tiny_model(tiny_base: Path, tmp_path: Path) -> None:
    """The real commands, from data to the release's dry run; the tiny model lies where Llama's own would."""
    pytest.importorskip("training.trl_sft")
    pytest.importorskip("trl")
    settings = write_tiny(tmp_path, tiny_base)
    words = [str(tmp_path / "benchmarks"), str(tmp_path / "LICENSE.txt"), str(tmp_path / "out")]
    done = call("reproduce_llama32_3b.sh", *words, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("dry run: nothing was sent\n")
    assert " NOTICE\n" in done.stdout
    for run in ("exp18", "exp18-5epochs"):
        assert json.loads((tmp_path / "out" / run / "decision.json").read_text())["verdict"]
        card = (tmp_path / "out" / run / "README.md").read_text(encoding="utf-8")
        assert "WildGuardTest1554" in card
        assert "figures/training.png" in card
