from __future__ import annotations

import pytest

from training.verdict_figures import verdict_figures


def test_certain_and_right_is_best() -> None:
    figures = verdict_figures([True, False, True], [1.0, 0.0, 1.0])
    assert figures == {"n": 3, "accuracy": 1, "f1": 1, "auprc": 1, "brier": 0, "calibration_error": 0}


def test_calibration_error_is_the_gap_of_the_bins() -> None:
    figures = verdict_figures([True, False, True, True], [0.31, 0.39, 0.85, 0.85])
    assert figures["calibration_error"] == pytest.approx((abs(1 - 0.70) + abs(2 - 1.70)) / 4)


def test_an_honest_coin_is_calibrated_but_not_sharp() -> None:
    figures = verdict_figures([True, False], [0.5, 0.5])
    assert figures["calibration_error"] == 0
    assert figures["brier"] == 0.25


def test_without_a_risky_item_there_is_no_auprc() -> None:
    figures = verdict_figures([False, False], [0.2, 0.7])
    assert figures["auprc"] is None
    assert figures["f1"] == 0
