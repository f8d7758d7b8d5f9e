from __future__ import annotations

import pytest

from evaluation.quantization import compare
from guardreasoner_moderation import Label, ModerationResult, TaskVerdict


def result(score: float, completion: float | None = None) -> ModerationResult:
    def verdict(value: float, risky: Label, other: Label) -> TaskVerdict:
        return TaskVerdict(risky if value >= 0.5 else other, value, 0.5)

    return ModerationResult(
        flagged=score >= 0.5,
        request=verdict(score, Label.HARMFUL, Label.UNHARMFUL),
        completion=None if completion is None else verdict(completion, Label.REFUSAL, Label.COMPLIANCE),
    )


def test_equal_verdicts_are_counted_over_all_tasks() -> None:
    figures = compare([result(0.4, 0.9), result(0.6), result(0.2)], [result(0.5, 0.8), result(0.7), result(0.2)])
    assert figures["equal"] == 0.75
    assert figures["request"]["equal"] == pytest.approx(2 / 3, abs=1e-4)
    assert figures["request"]["largest_difference"] == 0.1
    assert figures["completion"] == {"n": 1, "equal": 1.0, "mean_difference": 0.1, "largest_difference": 0.1}
