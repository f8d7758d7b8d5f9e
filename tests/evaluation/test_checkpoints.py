from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import linregress, t
from typer import Typer
from typer.testing import CliRunner

from evaluation.checkpoints import Look, Looks, decide_training, find_trend, read_looks
from evaluation.decide import Verdict, main
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.results import Task

APP = Typer()
APP.command()(main)


def looks(values: Sequence[float], items: int = 160) -> Looks:
    return Looks([Look(60 * number, value, items) for number, value in enumerate(values, 1)], Task.REQUEST, "f1")


def record(values: Sequence[float], **more: Any) -> dict[str, Any]:
    rows = [
        {"step": 60 * number, "request": {"n": 160, "accuracy": value, "f1": value, "auprc": value}}
        for number, value in enumerate(values, 1)
    ]
    return {"validation": rows, "recipe": {"decay_share": 0.2}, **more}


def test_a_run_that_still_improves_goes_on() -> None:
    decision = decide_training(looks([0.60, 0.65, 0.70, 0.74, 0.78, 0.82]), {})
    assert decision.verdict is Verdict.CONTINUE
    assert decision.figures["take_step"] == 360
    assert "It still improves." in decision.reasons
    assert decision.cautions == ()


def test_a_run_that_is_flat_stops_with_its_last_checkpoint() -> None:
    decision = decide_training(looks([0.70, 0.80, 0.842, 0.846, 0.844, 0.843, 0.845, 0.844]), {})
    assert decision.verdict is Verdict.PUBLISH
    assert (decision.figures["best_step"], decision.figures["take_step"]) == (240, 480)
    assert "within one standard error of the best" in decision.reasons[1]


def test_a_run_that_falls_stops_with_its_best_checkpoint() -> None:
    decision = decide_training(looks([0.80, 0.90, 0.86, 0.81, 0.76, 0.71]), {})
    assert decision.verdict is Verdict.PUBLISH
    assert decision.figures["take_step"] == 120
    assert "It falls" in decision.reasons[-1]


def test_noisy_looks_do_not_decide() -> None:
    decision = decide_training(looks([0.70, 0.80, 0.72, 0.83, 0.74, 0.81]), {})
    assert decision.verdict is Verdict.UNDECIDED
    assert "too noisy" in decision.reasons[-1]


def test_few_looks_do_not_decide() -> None:
    decision = decide_training(looks([0.7, 0.8, 0.9]), {})
    assert decision.verdict is Verdict.UNDECIDED
    assert decision.figures["trend"] is None


def test_the_trend_is_a_straight_line_through_the_second_half() -> None:
    values = [0.1, 0.2, 0.3, 0.4, 0.70, 0.74, 0.73, 0.78, 0.80]
    found = find_trend(looks(values).looks)
    assert found is not None
    steps = np.array([300, 360, 420, 480, 540])
    line = linregress(steps, values[4:])
    assert (found.looks, found.steps) == (5, 240)
    assert found.change == pytest.approx(line.slope * 240)
    assert found.high - found.change == pytest.approx(t.ppf(0.975, 3) * line.stderr * 240)


def test_a_last_look_at_all_items_is_not_part_of_the_trend() -> None:
    seen = looks([0.70, 0.71, 0.72, 0.73])
    with_whole = Looks([*seen.looks, Look(300, 0.9, 775)], Task.REQUEST, "f1")
    trend = find_trend(with_whole.looks)
    assert trend is not None
    assert trend.high == pytest.approx(0.03)
    decision = decide_training(with_whole, {})
    assert decision.figures["take_step"] == 300
    assert "different numbers of items" in decision.cautions[0]


def test_the_error_of_a_look_is_that_of_a_share() -> None:
    assert Look(1, 0.8, 100).error == pytest.approx(0.04)
    assert Look(1, 1.0, 100).error == pytest.approx(0.01)  # not zero


def test_looks_are_read_by_task_and_metric(tmp_path: Path) -> None:
    content = record([0.7, 0.8])
    content["validation"].append({"step": 180, "completion": {"n": 5, "accuracy": 1.0}})
    seen = read_looks(content, Task.REQUEST, "auprc", tmp_path)
    assert [(look.step, look.value, look.items) for look in seen.looks] == [(60, 0.7, 160), (120, 0.8, 160)]
    with pytest.raises(InputError, match="look 1: no metric 'aupcr'; did you mean 'auprc'"):
        read_looks(content, Task.REQUEST, "aupcr", tmp_path)
    with pytest.raises(InputError, match="no look at the response task"):
        read_looks(content, Task.RESPONSE, "f1", tmp_path)
    with pytest.raises(InputError, match="tells of no look"):
        read_looks({}, Task.REQUEST, "f1", tmp_path)


def test_the_command_reads_training_runs(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text("{}")
    unfinished = CliRunner().invoke(APP, [str(tmp_path)])
    assert unfinished.exit_code == 2
    assert "has not ended" in unfinished.output
    (tmp_path / "run.json").write_text(json.dumps(record([0.60, 0.65, 0.70, 0.74, 0.78, 0.82])))
    done = CliRunner().invoke(APP, [str(tmp_path)])
    assert done.exit_code == 1
    assert "The best auprc of the request task is 0.820 at step 360" in done.output
    assert "the learning rate fell to zero" in done.output
    odd = CliRunner().invoke(APP, [str(tmp_path), "--task", "requests"])
    assert odd.exit_code == 2
    assert "did you mean 'request'" in odd.output
