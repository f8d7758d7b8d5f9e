"""What the modes cost and what they bring: F1 and seconds of several runs on the items that all of them judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation.finished import FinishedRun
from evaluation.intervals import Estimate, weighted_averages
from evaluation.metrics import Metric
from evaluation.runs import Prediction, to_outcomes
from guardreasoner_moderation.results import Task

ENOUGH = 30
RESAMPLES = 200


@dataclass(frozen=True, slots=True)
class Cost:
    """One run on the shared items.

    Attributes:
        items: how many there are.
        f1: by task, over the benchmarks weighted by their shared items, with its interval.
        seconds: mean wall time of an item, on the machine of that run.
        tokens: mean number of tokens that the guard wrote.
    """

    items: int
    f1: Mapping[Task, Estimate]
    seconds: float
    tokens: float


def measure_costs(runs: Sequence[FinishedRun]) -> list[Cost] | None:
    """The costs of runs; None when there are not two runs with times, or they share too few items."""
    if len(runs) < 2:
        return None
    tables = [
        {(name, one.id, one.digest): one for name, part in run.parts.items() for one in part.predictions}
        for run in runs
    ]
    # In the order of the first run, so that the draws of the bootstrap are the same in each.
    shared = [key for key in tables[0] if all(key in table for table in tables[1:])]
    costs = []
    for run, table in zip(runs, tables, strict=True):
        predictions = [table[key] for key in shared]
        seconds = sum(_usage(one, "seconds") for one in predictions)
        if len(predictions) < ENOUGH or not seconds:
            return None
        by_task: dict[Task, list[list[Prediction]]] = {}
        for name, part in run.parts.items():
            there = [table[key] for key in shared if key[0] == name]
            if there:
                by_task.setdefault(part.task, []).append(there)
        costs.append(
            Cost(
                items=len(shared),
                f1={
                    task: weighted_averages(
                        [to_outcomes(there, task) for there in parts], (Metric.F1,), resamples=RESAMPLES
                    )[Metric.F1]
                    for task, parts in by_task.items()
                },
                seconds=seconds / len(shared),
                tokens=sum(_usage(one, "completion_tokens") for one in predictions) / len(shared),
            )
        )
    return costs


def _usage(prediction: Prediction, name: str) -> float:
    return float(prediction.result["usage"][name])
