from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import auc, precision_recall_curve, roc_auc_score, roc_curve

from evaluation.curves import CURVE_POINTS, calibration_bins, find_curves
from evaluation.metrics import collect


def test_points_of_a_hand_worked_case() -> None:
    curves = find_curves(collect([True, False, True, False], [True, True, False, False], [0.9, 0.8, 0.4, 0.4]))
    assert curves is not None
    assert curves.recall.tolist() == [0.0, 0.5, 0.5, 1.0]
    assert curves.fall_out.tolist() == [0.0, 0.0, 0.5, 1.0]
    assert curves.precision.tolist() == [1.0, 1.0, 0.5, 0.5]
    assert curves.prevalence == 0.5


def test_points_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(60) < 0.4
    scores = np.round(np.clip(rng.normal(0.3 + 0.3 * labels, 0.2), 0, 1), 2)
    curves = find_curves(collect(labels.tolist(), (scores >= 0.5).tolist(), scores.tolist()))
    assert curves is not None
    precision, recall, _ = precision_recall_curve(labels, scores)
    fall_out, roc_recall, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert set(zip(curves.recall[1:], curves.precision[1:], strict=True)) <= set(zip(recall, precision, strict=True))
    assert set(zip(curves.fall_out, curves.recall, strict=True)) <= set(zip(fall_out, roc_recall, strict=True))


def test_long_curves_are_thinned_and_keep_their_area() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(20_000) < 0.3
    scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.15), 0, 1)
    curves = find_curves(collect(labels.tolist(), (scores >= 0.5).tolist(), scores.tolist()))
    assert curves is not None
    assert len(curves.recall) <= CURVE_POINTS + 3
    area = float(auc(curves.fall_out, curves.recall))
    assert area == pytest.approx(roc_auc_score(labels, scores), abs=2e-3)


def test_no_curve_without_scores_or_with_one_label() -> None:
    assert find_curves(collect([True, False], [True, False])) is None
    assert find_curves(collect([True, True], [True, False], [0.9, 0.1])) is None


def test_unjudged_items_have_the_worst_score() -> None:
    curves = find_curves(collect([True, True, False], [True, None, None], [0.9, None, None]))
    assert curves is not None
    assert curves.precision[0] == 0.0  # the unjudged harmless item comes first
    assert curves.recall.tolist() == [0.0, 0.0, 0.5, 1.0]


def test_calibration_bins_hold_judged_items_only() -> None:
    outcomes = collect([True, False, True, True], [True, True, True, None], [0.95, 0.91, 1.0, None])
    bins = calibration_bins(outcomes)
    assert [(one.risky.count, one.risky.of) for one in bins] == [(2, 3)]
    assert bins[0].score == pytest.approx((0.95 + 0.91 + 1.0) / 3)
    assert calibration_bins(collect([True], [True])) == []
