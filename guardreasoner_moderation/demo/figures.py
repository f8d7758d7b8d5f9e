"""The benchmark figures that the page shows: what ``figures.json`` holds, by benchmark.

``python -m model_cards.demo_figures`` writes that file from the committed results; every figure carries whether it was
measured here or published by others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FIGURES = Path(__file__).with_name("figures.json")

MEASURED, RESCORED, PUBLISHED = "measured here", "authors' outputs, scored here", "published"


@dataclass(frozen=True, slots=True)
class F1:
    """An F1 of one model on one benchmark, in percent.

    Attributes:
        model: its name, with the mode if that matters.
        value: F1.
        source: :data:`MEASURED`, :data:`RESCORED` or :data:`PUBLISHED`.
        n: items.
        interval: 95%; None where none was published.
        unjudged: items without a verdict; None where that was not published.
        trained_on: whether the model was trained on this benchmark, which then is no test.
    """

    model: str
    value: float
    source: str
    n: int
    interval: tuple[float, float] | None = None
    unjudged: int | None = None
    trained_on: bool = False


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures; what was not measured is empty.

    Attributes:
        runs: results of ``evaluation.run`` by file name.
        curves: of ``evaluation.curve_points``.
        speed: of ``evaluation.speed``.
        upstream: cells of ``evaluation.upstream``.
        published: F1 of other models, as published.
        claims: rows of the claims table.
    """

    runs: Mapping[str, Any]
    curves: Sequence[Mapping[str, Any]]
    speed: Mapping[str, Any]
    upstream: Sequence[Mapping[str, Any]]
    published: Mapping[str, Any]
    claims: Sequence[Mapping[str, str | None]]

    @property
    def benchmarks(self) -> list[str]:
        """Names, those with most to see first: measured here and published, measured here, the others."""
        published = list(self.published["items"])
        measured = list(dict.fromkeys(name for run in self.runs.values() for name in run["benchmarks"]))
        both = [name for name in published if name in measured]
        return list(dict.fromkeys([*both, *measured, *published]))

    def f1_of(self, benchmark: str) -> list[F1]:
        """Every F1 on a benchmark, the highest first."""
        found = [*self._measured(benchmark), *self._rescored(benchmark), *self._published(benchmark)]
        return sorted(found, key=lambda one: -one.value)

    def curves_of(self, benchmark: str) -> dict[str, Mapping[str, Any]]:
        """The curves on a benchmark by the name of the run."""
        return {run_name(one["model"], one["mode"]): one for one in self.curves if one["benchmark"] == benchmark}

    def runs_of(self, benchmark: str) -> dict[str, Mapping[str, Any]]:
        """The runs on a benchmark by their names."""
        there = [run for run in self.runs.values() if benchmark in run["benchmarks"]]
        return {run_name(run["model"]["name"], run["mode"]): run for run in there}

    def _measured(self, benchmark: str) -> Iterator[F1]:
        for name, run in self.runs_of(benchmark).items():
            found = run["benchmarks"][benchmark]
            f1 = found["metrics"].get("f1")
            if f1 and None not in f1:
                value, low, high = (100 * number for number in f1)
                marked = bool(found["trained_on"])
                yield F1(name, value, MEASURED, found["n"], (low, high), found["unjudged"], marked)

    def _rescored(self, benchmark: str) -> Iterator[F1]:
        for cell in self.upstream:
            if cell["benchmark"] == benchmark:
                value, low, high = (100 * number for number in cell["strict"]["f1"])
                yield F1(cell["model"], value, RESCORED, cell["n"], (low, high), cell["strict"]["unjudged"])

    def _published(self, benchmark: str) -> Iterator[F1]:
        for model, cells in self.published["f1"].items():
            if cells.get(benchmark) is not None:
                yield F1(model, cells[benchmark], PUBLISHED, self.published["items"][benchmark])


def read_figures(file: Path = FIGURES) -> Figures:
    """Reads the figures that come with the package."""
    return Figures(**json.loads(file.read_text(encoding="utf-8")))


def run_name(model: str, mode: str) -> str:
    """Of a run: the same model may be measured in several modes."""
    return f"{model} ({mode})"
