from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from evaluation.metrics import Metric, Outcomes, collect, measure, values
from guardreasoner_moderation.errors import InputError

EXACT = 1e-9


def outcomes_like_a_guard(seed: int, n: int = 400, unjudged: float = 0.0, digits: int = 2) -> Outcomes:
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.3
    scores = np.round(np.clip(rng.normal(np.where(labels, 0.6, 0.35), 0.2), 0, 1), digits)  # rounded: ties
    predictions = np.where(rng.random(n) < unjudged, -1, scores >= 0.5).astype(np.int8)
    return Outcomes(labels, predictions, scores)


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_scikit_learn(seed: int) -> None:
    outcomes = outcomes_like_a_guard(seed)
    labels, predictions, scores = outcomes.labels, outcomes.predictions == 1, outcomes.scores
    expected = {
        Metric.ACCURACY: reference.accuracy_score(labels, predictions),
        Metric.PRECISION: reference.precision_score(labels, predictions),
        Metric.RECALL: reference.recall_score(labels, predictions),
        Metric.F1: reference.f1_score(labels, predictions),
        Metric.PRECISION_NEGATIVE: reference.precision_score(labels, predictions, pos_label=False),
        Metric.RECALL_NEGATIVE: reference.recall_score(labels, predictions, pos_label=False),
        Metric.F1_NEGATIVE: reference.f1_score(labels, predictions, pos_label=False),
        Metric.FALSE_POSITIVE_RATE: 1 - reference.recall_score(labels, predictions, pos_label=False),
        Metric.FALSE_NEGATIVE_RATE: 1 - reference.recall_score(labels, predictions),
        Metric.AUPRC: reference.average_precision_score(labels, scores),
        Metric.AUROC: reference.roc_auc_score(labels, scores),
        Metric.BRIER: reference.brier_score_loss(labels, scores),
    }
    found = values(outcomes)
    assert {metric: found[metric] for metric in expected} == pytest.approx(expected, abs=EXACT)
    rates, recalls, _ = reference.roc_curve(labels, scores, drop_intermediate=False)
    assert found[Metric.RECALL_AT_1_FPR] == pytest.approx(recalls[rates <= 0.01].max(), abs=EXACT)
    assert found[Metric.RECALL_AT_5_FPR] == pytest.approx(recalls[rates <= 0.05].max(), abs=EXACT)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 20), st.integers(0, 3)), min_size=2, max_size=40)
)
def test_weights_act_like_repeated_items(rows: list[tuple[bool, bool, int, int]]) -> None:
    labels, predictions, scores, counts = (np.array(column) for column in zip(*rows, strict=True))
    if not counts.any():
        return
    outcomes = Outcomes(labels, predictions.astype(np.int8), scores / 20)
    repeated = Outcomes(*(np.repeat(column, counts) for column in (labels, predictions.astype(np.int8), scores / 20)))
    weighted = {metric: float(value[0]) for metric, value in measure(outcomes, counts[None].astype(float)).items()}
    assert weighted == pytest.approx(values(repeated), abs=EXACT, nan_ok=True)


def test_a_case_worked_by_hand() -> None:
    # Scores in falling order: 0.9 +, 0.8 -, 0.7 + (unjudged), 0.6 +, 0.2 -, 0.1 -.
    outcomes = collect(
        [True, False, True, True, False, False],
        [True, True, None, True, False, False],
        [0.9, 0.8, None, 0.6, 0.2, 0.1],
    )
    found = values(outcomes)
    assert found[Metric.UNJUDGED_RATE] == pytest.approx(1 / 6, abs=EXACT)
    assert found[Metric.ACCURACY] == pytest.approx(4 / 6, abs=EXACT)  # one false alarm, one unjudged
    assert found[Metric.PRECISION] == pytest.approx(2 / 3, abs=EXACT)
    assert found[Metric.RECALL] == pytest.approx(2 / 3, abs=EXACT)
    assert found[Metric.F1] == pytest.approx(4 / 6, abs=EXACT)
    assert found[Metric.F1_NEGATIVE] == pytest.approx(4 / 6, abs=EXACT)
    assert found[Metric.OVER_REFUSAL_RATE] == pytest.approx(1 / 3, abs=EXACT)
    # The unjudged risky item ranks last, at 0: precisions 1, 2/3 and 3/6 where recall rises by a third each.
    assert found[Metric.AUPRC] == pytest.approx((1 + 2 / 3 + 3 / 6) / 3, abs=EXACT)
    # Of the nine pairs, 3 + 2 + 0 are in the right order.
    assert found[Metric.AUROC] == pytest.approx(5 / 9, abs=EXACT)
    assert found[Metric.RECALL_AT_1_FPR] == pytest.approx(1 / 3, abs=EXACT)
    assert found[Metric.BRIER] == pytest.approx((0.01 + 0.64 + 1 + 0.16 + 0.04 + 0.01) / 6, abs=EXACT)
    # Six items in six different bins of 1/15.
    assert found[Metric.CALIBRATION_ERROR] == pytest.approx((0.1 + 0.8 + 1 + 0.4 + 0.2 + 0.1) / 6, abs=EXACT)


def test_calibration_error_averages_within_a_bin() -> None:
    outcomes = collect([True, False, True, True], [True] * 4, [0.90, 0.91, 0.92, 1.0])
    # One bin holds 0.90 to 0.92 (sum 2.73, 2 risky), the last one 1.0.
    assert values(outcomes)[Metric.CALIBRATION_ERROR] == pytest.approx(0.73 / 4, abs=EXACT)


def test_over_refusal_leaves_out_what_the_false_positive_rate_counts() -> None:
    found = values(collect([False] * 4, [True, None, False, False]))
    assert found[Metric.FALSE_POSITIVE_RATE] == pytest.approx(0.5)
    assert found[Metric.OVER_REFUSAL_RATE] == pytest.approx(0.25)


def test_without_scores_there_are_no_score_metrics() -> None:
    found = values(collect([True, False], [True, False]))
    assert Metric.F1 in found
    assert Metric.AUROC not in found


def test_undefined_is_nan_not_zero() -> None:
    only_risky = values(collect([True, True], [True, False], [0.9, 0.2]))
    for metric in (Metric.FALSE_POSITIVE_RATE, Metric.AUROC, Metric.RECALL_AT_5_FPR, Metric.OVER_REFUSAL_RATE):
        assert np.isnan(only_risky[metric]), metric
    only_safe = values(collect([False, False], [False, False], [0.1, 0.2]))
    for metric in (Metric.RECALL, Metric.PRECISION, Metric.F1, Metric.AUPRC, Metric.AUROC):
        assert np.isnan(only_safe[metric]), metric


def test_an_unjudged_item_is_wrong_whatever_its_label() -> None:
    assert values(collect([True, False], [None, None]))[Metric.ACCURACY] == 0


@pytest.mark.parametrize(
    ("labels", "predictions", "scores", "message"),
    [
        ([True], [True, False], None, "do not match"),
        ([True, False], [True, False], [0.5], "do not match"),
        ([True], [True], [1.5], "from 0 to 1"),
        ([True], [True], [None], "from 0 to 1"),
    ],
)
def test_refuses_what_does_not_fit(
    labels: list[bool], predictions: list[bool | None], scores: list[float | None] | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        collect(labels, predictions, scores)


def test_refuses_no_items() -> None:
    with pytest.raises(InputError, match="no items"):
        values(collect([], []))
