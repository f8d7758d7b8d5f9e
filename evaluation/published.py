"""Figures that others have published, beside ours: facts from ``published.json``, marked as published when shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from evaluation.finished import FinishedRun
from evaluation.metrics import Metric
from evaluation.upstream import PUBLISHED

NAMED = ("GPT-4o", "LLaMA Guard 3 8B", "WildGuard 7B", "GuardReasoner 1B", "GuardReasoner 8B")
"""Published models that charts call by name; the others are dots."""


@dataclass(frozen=True, slots=True)
class Beside:
    """One benchmark of a run among the published models.

    Attributes:
        benchmark: its name.
        n: items of the run.
        published_n: items that the published figures are of.
        trained_on: whether the run's model was trained on it.
        f1: of the run, in percent, with its interval.
        published: F1 in percent by model.
    """

    benchmark: str
    n: int
    published_n: int
    trained_on: bool
    f1: tuple[float, float, float]
    published: Mapping[str, float]

    @property
    def better_than(self) -> int:
        """How many published models have a lower F1."""
        return sum(value < self.f1[0] for value in self.published.values())


@cache
def read_published() -> Mapping[str, Any]:
    """The content of ``published.json``."""
    content: dict[str, Any] = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    return content


def put_beside(run: FinishedRun) -> list[Beside]:
    """The benchmarks of a run that there are published figures of, in the paper's order."""
    published = read_published()
    rows = []
    for name, items in published["items"].items():
        f1 = run.parts[name].metric(Metric.F1) if name in run.parts else None
        if f1 is not None:
            rows.append(
                Beside(
                    benchmark=name,
                    n=int(run.parts[name].summary["n"]),
                    published_n=items,
                    trained_on=bool(run.parts[name].summary["trained_on"]),
                    f1=(100 * f1[0], 100 * f1[1], 100 * f1[2]),
                    published={model: cells[name] for model, cells in published["f1"].items() if name in cells},
                )
            )
    return rows
