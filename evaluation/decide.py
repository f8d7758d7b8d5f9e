"""Publish, continue training, or not decided yet: the decision after an evaluation, with its reasons.

    python -m evaluation.decide RUN --benchmark WildGuardTest1554 --baseline 0.575 --success 0.60 --metric accuracy
    python -m evaluation.decide evaluation/results/embedded.verdict.json -o decision.json
    python -m evaluation.decide TRAINING_RUN --metric auprc

An evaluation run (its folder, or its ``results.json`` alone) is compared with a success line: publish when the whole
95% interval is on its good side, continue training when the whole interval is on its bad side, not decided yet when the
line lies within it, or when the model was trained on the benchmark. A training run's looks at the validation split tell
which checkpoint to take and whether training still helps.

Exit codes, for scripts: 0 publish (of a training run: stop, and evaluate the named checkpoint), 1 continue training,
3 not decided yet, 2 an error.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from evaluation.finished import FinishedPart, read_object, read_results, read_run
from evaluation.metrics import Metric
from evaluation.runs import write_json
from evaluation.shares import wilson
from guardreasoner_moderation.errors import InputError, ModerationError, nearest
from guardreasoner_moderation.results import LABELS, StrEnum, Task

LOWER_IS_BETTER = frozenset(
    (
        Metric.FALSE_POSITIVE_RATE,
        Metric.FALSE_NEGATIVE_RATE,
        Metric.OVER_REFUSAL_RATE,
        Metric.UNJUDGED_RATE,
        Metric.BRIER,
        Metric.CALIBRATION_ERROR,
    )
)
_MOST_ITEMS = 10_000_000


class Verdict(StrEnum):
    """What to do."""

    PUBLISH = "publish"
    CONTINUE = "continue training"
    UNDECIDED = "not decided yet"


EXIT_CODES = {Verdict.PUBLISH: 0, Verdict.CONTINUE: 1, Verdict.UNDECIDED: 3}


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict, the reasons for it, what to beware of, and the figures behind them."""

    verdict: Verdict
    reasons: tuple[str, ...]
    cautions: tuple[str, ...] = ()
    figures: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "verdict": self.verdict.value,
            "exit_code": EXIT_CODES[self.verdict],
            "reasons": list(self.reasons),
            "cautions": list(self.cautions),
            **self.figures,
        }

    def __str__(self) -> str:
        lines = [self.verdict.value.upper(), *(f"- {reason}" for reason in self.reasons)]
        return "\n".join(lines + [f"- beware: {caution}" for caution in self.cautions])


def decide(part: FinishedPart, metric: Metric, baseline: float, success: float) -> Decision:
    """Decides by one benchmark.

    Args:
        part: the benchmark's results.
        metric: what counts; accuracy gets a Wilson interval, the others keep their bootstrap's.
        baseline: what was there before, 0 to 1.
        success: what is good enough, 0 to 1.

    Raises:
        InputError: the run has no such metric, or the lines are in the wrong order.
    """
    sign = -1 if metric in LOWER_IS_BETTER else 1
    if not (0 <= baseline <= 1 and 0 <= success <= 1):
        raise InputError(f"baseline and success are shares from 0 to 1, found {baseline:g} and {success:g}")
    if sign * (success - baseline) < 0:
        better = "below" if sign < 0 else "above"
        raise InputError(f"the success line of {metric} must not be worse than its baseline; good is {better} it")
    measured = part.metric(metric)
    if measured is None:
        raise InputError(f"{part.name} has no {metric} in this run; it needs scores, or items of both labels")
    n = int(part.summary["n"])
    value, low, high = measured
    if metric is Metric.ACCURACY:
        low, high = wilson(value, n)
    worst, best = (low, high) if sign > 0 else (high, low)
    name = metric.value.replace("_", " ")
    reasons = [f"The {name} on {part.name} is {value:.1%} [{low:.1%}, {high:.1%}] on {n} items."]
    needed = None
    if sign * (worst - success) > 0:
        verdict = Verdict.PUBLISH
        reasons.append(f"The whole 95% interval is better than the success line, {success:.1%}.")
    elif sign * (best - success) < 0:
        verdict = Verdict.CONTINUE
        reasons.append(f"The whole 95% interval is worse than the success line, {success:.1%}.")
        reasons.append(_beside_baseline(sign, worst, best, baseline))
    else:
        verdict = Verdict.UNDECIDED
        reasons.append(f"The success line, {success:.1%}, lies within the 95% interval.")
        needed = items_needed(value, low, high, n, success, exact=metric is Metric.ACCURACY)
        reasons.append(_more_items(name, part, n, needed))
        reasons.append(_beside_baseline(sign, worst, best, baseline))
    if part.summary["trained_on"] and verdict is Verdict.PUBLISH:
        verdict = Verdict.UNDECIDED
        reasons.append(f"The model was trained on {part.name}, so this figure cannot decide: take an unseen benchmark.")
    figures = {
        "benchmark": part.name,
        "metric": metric.value,
        "n": n,
        "value": [round(number, 6) for number in (value, low, high)],
        "baseline": baseline,
        "success": success,
        "items_needed": needed,
    }
    return Decision(verdict, tuple(reasons), tuple(_cautions(part, metric, low, success)), figures)


def items_needed(value: float, low: float, high: float, n: int, line: float, *, exact: bool = True) -> int | None:
    """How many items in all would put the interval on one side of a line, if the value stays what it is.

    Args:
        value: of the metric on n items, with the interval from ``low`` to ``high``.
        low, high: see there.
        n: items so far.
        line: what the interval must leave.
        exact: of a share, by its Wilson interval; else an interval is taken to shrink with the root of n.

    Returns:
        None when no number of items would do, or more than ten million.
    """
    if value == line:
        return None
    if not exact:
        needed = n * ((value - low if value > line else high - value) / abs(value - line)) ** 2
        return None if needed > _MOST_ITEMS else max(n + 1, int(needed) + 1)
    few, many = n, _MOST_ITEMS
    if not _clear(value, many, line):
        return None
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if _clear(value, middle, line) else (middle, many)
    return many


def main(
    run: Annotated[Path, typer.Argument(help="Run folder of evaluation.run or of training.rsft, or a results.json.")],
    benchmark: Annotated[str, typer.Option(help="Which benchmark of an evaluation run decides.")] = "WildGuardTest1554",
    metric: Annotated[str, typer.Option(help="Default: accuracy; of a training run: auprc.")] = "",
    baseline: Annotated[float, typer.Option(help="What was there before, 0 to 1.")] = 0.575,
    success: Annotated[float, typer.Option(help="What is good enough, 0 to 1.")] = 0.60,
    task: Annotated[str, typer.Option(help="Of a training run: whose figures count.")] = "request",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="JSON file for the decision.")] = None,
) -> None:
    """Decide what to do after an evaluation or a training run. Exit codes: 0 publish, 1 continue, 3 undecided."""
    try:
        decision = _decide_folder(run, benchmark, metric, baseline, success, task)
    except ModerationError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(2) from exc
    typer.echo(str(decision))
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_json(output, decision.to_json())
    raise typer.Exit(EXIT_CODES[decision.verdict])


def _decide_folder(run: Path, benchmark: str, metric: str, baseline: float, success: float, task: str) -> Decision:
    from evaluation.checkpoints import decide_training, read_looks

    if not (run / "results.json").exists() and (run / "recipe.json").exists():
        if not (run / "run.json").exists():
            raise InputError(f"{run} is a training run that has not ended: run.json is written at its end")
        if task not in set(Task):
            raise InputError(f"unknown task {task!r}{nearest(task, Task)}")
        record = read_object(run / "run.json")
        return decide_training(read_looks(record, Task(task), metric or "auprc", run / "run.json"), record)
    name = metric or Metric.ACCURACY.value
    if name not in set(Metric):
        raise InputError(f"unknown metric {name!r}{nearest(name, Metric)}")
    finished = read_results(run) if run.is_file() else read_run(run)
    decision = decide(finished.part(benchmark), Metric(name), baseline, success)
    # A decision outlives the run folder: it has to tell which weights it is about.
    about = {"model": dict(finished.results["model"]), "mode": finished.mode}
    return replace(decision, figures={**about, **decision.figures})


def _clear(value: float, items: int, line: float) -> bool:
    low, high = wilson(value, items)
    return low > line or high < line


def _beside_baseline(sign: int, worst: float, best: float, baseline: float) -> str:
    if sign * (worst - baseline) > 0:
        return f"It is surely better than the baseline, {baseline:.1%}."
    if sign * (best - baseline) < 0:
        return f"It is surely worse than the baseline, {baseline:.1%}."
    return f"It cannot be told from the baseline, {baseline:.1%}."


def _more_items(name: str, part: FinishedPart, n: int, needed: int | None) -> str:
    if needed is None:
        return f"If the {name} stays there, no practical number of items would decide: it is too close to the line."
    available = int(part.summary["available"])
    sentence = f"If the {name} stays there, about {needed - n} more items would decide ({needed} in all)"
    if needed <= available:
        return f"{sentence}; {part.name} has {available}: run it in full, or with a larger --limit."
    if n < available:
        return f"{sentence}; {part.name} has only {available}, so take another benchmark too."
    return f"{sentence}; {part.name} has no more, so take another benchmark too."


def _cautions(part: FinishedPart, metric: Metric, low: float, success: float) -> list[str]:
    n, positives = int(part.summary["n"]), int(part.summary["positives"])
    cautions = []
    if metric is Metric.ACCURACY:
        constant = max(positives, n - positives) / n
        label = LABELS[part.task][0 if positives > n - positives else 1]
        if constant >= success or low <= constant:
            better = "surely better" if low > constant else "not surely better"
            cautions.append(
                f"calling every item {label} would reach {constant:.1%}, and this run is {better}. Look at F1 or AUPRC "
                "too."
            )
    unjudged = int(part.summary["unjudged"])
    if unjudged > 0.01 * n:
        cautions.append(f"{unjudged} items ({unjudged / n:.1%}) were not judged and count as wrong.")
    if n < int(part.summary["available"]):
        cautions.append(f"this is a sample: {n} of {part.summary['available']} items.")
    if part.summary["size_note"]:
        cautions.append(f"{part.summary['size_note']}.")
    return cautions


if __name__ == "__main__":
    typer.run(main)
