from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from example_runs import bench, item, make_run, said
from typer import Typer
from typer.testing import CliRunner

from evaluation.decide import EXIT_CODES, Verdict, decide, items_needed, main
from evaluation.finished import FinishedPart, read_run
from evaluation.metrics import Metric
from evaluation.shares import wilson
from guardreasoner_moderation.errors import InputError

APP = Typer()
APP.command()(main)


def part(tmp_path: Path, right: int, of: int, **options: Any) -> FinishedPart:
    """A benchmark with half of its items harmful, of which so many items are answered rightly."""
    loaded = bench([item(n, n % 2 == 0) for n in range(of)])

    def answer(one: Any) -> Any:
        number = int(one.id[5:])
        return said(0.9 if (number % 2 == 0) == (number < right) else 0.1)

    return read_run(make_run(tmp_path / "run", (loaded, answer), **options)).part("Mini")


def test_publish_when_the_whole_interval_is_above_the_line(tmp_path: Path) -> None:
    decision = decide(part(tmp_path, 70, 100), Metric.ACCURACY, 0.575, 0.60)
    assert decision.verdict is Verdict.PUBLISH
    low, high = wilson(0.7, 100)  # 0.604 to 0.781
    assert decision.figures["value"] == pytest.approx([0.7, low, high], abs=1e-6)
    assert decision.reasons[0] == "The accuracy on Mini is 70.0% [60.4%, 78.1%] on 100 items."


def test_continue_when_the_whole_interval_is_below_the_line(tmp_path: Path) -> None:
    decision = decide(part(tmp_path, 40, 100), Metric.ACCURACY, 0.575, 0.60)
    assert decision.verdict is Verdict.CONTINUE
    assert decision.reasons[-1] == "It is surely worse than the baseline, 57.5%."
    assert "not surely better" in str(decision)  # than one answer to everything


def test_not_decided_when_the_line_lies_within(tmp_path: Path) -> None:
    decision = decide(part(tmp_path, 65, 100), Metric.ACCURACY, 0.575, 0.60)
    assert decision.verdict is Verdict.UNDECIDED
    needed = decision.figures["items_needed"]
    assert wilson(0.65, needed)[0] > 0.60
    assert wilson(0.65, needed - 1)[0] <= 0.60
    assert f"about {needed - 100} more items would decide" in str(decision)
    assert "Mini has no more, so take another benchmark too" in str(decision)
    assert "It cannot be told from the baseline, 57.5%." in decision.reasons


def test_a_sample_is_named_and_the_rest_of_it_offered(tmp_path: Path) -> None:
    decision = decide(part(tmp_path, 65, 900, limit=100), Metric.ACCURACY, 0.575, 0.60)
    assert "this is a sample: 100 of 900 items." in decision.cautions
    assert "Mini has 900: run it in full" in str(decision)


@pytest.mark.parametrize(("value", "line"), [(0.62, 0.6), (0.5, 0.6), (0.999, 0.99), (0.03, 0.05)])
def test_items_needed_is_the_smallest_number_that_decides(value: float, line: float) -> None:
    def clear(items: int) -> bool:
        low, high = wilson(value, items)
        return low > line or high < line

    needed = items_needed(value, *wilson(value, 20), 20, line)
    assert needed is not None
    assert clear(needed)
    assert not clear(needed - 1)


def test_items_needed_of_other_metrics_shrinks_with_the_root() -> None:
    # the lower half of the interval, 0.04, must shrink to 0.02, so four times the items
    assert items_needed(0.62, 0.58, 0.67, 100, 0.60, exact=False) == 401
    assert items_needed(0.60, 0.55, 0.65, 100, 0.60, exact=False) is None
    assert items_needed(0.600001, 0.55, 0.65, 100, 0.60) is None


def test_a_benchmark_that_was_trained_on_cannot_decide_to_publish(tmp_path: Path) -> None:
    decision = decide(part(tmp_path, 95, 100, trained_on=["Mini"]), Metric.ACCURACY, 0.575, 0.60)
    assert decision.verdict is Verdict.UNDECIDED
    assert "was trained on Mini" in decision.reasons[-1]


def test_a_rate_of_errors_is_better_when_it_is_lower(tmp_path: Path) -> None:
    few = part(tmp_path, 95, 100)
    assert decide(few, Metric.FALSE_POSITIVE_RATE, 0.3, 0.25).verdict is Verdict.PUBLISH
    assert decide(few, Metric.FALSE_POSITIVE_RATE, 0.001, 0.0001).verdict is not Verdict.PUBLISH
    with pytest.raises(InputError, match="must not be worse than its baseline; good is below it"):
        decide(few, Metric.FALSE_POSITIVE_RATE, 0.25, 0.3)


def test_unjudged_items_and_constant_answers_are_warned_of(tmp_path: Path) -> None:
    items = [item(n, n < 20) for n in range(100)]
    run = make_run(tmp_path / "run", (bench(items), lambda one: said(None if int(one.id[5:]) > 94 else 0.1)))
    decision = decide(read_run(run).part("Mini"), Metric.ACCURACY, 0.575, 0.60)
    assert "calling every item unharmful would reach 80.0%, and this run is not surely better" in decision.cautions[0]
    assert decision.cautions[1] == "5 items (5.0%) were not judged and count as wrong."


@pytest.mark.parametrize(
    ("metric", "baseline", "success", "message"),
    [
        (Metric.ACCURACY, 57.5, 60, "shares from 0 to 1, found 57.5 and 60"),
        (Metric.ACCURACY, 0.7, 0.6, "good is above it"),
    ],
)
def test_wrong_lines(tmp_path: Path, metric: Metric, baseline: float, success: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        decide(part(tmp_path, 5, 10), metric, baseline, success)


def test_a_metric_that_the_items_do_not_give(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", (bench([item(n, True) for n in range(5)]), lambda one: said(0.9)))
    with pytest.raises(InputError, match="Mini has no false_positive_rate in this run"):
        decide(read_run(run).part("Mini"), Metric.FALSE_POSITIVE_RATE, 0.3, 0.2)


@pytest.mark.parametrize(("right", "code"), [(90, 0), (30, 1), (64, 3)])
def test_exit_codes_are_for_scripts(tmp_path: Path, right: int, code: int) -> None:
    part(tmp_path, right, 100)
    out = tmp_path / "out" / "decision.json"
    done = CliRunner().invoke(APP, [str(tmp_path / "run"), "--benchmark", "Mini", "-o", str(out)])
    assert done.exit_code == code
    assert json.loads(out.read_text())["exit_code"] == code
    assert EXIT_CODES[Verdict(json.loads(out.read_text())["verdict"])] == code
    assert done.output.splitlines()[0] in ("PUBLISH", "CONTINUE TRAINING", "NOT DECIDED YET")


def test_a_results_file_alone_decides_as_its_run_folder_does(tmp_path: Path) -> None:
    part(tmp_path, 70, 100)
    (tmp_path / "run" / "results.json").rename(tmp_path / "mini.verdict.json")
    decided = CliRunner().invoke(APP, [str(tmp_path / "mini.verdict.json"), "--benchmark", "Mini"])
    (tmp_path / "mini.verdict.json").rename(tmp_path / "run" / "results.json")
    assert decided.exit_code == 0
    assert decided.output == CliRunner().invoke(APP, [str(tmp_path / "run"), "--benchmark", "Mini"]).output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--benchmark", "Mimi"], "did you mean 'Mini'"),
        (["--benchmark", "Mini", "--metric", "acuracy"], "unknown metric 'acuracy'; did you mean 'accuracy'"),
        ([], "has no results of 'WildGuardTest1554'"),
    ],
)
def test_wrong_calls_end_with_2(tmp_path: Path, arguments: list[str], message: str) -> None:
    part(tmp_path, 5, 10)
    done = CliRunner().invoke(APP, [str(tmp_path / "run"), *arguments])
    assert done.exit_code == 2
    assert message in done.output
