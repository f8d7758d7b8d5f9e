"""The real command on a tiny model: every kind of cell, trained and measured."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_runs import write_data
from typer import Typer
from typer.testing import CliRunner, Result

from model_cards.claims import check_claims
from training import ablations

GRID = """\
recipe: {base: tiny, data: {file: own.jsonl}, rank: 2, alpha: 4, batch_size: 4, learning_rate: 0.01, warmup_steps: 1}
think_items: 2
draws: 3
dpo_batch_size: 2
cells:
  - {name: all, epochs: 2}
  - {name: few, items: 4}
  - {name: labels, think_share: 0.0}
  - {name: short, think_share: 1.0, sentences: 1}
  - {name: in-4-bits, kind: qlora}
  - {name: preferred, kind: hs_dpo, start: all, items: 8}
  - {name: again, kind: difficult, start: all, items: 8}
comparisons:
  - {claim: sample_efficiency, first: few, second: all}
  - {claim: dual_mode, first: all, second: labels}
  - {claim: dual_mode, first: all, second: short, first_mode: think, second_mode: think}
  - {claim: hs_dpo, first: preferred, second: all, first_mode: think, second_mode: think}
"""
ONE_CELL = GRID[: GRID.index("  - {name: few")] + "comparisons: []\n"


@pytest.fixture
def folder(tmp_path: Path, tiny_weights: str) -> Path:
    (tmp_path / "grid.yaml").write_text(GRID, encoding="utf-8")
    return write_data(tmp_path)


def run(folder: Path, *more: str) -> Result:
    app = Typer(pretty_exceptions_enable=False)
    app.command()(ablations.main)
    words = [str(folder / "grid.yaml"), "--data-dir", str(folder), "--out", str(folder / "cells"), *more]
    return CliRunner().invoke(app, words, catch_exceptions=False)


@pytest.mark.filterwarnings("ignore:Could not find a config file in nobody/tiny")  # peft looks for the base on the Hub
def test_every_cell_is_trained_measured_compared_and_then_skipped(folder: Path) -> None:
    result = run(folder, "--rate", "1000")
    assert result.exit_code == 0, result.output
    assert "7 of 7 cells to train" in result.output
    assert result.output.index("cells to train") < result.output.index("== all")
    file = folder / "ablations.json"
    assert run(folder, "--report", str(file)).exit_code == 0
    report = json.loads(file.read_text())
    assert list(report["cells"]) == ["all", "few", "labels", "short", "in-4-bits", "preferred", "again"]
    cells = report["cells"]
    assert (cells["all"]["verdict"]["n"], cells["all"]["think"]["n"]) == (3, 2)
    assert "think" not in cells["labels"]
    assert "think" not in cells["few"]  # no comparison asks for it
    assert "verdict" not in cells["short"]
    plan = json.loads((folder / "cells" / "in-4-bits" / "run" / "run.json").read_text())
    assert plan["recipe"]["precision"] == "nf4"
    assert len(cells["all"]["verdict"]["f1"]) == len(cells["all"]["verdict"]["auprc"]) == 3
    assert cells["few"]["steps"] < cells["all"]["steps"]
    worst = report["claims"]["dual_mode"]
    assert len(worst["auprc_difference"]) == 3
    assert worst["difference"][1] == min(one["difference"][1] for one in worst["comparisons"])
    assert run(folder).output == "every cell is finished\n"


def test_the_report_is_what_the_claims_table_reads(folder: Path) -> None:
    (folder / "grid.yaml").write_text(ONE_CELL.replace("[]", "[{claim: reasoning, first: all, second: all}]"))
    assert run(folder, "--rate", "1000").exit_code == 0
    results = folder / "evaluation" / "results"
    results.mkdir(parents=True)
    assert run(folder, "--report", str(results / "ablations.json")).exit_code == 0
    found = {one.claim.entry: one.found for one in check_claims(root=folder)}
    assert found["claims.sample_efficiency"] is None
    one = found["claims.reasoning"]
    assert one is not None
    assert (one.metric, one.n, one.difference.value) == ("F1 of harmful requests", 3, 0)


def test_the_cost_is_told_without_training(folder: Path) -> None:
    result = run(folder, "--estimate")
    assert result.exit_code == 0
    assert "tokens of training a second" in result.output
    assert not (folder / "cells").exists()


def test_some_cells_can_be_run_alone(folder: Path) -> None:
    result = run(folder, "--rate", "1000", "--only", "labels", "--only", "few", "--estimate")
    assert "2 of 7 cells to train" in result.output
    assert run(folder, "--only", "lables").exit_code == 2
    assert run(folder, "--rate", "1000", "--only", "labels").exit_code == 0
    assert [path.name for path in (folder / "cells").iterdir()] == ["labels"]


def test_a_cell_of_another_grid_is_refused(folder: Path) -> None:
    (folder / "grid.yaml").write_text(ONE_CELL)
    assert run(folder, "--rate", "1000").exit_code == 0
    (folder / "grid.yaml").write_text(ONE_CELL.replace("rank: 2", "rank: 3"))
    result = run(folder, "--rate", "1000")
    assert result.exit_code == 2
    assert "holds a cell with another grid; choose another --out" in result.output


def test_what_is_kept_of_a_cell_is_enough_for_the_report_but_not_to_go_on_from(folder: Path) -> None:
    (folder / "grid.yaml").write_text(ONE_CELL)
    assert run(folder, "--rate", "1000").exit_code == 0
    for part in ("run", "data"):
        shutil.rmtree(folder / "cells" / "all" / part)
    assert run(folder).output == "every cell is finished\n"
    assert run(folder, "--report", str(folder / "ablations.json")).exit_code == 0
    again = "  - {name: again, kind: difficult, start: all, items: 8}\ncomparisons"
    (folder / "grid.yaml").write_text(ONE_CELL.replace("comparisons", again))
    result = run(folder, "--rate", "1000")
    assert result.exit_code == 2
    assert "again goes on from the adapter of all, which is not in" in result.output
    assert not (folder / "cells" / "again").exists()


def test_a_report_of_nothing_is_refused(folder: Path) -> None:
    result = run(folder, "--report", str(folder / "ablations.json"))
    assert result.exit_code == 2
    assert "holds no finished cell of this grid" in result.output


KILLED = """
import hashlib, os, sys
from dataclasses import replace
from pathlib import Path
from guardreasoner_moderation import weights
content = Path(os.environ["GUARDREASONER_BASE"]).read_bytes()
digest = hashlib.sha256(content).hexdigest()
base = replace(weights.BASES["smollm2-135m"], name="tiny", sha256=digest, size=len(content))
weights.BASES = {"tiny": base}
from training import ablations
folder = Path(sys.argv[1])
ablations.main(folder / "grid.yaml", folder, folder / "cells", rate=1000)
"""


def test_a_killed_run_goes_on_and_trains_no_finished_cell_again(folder: Path) -> None:
    few = ONE_CELL.replace("comparisons", "  - {name: few, items: 4}\ncomparisons")
    (folder / "grid.yaml").write_text(few)
    environment = {**os.environ, "PYTHONPATH": str(Path(ablations.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], env=environment, stdout=subprocess.DEVNULL)
    finished = folder / "cells" / "all" / "cell.json"
    deadline = time.monotonic() + 300
    while not finished.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    adapter = folder / "cells" / "all" / "run" / "adapter" / "adapter_model.safetensors"
    written = adapter.stat().st_mtime_ns
    again = run(folder, "--rate", "1000")
    assert again.exit_code == 0, again.output
    assert "1 of 2 cells to train" in again.output
    assert adapter.stat().st_mtime_ns == written
    assert (folder / "cells" / "few" / "cell.json").exists()
