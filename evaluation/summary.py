"""From predictions to ``results.json``: metrics with intervals, averages, and all that a reader must know of them."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from evaluation.intervals import RESAMPLES, estimate, to_json, weighted_averages
from evaluation.loading import Loaded
from evaluation.metrics import Metric, Outcomes
from evaluation.overlap import Overlap
from evaluation.runs import Prediction, to_outcomes
from evaluation.scorers import Scored, Scorer
from guardreasoner_moderation.engines.parallel import available_threads
from guardreasoner_moderation.results import Task

SEEN_SHARE = 0.05
"""A benchmark of whose prompts so large a share is in the training data counts as trained on."""

AVERAGED = (Metric.ACCURACY, Metric.PRECISION, Metric.RECALL, Metric.F1, Metric.FALSE_POSITIVE_RATE, Metric.AUPRC)

_PACKAGES = ("guardreasoner-moderation", "numpy", "ctranslate2", "tokenizers", "torch", "transformers", "peft")
_IMPORTS = {"guardreasoner-moderation": "guardreasoner_moderation"}


@dataclass(frozen=True)  # without slots, for the cached property
class Part:
    """A finished benchmark of a run.

    Attributes:
        loaded: where its items came from.
        predictions: of its items, or of a sample.
        trained_on: whether the model is declared to have been trained on it.
        overlap: with training data, where that was given.
        upstream: for saved generations, what the upstream scorer makes of them.
    """

    loaded: Loaded
    predictions: Sequence[Prediction]
    trained_on: bool = False
    overlap: Overlap | None = None
    upstream: Scored | None = None

    @cached_property
    def outcomes(self) -> Outcomes:
        """Of the benchmark's task."""
        return to_outcomes(self.predictions, self.loaded.benchmark.task)

    @property
    def seen(self) -> bool:
        """Whether it must not be reported as unseen."""
        return self.trained_on or (self.overlap is not None and self.overlap.share >= SEEN_SHARE)


def summarise(parts: Sequence[Part], about: Mapping[str, Any], *, resamples: int = RESAMPLES) -> dict[str, Any]:
    """The content of ``results.json``.

    Args:
        parts: the finished benchmarks.
        about: the run: model, mode and settings.
        resamples: of the bootstrap.
    """
    return {
        **about,
        "scorer": Scorer.STRICT.value,
        "intervals": f"95%, percentile bootstrap of {resamples} resamples",
        "versions": versions(),
        "hardware": hardware(),
        "seconds": round(sum(_usage(part, "seconds") for part in parts), 1),
        "benchmarks": {part.loaded.benchmark.name: _summarise_part(part, resamples) for part in parts},
        "averages": _averages(parts, resamples),
        "averages_unseen": _averages([part for part in parts if not part.seen], resamples),
    }


def render_table(results: Mapping[str, Any]) -> Table:
    """The results as a table for a terminal of 80 columns; shares in percent."""
    seen = any(row["trained_on"] for row in results["benchmarks"].values())
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), caption="* the model was trained on it" if seen else None)
    table.add_column("benchmark", no_wrap=True)
    for heading in ("n", "F1", "95%", "recall", "FPR", "AUPRC", "unjudged"):
        table.add_column(heading, justify="right", no_wrap=True)
    for task in Task:
        for name, row in results["benchmarks"].items():
            if row["task"] == task:
                table.add_row(f"{name}{' *' if row['trained_on'] else ''}", *_cells(row), str(row["unjudged"]))
        if task in results["averages"]:
            average = results["averages"][task]
            table.add_row(f"{task}, {len(average['benchmarks'])} of the 13", *_cells(average), style="bold")
        table.add_section()
    return table


def versions() -> dict[str, str]:
    """Of Python and of the packages that took part, which are those that were imported."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        if _IMPORTS.get(package, package) in sys.modules:
            try:
                found[package] = metadata.version(package)
            except metadata.PackageNotFoundError:  # a source tree on the path
                found[package] = "unknown"
    return found


def hardware() -> str:
    """Processor, number of its cores that this process computes with, and the GPU if there is one."""
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), processor)
    except OSError:  # not Linux
        pass
    torch = sys.modules.get("torch")
    gpu = f", {torch.cuda.get_device_name()}" if torch is not None and torch.cuda.is_available() else ""
    return f"{available_threads()} x {processor}{gpu}"


def _summarise_part(part: Part, resamples: int) -> dict[str, Any]:
    benchmark, outcomes = part.loaded.benchmark, part.outcomes
    summary: dict[str, Any] = {
        "task": benchmark.task.value,
        "positive_class": benchmark.positive.value,
        "n": len(outcomes),
        "positives": int(outcomes.labels.sum()),
        "unjudged": int((outcomes.predictions < 0).sum()),
        "available": len(part.loaded.items),
        "published_items": benchmark.items,
        "size_note": part.loaded.size_note,
        "source": part.loaded.source,
        "revision": part.loaded.revision,
        "license": benchmark.license,
        "adversarial": benchmark.adversarial,
        "table3": benchmark.table3,
        "trained_on": part.seen,
        "overlap": part.overlap and {"exact": part.overlap.exact, "near": part.overlap.near},
        "seconds": round(_usage(part, "seconds"), 1),
        "prompt_tokens": int(_usage(part, "prompt_tokens")),
        "completion_tokens": int(_usage(part, "completion_tokens")),
        "metrics": to_json(estimate(outcomes, resamples=resamples)),
    }
    if part.upstream is not None:
        summary["upstream"] = {
            "metrics": to_json(estimate(part.upstream.outcomes, resamples=resamples)),
            "unjudged": part.upstream.unjudged,
            "dropped": part.upstream.dropped,
            "counted_twice": part.upstream.counted_twice,
        }
    return summary


def _averages(parts: Sequence[Part], resamples: int) -> dict[str, Any]:
    """For each task, the average over its cells of the 13, weighted by items, as in arXiv 2501.18492, tables 2 to 9."""
    averages = {}
    for task in Task:
        cells = [part for part in parts if part.loaded.benchmark.table3 and part.loaded.benchmark.task is task]
        if cells:
            outcomes = [cell.outcomes for cell in cells]
            averages[task.value] = {
                "n": sum(map(len, outcomes)),
                "benchmarks": [cell.loaded.benchmark.name for cell in cells],
                "metrics": to_json(weighted_averages(outcomes, AVERAGED, resamples=resamples)),
            }
    return averages


def _usage(part: Part, key: str) -> float:
    return sum(float(prediction.result["usage"][key]) for prediction in part.predictions)


def _cells(row: Mapping[str, Any]) -> list[str]:
    def percent(metric: Metric, place: int = 0) -> str:
        share = row["metrics"].get(metric, [None] * 3)[place]
        return "-" if share is None else f"{100 * share:.1f}"

    return [
        str(row["n"]),
        percent(Metric.F1),
        f"{percent(Metric.F1, 1)} to {percent(Metric.F1, 2)}",
        percent(Metric.RECALL),
        percent(Metric.FALSE_POSITIVE_RATE),
        percent(Metric.AUPRC),
    ]
