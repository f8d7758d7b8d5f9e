"""Figures of verdict mode on labelled items: F1, area under the precision-recall curve, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_BINS = 10


def verdict_figures(truth: Sequence[bool], scores: Sequence[float]) -> dict[str, Any]:
    """Figures of one task.

    Args:
        truth: whether the label is the risky one.
        scores: probability of that label.

    Returns:
        n; accuracy and F1 of the risky label at 0.5; AUPRC, None where nothing is risky; the Brier score and the
        expected calibration error over 10 bins of equal width (arXiv 1706.04599, equation 3), both 0 at best.
    """
    from sklearn.metrics import accuracy_score, average_precision_score, brier_score_loss, f1_score

    chosen = [score >= 0.5 for score in scores]
    bins: dict[int, list[tuple[bool, float]]] = {}
    for label, score in zip(truth, scores, strict=True):
        bins.setdefault(min(int(score * _BINS), _BINS - 1), []).append((label, score))
    gaps = [abs(sum(label - score for label, score in content)) for content in bins.values()]
    return {
        "n": len(truth),
        "accuracy": round(float(accuracy_score(truth, chosen)), 4),
        "f1": round(float(f1_score(truth, chosen, zero_division=0.0)), 4),
        "auprc": round(float(average_precision_score(truth, scores)), 4) if any(truth) else None,
        "brier": round(float(brier_score_loss(truth, scores, pos_label=True)), 4),
        "calibration_error": round(sum(gaps) / len(truth), 4),
    }
