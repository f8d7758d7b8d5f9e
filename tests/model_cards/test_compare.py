from __future__ import annotations

import json
from pathlib import Path

from example_cards import EMBEDDED, make_run, results, sha256_of_run, write
from typer import Typer
from typer.testing import CliRunner

from model_cards.compare import main
from model_cards.reading import ROOT

APP = Typer()
APP.command()(main)


def line(output: str, name: str) -> list[str]:
    (found,) = (one for one in output.splitlines() if one.startswith(name))
    return found.removeprefix(name).split()


def test_what_to_expect_is_told_from_the_committed_run() -> None:
    done = CliRunner().invoke(APP, [str(EMBEDDED)])
    assert done.exit_code == 0, done.output
    assert float(line(done.output, "training, hours")[0]) > 0
    assert "WildGuardTest1554, verdict" in done.output


def test_a_reproduction_stands_beside_with_what_it_lacks(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    rows = {"WildGuardTest1554": {"task": "request", "n": 1554, "available": 1554}}
    file = write(tmp_path / "r.json", results(sha256_of_run(run), benchmarks=rows))
    done = CliRunner().invoke(APP, [str(EMBEDDED), str(run), "--results", str(file)])
    assert done.exit_code == 0, done.output
    assert line(done.output, "training, steps")[-1] == "20"
    assert line(done.output, "WildGuardTest1554, verdict, 1554 items, f1, %")[-3:] == ["75.0", "[68.0,", "81.0]"]
    think = json.loads((ROOT / "evaluation" / "results" / "embedded.think.json").read_text(encoding="utf-8"))
    sampled = f"{think['sample']['limit']} of 1554 items"
    assert line(done.output, f"WildGuardTest1554, think, {sampled}, f1, %")[-2:] == ["not", "measured"]
