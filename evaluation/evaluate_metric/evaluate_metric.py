"""The metrics of :mod:`evaluation.metrics` for Hugging Face's ``evaluate`` library.

Run where this repository is on the Python path, such as in its root:

    import evaluate

    guard_metrics = evaluate.load("evaluation/evaluate_metric")
    guard_metrics.compute(references=[1, 0, 1], predictions=[1, 0, -1], scores=[0.9, 0.2, None])

References are 1 where the risky label (harmful, or refusal) is the true one, else 0. Predictions are 1, 0, or -1 for
an item that was not judged, which counts once as wrong. ``scores``, the probabilities of the risky label, are optional,
and so is ``resamples``: above 0, ``intervals`` holds the value, lower and upper end of each metric's 95% interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import datasets  # type: ignore[import-not-found, import-untyped, unused-ignore]
import evaluate  # type: ignore[import-not-found, import-untyped, unused-ignore]

from evaluation.intervals import estimate, to_json
from evaluation.metrics import collect, values
from guardreasoner_moderation.errors import InputError

_CITATION = """@article{liu2025guardreasoner,
  title={GuardReasoner: Towards Reasoning-based LLM Safeguards},
  author={Liu, Yue and others},
  journal={arXiv preprint arXiv:2501.18492},
  year={2025}
}"""


class GuardMetrics(evaluate.Metric):  # type: ignore[misc, unused-ignore]
    """Accuracy, F1 of both classes, error rates, areas under curves, calibration and the rate of unjudged items."""

    def _info(self) -> Any:
        return evaluate.MetricInfo(
            description="Metrics of a moderation guard, with unjudged as an outcome of its own.",
            citation=_CITATION,
            inputs_description="predictions: 1 risky, 0 not, -1 unjudged; references: 1 or 0; scores: 0 to 1.",
            features=datasets.Features({"predictions": datasets.Value("int8"), "references": datasets.Value("int8")}),
        )

    def _compute(
        self,
        predictions: Sequence[int],
        references: Sequence[int],
        scores: Sequence[float | None] | None = None,
        resamples: int = 0,
        seed: int = 0,
    ) -> dict[str, Any]:
        for name, found, known in (("predictions", predictions, {-1, 0, 1}), ("references", references, {0, 1})):
            if strange := set(found) - known:
                raise InputError(f"{name} must be among {sorted(known)}, found {sorted(strange)}")
        outcomes = collect(
            [value == 1 for value in references],
            [None if value == -1 else value == 1 for value in predictions],
            scores,
        )
        found_values: dict[str, Any] = {
            metric.value: None if math.isnan(value) else value for metric, value in values(outcomes).items()
        }
        if resamples:
            found_values["intervals"] = to_json(estimate(outcomes, resamples=resamples, seed=seed))
        return found_values
