"""The rows of the report's tables, as plain values that both its templates show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.finished import FinishedPart, FinishedRun
from evaluation.intervals import Estimate
from evaluation.latency import Cost
from evaluation.metrics import Metric
from evaluation.published import Beside, read_published
from evaluation.shares import Share
from guardreasoner_moderation.results import LABELS, Task

AVERAGE_NAMES: Mapping[Task, str] = {Task.REQUEST: "prompt", Task.COMPLETION: "refusal", Task.RESPONSE: "response"}
"""The paper's names of the averages."""

SHOWN = (
    (Metric.PRECISION, "precision"),
    (Metric.RECALL, "recall"),
    (Metric.FALSE_POSITIVE_RATE, "FPR"),
    (Metric.AUPRC, "AUPRC"),
    (Metric.CALIBRATION_ERROR, "ECE"),
)
"""Columns of the results table beside F1 and accuracy."""


def run_facts(run: FinishedRun) -> dict[str, str]:
    """What every figure of a run must be read with."""
    results, model = run.results, run.results["model"]
    sample = results.get("sample")
    facts = {
        "Model": str(model["name"]),
        "Weights": f"sha256 {str(model['sha256'])[:16]}…" if model.get("sha256") else "unknown",
        "Mode": run.mode,
        "Engine": str(model.get("engine", "none: saved outputs")),
        "Scorer": f"{results['scorer']}: an unjudged item counts once as wrong",
        "Items": f"a sample of {sample['limit']} of each benchmark (seed {sample['seed']})" if sample else "all",
        "Intervals": str(results["intervals"]),
        "Hardware": str(results["hardware"]),
        "Versions": ", ".join(f"{name} {version}" for name, version in results["versions"].items()),
    }
    settings = {key: value for key, value in (results.get("settings") or {}).items() if value is not None}
    if settings:
        facts["Settings"] = ", ".join(f"{key} {value}" for key, value in settings.items())
    if run.unfinished:
        facts["Unfinished"] = f"left out: {', '.join(run.unfinished)}"
    return facts


def summary_rows(runs: Sequence[FinishedRun], names: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each run: F1 averaged over its unseen cells of the 13, unjudged items, time; shares in percent."""
    rows = []
    for run, name in zip(runs, names, strict=True):
        items = sum(part.summary["n"] for part in run.parts.values())
        seconds = sum(part.summary["seconds"] for part in run.parts.values())
        averages = run.results["averages_unseen"]
        rows.append(
            {
                "name": name,
                "benchmarks": len(run.parts),
                "n": items,
                "f1": {
                    task: (_percents(averages[task.value]["metrics"][Metric.F1]), averages[task.value]["n"])
                    for task in Task
                    if task.value in averages
                },
                "unjudged": Share(sum(part.summary["unjudged"] for part in run.parts.values()), items),
                "seconds": seconds / items if seconds else None,
            }
        )
    return rows


def results_rows(run: FinishedRun) -> list[dict[str, Any]]:
    """One row for each benchmark, and the averages over the cells of the 13, by task; shares in percent."""
    rows: list[dict[str, Any]] = []
    for task in Task:
        parts = [part for part in run.parts.values() if part.task is task]
        rows += [_result(part) for part in parts]
        whole, unseen = (run.results[name].get(task.value) for name in ("averages", "averages_unseen"))
        for average, note in ((whole, ""), (unseen, ", without *")):
            if average and len(average["benchmarks"]) > 1 and (average is whole or average != whole):
                rows.append(_average(run, AVERAGE_NAMES[task] + " average", note, average))
    return rows


def confusion_rows(run: FinishedRun) -> list[dict[str, Any]]:
    """Counts of each benchmark: true label by what was answered."""
    rows = []
    for part in run.parts.values():
        outcomes, (risky, other) = part.outcomes, LABELS[part.task]
        counts = {
            label: [int(((outcomes.labels == flag) & (outcomes.predictions == value)).sum()) for value in (1, 0, -1)]
            for label, flag in ((risky.value, True), (other.value, False))
        }
        rows.append({"name": part.name, "labels": [risky.value, other.value], "counts": counts})
    return rows


def published_rows(besides: Sequence[Sequence[Beside]], names: Sequence[str]) -> dict[str, Any]:
    """F1 in percent by model: ours first, then the published ones; a column for each benchmark that is in a run."""
    columns = [
        name for name in read_published()["items"] if any(one.benchmark == name for run in besides for one in run)
    ]
    ours = []
    for name, run in zip(names, besides, strict=True):
        found = {one.benchmark: one for one in run}
        cells = [f"{found[column].f1[0]:.1f}" if column in found else "" for column in columns]
        marks = [column in found and found[column].trained_on for column in columns]
        ours.append({"model": name, "cells": list(zip(cells, marks, strict=True))})
    others = []
    for model, figures in read_published()["f1"].items():
        if any(column in figures for column in columns):
            others.append({"model": model, "cells": [figures.get(column) for column in columns]})
    best = [max((row["cells"][place] or 0.0 for row in others), default=0.0) for place in range(len(columns))]
    return {"columns": columns, "ours": ours, "others": others, "best": best}


def cost_rows(costs: Sequence[Cost], names: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each run."""
    return [
        {
            "name": name,
            "seconds": f"{cost.seconds:.2f}",
            "tokens": f"{cost.tokens:.0f}",
            "f1": {AVERAGE_NAMES[task]: _estimate(f1) for task, f1 in cost.f1.items()},
        }
        for name, cost in zip(names, costs, strict=True)
    ]


def find_findings(
    runs: Sequence[FinishedRun],
    names: Sequence[str],
    besides: Sequence[Sequence[Beside]],
    costs: Sequence[Cost] | None,
) -> list[str]:
    """What to know first, in sentences made of the figures."""
    findings = [f"{name} on {_only(run)}" for run, name in zip(runs, names, strict=True) if not run.results["averages"]]
    for name, beside in zip(names, besides, strict=True):
        # Trained-on benchmarks are no comparison.
        fair = [one for one in beside if not one.trained_on and one.published]
        if fair:
            ahead = [one for one in fair if one.better_than > len(one.published) / 2]
            findings.append(
                f"{name}: F1 above the median of the published models on {len(ahead)} of {len(fair)} benchmarks"
                + (f" ({', '.join(one.benchmark for one in ahead)})." if ahead else ".")
            )
    by_seen: dict[tuple[str, ...], list[str]] = {}
    for run, name in zip(runs, names, strict=True):
        seen = tuple(part.name for part in run.parts.values() if part.summary["trained_on"])
        by_seen.setdefault(seen, []).append(name)
    for seen, whose in by_seen.items():
        if seen:
            were = "was" if len(whose) == 1 else "were"
            findings.append(
                f"{_listed(whose)} {were} trained on {_listed(seen)}: these cells carry a * and are no test."
            )
    if costs:
        quickest = min(range(len(costs)), key=lambda number: costs[number].seconds)
        for number, cost in enumerate(costs):
            if number != quickest:
                gains = [
                    f"{AVERAGE_NAMES[task]} F1 {_estimate(f1)} instead of {_estimate(costs[quickest].f1[task])}"
                    for task, f1 in cost.f1.items()
                    if task in costs[quickest].f1
                ]
                findings.append(
                    f"{names[number]} takes {cost.seconds / costs[quickest].seconds:.1f} times as long as "
                    f"{names[quickest]} on the same {cost.items} items, for {'; '.join(gains)}."
                )
    return findings


def _result(part: FinishedPart) -> dict[str, Any]:
    summary = part.summary
    return {
        "name": part.name,
        "average": False,
        "trained_on": bool(summary["trained_on"]),
        "n": summary["n"],
        "positives": summary["positives"],
        "unjudged": summary["unjudged"],
        "sample_of": summary["available"] if summary["n"] < summary["available"] else None,
        "published_items": summary["published_items"] if summary["size_note"] else None,
        "f1": _percents(summary["metrics"].get(Metric.F1)),
        "accuracy": _percents(summary["metrics"].get(Metric.ACCURACY)),
        "others": [_first(summary["metrics"].get(metric)) for metric, _ in SHOWN],
    }


def _average(run: FinishedRun, name: str, note: str, average: Mapping[str, Any]) -> dict[str, Any]:
    parts = [run.parts[benchmark] for benchmark in average["benchmarks"]]
    return {
        "name": f"{name}, {len(parts)} of 13{note}",
        "average": True,
        "trained_on": False,
        "n": average["n"],
        "positives": None,
        "unjudged": sum(part.summary["unjudged"] for part in parts),
        "sample_of": None,
        "published_items": None,
        "f1": _percents(average["metrics"][Metric.F1]),
        "accuracy": _percents(average["metrics"][Metric.ACCURACY]),
        "others": [_first(average["metrics"].get(metric)) for metric, _ in SHOWN],
    }


def _percents(found: Sequence[float | None] | None) -> list[float] | None:
    """Value, low and high in percent; None where it is undefined."""
    if found is None or any(number is None for number in found):
        return None
    return [100 * number for number in found if number is not None]


def _first(found: Sequence[float | None] | None) -> float | None:
    return None if found is None or found[0] is None else 100 * found[0]


def _estimate(found: Estimate) -> str:
    return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _only(run: FinishedRun) -> str:
    """For runs without one of the 13 cells: accuracy and F1 of each benchmark."""
    parts = []
    for part in run.parts.values():
        found = [
            f"{name} {100 * values[0]:.1f}% [{100 * values[1]:.1f}, {100 * values[2]:.1f}]"
            for metric, name in ((Metric.ACCURACY, "accuracy"), (Metric.F1, "F1"))
            if (values := part.metric(metric))
        ]
        parts.append(f"{part.name}: {', '.join(found)}, on {part.summary['n']} items")
    return f"{'; '.join(parts)}."


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else list(words))
