from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from example_cards import EMBEDDED, results, write
from typer import Typer
from typer.testing import CliRunner

from evaluation import decide, errors, reasoning
from guardreasoner_moderation.errors import InputError
from model_cards.checks import find_gate_problem
from model_cards.record import read_record
from model_cards.results import Interval, read_evidence

sys.path.append(str(Path(__file__).parents[1] / "evaluation"))  # its made-up runs
SHA = "0" * 64


def test_rows_come_in_the_papers_order_then_by_mode(tmp_path: Path) -> None:
    own = {"Own": {"task": "request"}, "BeaverTails": {"task": "response"}, "ToxicChat": {"task": "request"}}
    think = write(tmp_path / "think.json", results(SHA, mode="think", benchmarks=own))
    verdict = write(tmp_path / "verdict.json", results(SHA, benchmarks=own))
    evidence = read_evidence([think, verdict], SHA)
    assert [(row.benchmark, row.run.mode) for row in evidence.rows] == [
        (name, mode) for name in ("ToxicChat", "BeaverTails", "Own") for mode in ("verdict", "think")
    ]
    assert evidence.rows[0].metrics["f1"] == Interval(0.75, 0.68, 0.81)
    assert evidence.rows[0].shown("auprc") == "undefined"
    assert evidence.rows[0].shown("recall_at_1_fpr") == "not measured"


def test_figures_of_other_weights_are_refused_unless_they_stand_beside(tmp_path: Path) -> None:
    file = write(tmp_path / "other.json", results("1" * 64, benchmarks={"ToxicChat": {"task": "request"}}))
    with pytest.raises(InputError, match=r"other\.json is of the weights 111111111111, not of these, 000000000000"):
        read_evidence([file], SHA)
    evidence = read_evidence([], SHA, [file])
    assert not evidence.rows
    assert len(evidence.beside) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"hello": 1}, "is no results file that a card knows"),
        ([1], "must hold a JSON object, found list"),
        ({"benchmarks": {}, "mode": "think", "model": {}}, "is not what the evaluation writes"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_evidence([write(tmp_path / "x.json", content)], SHA)


def test_what_the_evaluation_really_writes_is_read(tmp_path: Path) -> None:
    """Runs, errors, reasoning and the decision as their own commands write them."""
    from example_runs import bench, item, make_run, said

    loaded = bench([item(n, n % 2 == 0, prompt="word " * n) for n in range(120)])

    def answer(one: Any) -> Any:
        number = int(one.id[5:])
        wrong = number >= 90 and number % 2 == 0
        steps = ["The user asks for thing number one.", "The request is harmful."]
        return said(0.9 if number % 2 == 0 and not wrong else 0.1, steps=steps)

    folder = make_run(tmp_path / "run", (loaded, answer), mode="think")
    for module, words in (
        (errors, [str(folder), "-o", str(tmp_path / "errors.md")]),
        (reasoning, [str(folder), "-o", str(tmp_path / "reasoning.md")]),
        (decide, [str(folder), "--benchmark", "Mini", "-o", str(tmp_path / "decision.json")]),
    ):
        app = Typer()
        app.command()(module.main)
        assert CliRunner().invoke(app, words).exit_code == 0

    written = json.loads((folder / "results.json").read_text())
    sha = written["model"]["sha256"]
    files = [folder / "results.json", tmp_path / "errors.json", tmp_path / "reasoning.json"]
    evidence = read_evidence(files, sha)
    (row,) = evidence.rows
    assert (row.benchmark, row.n, row.positives) == ("Mini", 120, 60)
    assert evidence.failures
    assert {one.kind for one in evidence.failures} == {"miss"}
    assert evidence.reasoning is not None
    assert evidence.reasoning.items == [120]
    assert evidence.reasoning.checks["follows"][0] is not None

    decided = replace(read_record(EMBEDDED), sha256=sha, decision=json.loads((tmp_path / "decision.json").read_text()))
    assert find_gate_problem(decided) is None
    assert "is about the weights" in str(find_gate_problem(replace(decided, sha256=SHA)))
