"""Run folders with made-up items and answers, for the tests of what is made of runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from evaluation.items import Item
from evaluation.loading import Benchmark, HubSource, Loaded
from evaluation.runs import Prediction, open_run, write_json
from evaluation.summary import Part, summarise
from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.results import LABELS, Label, Mode, ModerationResult, Task, TaskVerdict, Usage

Answer: TypeAlias = Callable[[Item], ModerationResult]


def item(
    number: int, risky: bool, prompt: str = "", response: str | None = None, *, name: str = "Mini", **more: Any
) -> Item:
    """An item of the benchmark ``name``, harmful or not."""
    prompt = prompt or f"Please tell me about thing number {number}."
    task: Task = more.pop("task", Task.REQUEST)
    return Item(f"{name}/{number}", Interaction(prompt, response), LABELS[task][0 if risky else 1], **more)


def bench(items: Iterable[Item], task: Task = Task.REQUEST, **more: Any) -> Loaded:
    """Items as a benchmark, which is named by their ids."""
    items = tuple(items)
    name = items[0].id.rpartition("/")[0]
    more = {"adversarial": False, "table3": False, "license": "CC0", **more}
    return Loaded(Benchmark(name, task, len(items), hub=HubSource(""), **more), items, f"{name}.json")


def said(
    request: float | None = 0.0,
    completion: float | None = None,
    response: float | None = None,
    *,
    steps: Sequence[str] | dict[Task, Sequence[str]] = (),
    category: str | None = None,
    seconds: float = 0.1,
    tokens: int = 5,
) -> ModerationResult:
    """A result by its scores; None for a task without an answer. No score at all is an unjudged item."""
    by_task = steps if isinstance(steps, dict) else {Task.REQUEST: steps}

    def verdict(task: Task, score: float | None) -> TaskVerdict | None:
        if score is None:
            return None
        return TaskVerdict(LABELS[task][0 if score >= 0.5 else 1], score, 0.5, tuple(by_task.get(task, ())))

    verdicts = [verdict(task, score) for task, score in zip(Task, (request, completion, response), strict=True)]
    unjudged = not any(verdicts)
    return ModerationResult(
        flagged=unjudged or any(one is not None and one.label is Label.HARMFUL for one in verdicts),
        request=verdicts[0],
        completion=verdicts[1],
        response=verdicts[2],
        category=category,
        mode=Mode.THINK,
        usage=Usage(20, tokens, seconds),
        error="the engine failed" if unjudged else None,
    )


def make_run(
    folder: Path,
    *parts: tuple[Loaded, Answer],
    mode: str = "verdict",
    model: str = "guard",
    trained_on: Sequence[str] = (),
    keep_text: bool = False,
    limit: int | None = None,
) -> Path:
    """A run folder as ``python -m evaluation.run`` leaves it."""
    sample = {"limit": limit, "seed": 0} if limit else None
    finished = []
    with open_run(folder, {"model": model, "engine": "scripted", "mode": mode, "sample": sample}) as run:
        for loaded, answer in parts:
            chosen = loaded.items[:limit]
            predictions = [
                Prediction.of(one, loaded.benchmark.task, answer(one), keep_text=keep_text) for one in chosen
            ]
            run.append(loaded.benchmark.name, predictions)
            finished.append(Part(loaded, predictions, loaded.benchmark.name in trained_on))
        about = {
            "model": {"name": model, "sha256": "5f" * 32, "engine": "scripted"},
            "mode": mode,
            "sample": sample,
            "settings": {},
        }
        write_json(folder / "results.json", summarise(finished, about, resamples=20))
    return folder
