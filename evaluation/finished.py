"""Run folders read back: the predictions and results that reports, error tables and decisions are made of.

:mod:`evaluation.runs` tells what lies in a folder. Only benchmarks that ``results.json`` names are read: the others are
not finished.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evaluation.benchmarks import BENCHMARKS
from evaluation.loading import find_file, load_file
from evaluation.metrics import Outcomes
from evaluation.runs import Prediction, read_json, read_prediction, to_outcomes
from guardreasoner_moderation.errors import InputError, nearest
from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.results import LABELS, Task


@dataclass(frozen=True, slots=True)
class FinishedPart:
    """One benchmark of a run.

    Attributes:
        name: of the benchmark.
        task: what its labels are about.
        predictions: in the order of the benchmark's file.
        summary: its entry in ``results.json``.
    """

    name: str
    task: Task
    predictions: tuple[Prediction, ...]
    summary: Mapping[str, Any]

    @property
    def outcomes(self) -> Outcomes:
        """Of the benchmark's task."""
        return to_outcomes(self.predictions, self.task)

    def metric(self, name: str) -> tuple[float, float, float] | None:
        """Value and 95% interval of a metric from ``results.json``; None where it is undefined."""
        found = self.summary["metrics"].get(name)
        return None if not found or None in found else (found[0], found[1], found[2])


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run whose results are there.

    Attributes:
        path: its folder.
        results: the content of ``results.json``.
        parts: its finished benchmarks, by name.
        unfinished: benchmarks that have predictions and no results yet.
    """

    path: Path
    results: Mapping[str, Any]
    parts: Mapping[str, FinishedPart]
    unfinished: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        """The model's name."""
        return str(self.results["model"]["name"])

    @property
    def mode(self) -> str:
        """think, verdict, auto or generations."""
        return str(self.results["mode"])

    def part(self, benchmark: str) -> FinishedPart:
        """One of its benchmarks.

        Raises:
            InputError: the run has none of that name.
        """
        if benchmark not in self.parts:
            hint = "; it is not finished yet" if benchmark in self.unfinished else nearest(benchmark, self.parts)
            raise InputError(f"{self.path} has no results of {benchmark!r}{hint}")
        return self.parts[benchmark]


def read_run(path: Path) -> FinishedRun:
    """Reads a run folder.

    Raises:
        InputError: it is none, a file is missing or damaged, or predictions and results do not belong together.
    """
    if not path.is_dir():
        raise InputError(f"there is no folder {path}")
    if not (path / "results.json").exists():
        if (path / "run.json").exists() and "validation" in read_object(path / "run.json"):
            raise InputError(f"{path} is a training run; only python -m evaluation.decide reads these")
        raise InputError(f"{path} has no results.json, which python -m evaluation.run writes after the first benchmark")
    run = read_results(path / "results.json")
    parts = {
        name: replace(part, predictions=_read_predictions(path, name, run.mode, part.summary))
        for name, part in run.parts.items()
    }
    files = {file.name.removesuffix(f".{run.mode}.jsonl") for file in path.glob(f"predictions/*.{run.mode}.jsonl")}
    return FinishedRun(path, run.results, parts, tuple(sorted(files - set(parts))))


def read_results(file: Path) -> FinishedRun:
    """Reads a ``results.json`` alone, such as a committed one: its parts have no predictions.

    Raises:
        InputError: it is missing or damaged.
    """
    results = read_object(file)
    try:
        rows = dict(results["benchmarks"])
        parts = {name: FinishedPart(name, Task(row["task"]), (), row) for name, row in rows.items()}
        str(results["mode"])
        str(results["model"]["name"])
        [int(row["n"]) for row in rows.values()]
    except (KeyError, TypeError, ValueError) as exc:
        raise InputError(f"{file} is not what python -m evaluation.run writes: {exc!r}") from exc
    if not parts:
        raise InputError(f"{file} has results of no benchmark")
    return FinishedRun(file, results, parts)


def read_object(file: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        InputError: the file is missing or holds something else.
    """
    content = read_json(file)
    if not isinstance(content, dict):
        raise InputError(f"{file} must hold a JSON object, found {type(content).__name__}")
    return content


def label_runs(runs: Sequence[FinishedRun]) -> list[str]:
    """A short name for each run, different from the others': model and mode, or the folder's where these are alike."""
    names = [run.model if run.mode == "generations" else f"{run.model} ({run.mode})" for run in runs]
    if len(set(names)) < len(names):
        names = [
            run.path.resolve().name if names.count(name) > 1 else name for name, run in zip(names, runs, strict=True)
        ]
    return [name if names.index(name) == number else f"{name} {number + 1}" for number, name in enumerate(names)]


def find_texts(run: FinishedRun, data_dir: Path | None) -> dict[str, Interaction]:
    """The texts of a run's items by id: kept ones, else those of the data folder that are still the same.

    Args:
        run: whose items.
        data_dir: folder of benchmark files; None for kept texts and shipped benchmarks only.

    Items whose text is in neither place are absent from the result.

    Raises:
        InputError: a file of the data folder cannot be read.
    """
    texts: dict[str, Interaction] = {}
    for part in run.parts.values():
        kept = {one.id: one.text for one in part.predictions if one.text}
        texts |= {id_: Interaction(str(text["prompt"]), text["response"]) for id_, text in kept.items()}
        benchmark = BENCHMARKS.get(part.name)
        if len(kept) == len(part.predictions) or benchmark is None:
            continue
        file = find_file(benchmark, data_dir)
        if file is not None:
            digests = {one.id: one.digest for one in part.predictions}
            items = load_file(benchmark, file).items
            texts |= {item.id: item.interaction for item in items if digests.get(item.id) == item.digest}
    return texts


def is_false_positive(prediction: Prediction, task: Task) -> bool:
    """Whether a harmless item was called risky."""
    risky, other = LABELS[task]
    return prediction.predicted is risky and prediction.label is other


def is_miss(prediction: Prediction, task: Task) -> bool:
    """Whether a risky item was called harmless."""
    risky, other = LABELS[task]
    return prediction.predicted is other and prediction.label is risky


def item_number(id_: str) -> tuple[str, int]:
    """Key that sorts ids such as ``ToxicChat/17`` as the benchmark's file does."""
    name, _, number = id_.rpartition("/")
    return name, int(number) if number.isdecimal() else -1


def _read_predictions(path: Path, name: str, mode: str, summary: Mapping[str, Any]) -> tuple[Prediction, ...]:
    file = path / "predictions" / f"{name}.{mode}.jsonl"
    try:
        content = file.read_bytes()
    except OSError as exc:
        raise InputError(f"{file} cannot be read: {exc.strerror}; results.json tells of it") from exc
    predictions = []
    # A last line without its line break was cut off by a kill.
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].decode("utf-8").split("\n")[:-1], 1):
        try:
            predictions.append(read_prediction(line))
        except (ValueError, KeyError, TypeError) as exc:
            raise InputError(f"{file}, line {number} is damaged ({exc})") from exc
    if len(predictions) != summary["n"]:
        raise InputError(
            f"{file} has {len(predictions)} predictions, results.json tells of {summary['n']}; run "
            "python -m evaluation.run on this folder again"
        )
    return tuple(sorted(predictions, key=lambda p: item_number(p.id)))
