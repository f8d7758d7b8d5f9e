from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from evaluation.metrics import Metric, Outcomes, collect
from evaluation.thresholds import Aim, Target, read_target, read_thresholds_file, tune, write_thresholds
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.results import Task
from guardreasoner_moderation.verdicts import DEFAULT_THRESHOLDS, read_thresholds

# In falling order: + 0.9, - 0.8, + 0.7, + 0.6, - 0.4, - 0.3, - 0.2, - 0.1
LABELS = [True, False, True, True, False, False, False, False]
SCORES = [0.9, 0.8, 0.7, 0.6, 0.4, 0.3, 0.2, 0.1]
OUTCOMES = collect(LABELS, [score >= 0.5 for score in SCORES], SCORES)


def flagged_from(threshold: float) -> int:
    return sum(score >= threshold for score in SCORES)


@pytest.mark.parametrize(
    ("target", "flagged"),
    [
        ("fpr=0", 1),  # above the first false alarm
        ("fpr=0.2", 4),  # one false alarm of five, and then as deep as recall grows
        ("fpr=1", 8),
        ("recall=0.3", 1),
        ("recall=0.34", 3),
        ("recall=1", 4),
        ("cost=0.1", 1),  # false alarms are dear
        ("cost=0.6", 4),  # 1 alarm for 2 more hits: 1.2 gained
        ("cost=100", 4),
    ],
)
def test_each_target_is_met_by_the_best_threshold(target: str, flagged: int) -> None:
    tuned = tune(OUTCOMES, read_target(target), resamples=20)
    assert flagged_from(tuned.threshold.value) == flagged


def test_recall_beyond_the_last_hit_is_not_bought_with_false_alarms() -> None:
    # fpr=0.2 allows one false alarm: the threshold lies below 0.6, above the next false alarm at 0.4.
    assert 0.4 < tune(OUTCOMES, Target(Aim.FPR, 0.2), resamples=20).threshold.value <= 0.6


def test_metrics_and_interval_come_with_it() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(2000) < 0.4
    scores = np.clip(rng.normal(np.where(labels, 0.6, 0.4), 0.15), 0, 0.999)
    outcomes = Outcomes(labels, (scores >= 0.5).astype(np.int8), scores)
    tuned = tune(outcomes, Target(Aim.FPR, 0.05))
    assert tuned.metrics[Metric.FALSE_POSITIVE_RATE].value <= 0.05
    assert tuned.threshold.low < tuned.threshold.value < tuned.threshold.high
    # The true threshold for 5% false alarms: the 95% point of the benign scores.
    assert tuned.threshold.low < 0.4 + 1.645 * 0.15 < tuned.threshold.high


def test_unjudged_items_are_left_out_and_counted() -> None:
    outcomes = collect([*LABELS, True], [*(score >= 0.5 for score in SCORES), None], [*SCORES, None])
    tuned = tune(outcomes, Target(Aim.RECALL, 1), resamples=20)
    assert (tuned.items, tuned.left_out) == (8, 1)


@pytest.mark.parametrize(
    ("outcomes", "message"),
    [
        (collect([True, False], [True, False]), "needs scores"),
        (collect([True, True], [True, False], [0.9, 0.1]), "items of both labels"),
        (collect([True, False], [None, None], [None, None]), "items of both labels"),
        (collect([True, False], [True, True], [0.9, 1.0]), "no threshold reaches fpr=0"),
    ],
)
def test_what_cannot_be_tuned_is_refused(outcomes: Outcomes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tune(outcomes, Target(Aim.FPR, 0), resamples=20)


@pytest.mark.parametrize("text", ["fpr=0.05", "recall=1", "cost=5"])
def test_targets_are_read(text: str) -> None:
    target = read_target(text)
    assert f"{target.aim}={target.value:g}" == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frp=0.1", "unknown target 'frp'; did you mean 'fpr'"),
        ("fpr", "the target fpr must be a number from 0 to 1, found ''"),
        ("recall=2", "from 0 to 1, found '2'"),
        ("fpr=nan", "from 0 to 1"),
        ("cost=0", "a number above 0"),
        ("cost=inf", "a number above 0"),
    ],
)
def test_odd_targets_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_target(text)


def test_the_file_is_what_the_moderator_reads(tmp_path: Path) -> None:
    target = Target(Aim.FPR, 0.2)
    tuned = tune(OUTCOMES, target, resamples=20)
    file = tmp_path / "thresholds.json"
    write_thresholds(file, {Task.REQUEST: tuned}, target)
    thresholds = read_thresholds(read_thresholds_file(file), DEFAULT_THRESHOLDS)
    assert thresholds[Task.REQUEST] == tuned.threshold.value
    details = json.loads((tmp_path / "thresholds.details.json").read_text())
    assert details["request"]["target"] == "fpr=0.2"
    assert details["request"]["threshold"][0] == pytest.approx(tuned.threshold.value, abs=1e-6)


def test_odd_threshold_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json cannot be read"):
        read_thresholds_file(tmp_path / "none.json")
    for content, message in (("{", "is not JSON"), ("[1]", "must map tasks to numbers")):
        (tmp_path / "t.json").write_text(content)
        with pytest.raises(InputError, match=message):
            read_thresholds_file(tmp_path / "t.json")
