"""Ratings of reasoning by people and models: which items are rated, the sheets, and how far two raters agree.

A sheet is a JSON file ``{"rater", "rubric", "ratings": {key: {criterion: answer, ..., "note": text}}}``. Keys tell
nothing about the model, so that raters are blind; the key file beside the page tells which model and item a key means.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.finished import read_object
from evaluation.intervals import Estimate
from evaluation.metrics import Floats
from evaluation.rubric import Rubric
from evaluation.runs import write_json
from evaluation.traces import Source, Trace
from guardreasoner_moderation.errors import InputError, MissingDependencyError

RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Drawn:
    """A trace to be rated, its source, and the key that hides both."""

    key: str
    source: str
    trace: Trace


@dataclass(frozen=True, slots=True)
class Sheet:
    """What one rater said: answers by criterion for each key."""

    rater: str
    rubric: str
    ratings: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two raters on one criterion.

    Attributes:
        items: that both have rated.
        same: how many of them got the same answer.
        kappa: Cohen's kappa (Cohen 1960) with its bootstrap interval; NaN where both gave one answer to everything.
        weighted: the same with linear weights: a neighbouring answer counts half.
    """

    items: int
    same: int
    kappa: Estimate
    weighted: Estimate


def draw_for_rating(sources: Sequence[Source], count: int, seed: int = 0) -> list[Drawn]:
    """Draws traces whose texts are at hand: as many of each source, benchmarks in turn, in a mixed order.

    Raises:
        InputError: no trace with reasoning has its texts.
    """
    rng = random.Random(seed)
    queues = [queue for source in sources if (queue := _in_turn(source, rng))]
    if not queues:
        raise InputError("no item with reasoning has its texts here: pass --data-dir, or keep them with --keep-text")
    drawn: list[Drawn] = []
    while len(drawn) < count and any(queues):
        for queue in queues:
            if queue and len(drawn) < count:
                drawn.append(queue.pop())
    rng.shuffle(drawn)
    return drawn


def read_sheet(file: Path, rubric: Rubric | None = None) -> Sheet:
    """Reads a sheet.

    Raises:
        InputError: it is none, or belongs to another rubric.
    """
    content = read_object(file)
    try:
        ratings = {str(key): {str(k): str(v) for k, v in row.items()} for key, row in content["ratings"].items()}
        sheet = Sheet(str(content["rater"]), str(content["rubric"]), ratings)
    except (KeyError, AttributeError) as exc:
        raise InputError(f"{file} holds no ratings: it needs rater, rubric and ratings") from exc
    if rubric is not None and sheet.rubric != rubric.digest:
        raise InputError(f"{file} was rated with another rubric ({sheet.rubric}, not {rubric.digest}); pass it")
    return sheet


def write_sheet(file: Path, sheet: Sheet) -> None:
    """Writes a sheet."""
    write_json(file, {"rater": sheet.rater, "rubric": sheet.rubric, "ratings": dict(sheet.ratings)})


def write_key(file: Path, drawn: Sequence[Drawn]) -> None:
    """Writes which source and item each key stands for."""
    write_json(file, {one.key: {"source": one.source, "id": one.trace.id} for one in drawn})


def agree(first: Sheet, second: Sheet, rubric: Rubric) -> dict[str, Agreement]:
    """How far two raters agree, by criterion, on the items that both have rated.

    Raises:
        InputError: there are none.
        MissingDependencyError: scikit-learn is not installed.
    """
    try:
        from sklearn.metrics import cohen_kappa_score
    except ImportError as exc:
        raise MissingDependencyError("Cohen's kappa", "eval") from exc
    keys = [key for key in first.ratings if key in second.ratings]
    found = {}
    for criterion in rubric.criteria:
        levels = list(criterion.answers)
        pairs = np.array(
            [
                (levels.index(one), levels.index(two))
                for key in keys
                if (one := first.ratings[key].get(criterion.name)) in levels
                and (two := second.ratings[key].get(criterion.name)) in levels
            ]
        ).reshape(-1, 2)
        if not len(pairs):
            raise InputError(f"{first.rater} and {second.rater} have rated no item in common on {criterion.name!r}")
        estimates = []
        for weights in (None, "linear"):
            # Of one answer to everything chance explains all, and kappa is 0 / 0.
            defined = len(np.unique(pairs)) > 1
            value = (
                float(cohen_kappa_score(*pairs.T, labels=range(len(levels)), weights=weights)) if defined else np.nan
            )
            drawn = resampled_kappas(pairs, len(levels), linear=weights is not None)
            low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (np.nan, np.nan)
            estimates.append(Estimate(value, float(low), float(high)))
        same = int((pairs[:, 0] == pairs[:, 1]).sum())
        found[criterion.name] = Agreement(len(pairs), same, *estimates)
    return found


def resampled_kappas(pairs: NDArray[np.int64], levels: int, *, linear: bool, resamples: int = RESAMPLES) -> Floats:
    """Cohen's kappa of items drawn with replacement, for its interval.

    Args:
        pairs: (n, 2) answers of two raters, from 0.
        levels: how many answers there are.
        linear: count an answer's distance, not just whether it is the same.
        resamples: how often items are drawn.

    Returns:
        (b,) values; b is less than ``resamples`` where some draws have one answer only.
    """
    items = np.random.default_rng(0).integers(0, len(pairs), (resamples, len(pairs)))
    cells = pairs[:, 0] * levels + pairs[:, 1]
    places = cells[items] + np.arange(resamples)[:, None] * levels**2
    seen = np.bincount(places.ravel(), minlength=resamples * levels**2).reshape(-1, levels, levels) / len(pairs)
    chance = seen.sum(axis=2)[:, :, None] * seen.sum(axis=1)[:, None, :]
    distance = np.abs(np.subtract.outer(np.arange(levels), np.arange(levels)))
    cost = distance if linear else distance > 0
    expected = (chance * cost).sum(axis=(1, 2))
    kappas: Floats = 1 - (seen * cost).sum(axis=(1, 2))[expected > 0] / expected[expected > 0]
    return kappas


def count_answers(sheet: Sheet, rubric: Rubric, key: Mapping[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """How often each answer was given: for each source (or "all"), by criterion.

    Args:
        sheet: of one rater.
        rubric: that was rated with.
        key: content of the key file; without it sources cannot be told apart.
    """
    counts: dict[str, dict[str, Any]] = {}
    for item, row in sheet.ratings.items():
        source = key.get(item, {}).get("source", "unknown") if key is not None else "all"
        table = counts.setdefault(
            source, {criterion.name: dict.fromkeys(criterion.answers, 0) for criterion in rubric.criteria}
        )
        for criterion in rubric.criteria:
            if row.get(criterion.name) in criterion.answers:
                table[criterion.name][row[criterion.name]] += 1
    return counts


def _in_turn(source: Source, rng: random.Random) -> list[Drawn]:
    """The source's traces, drawn in a random order of its benchmarks in turn."""
    by_benchmark: dict[str, list[Trace]] = {}
    for trace in source.traces:
        if trace.reasoned and trace.item is not None:
            by_benchmark.setdefault(trace.benchmark, []).append(trace)
    for traces in by_benchmark.values():
        rng.shuffle(traces)
    turns = []
    while any(by_benchmark.values()):
        turns += [traces.pop() for traces in by_benchmark.values() if traces]
    return [Drawn(_key(source.name, trace), source.name, trace) for trace in reversed(turns)]


def _key(source: str, trace: Trace) -> str:
    return hashlib.sha256(f"{source}\0{trace.id}\0{trace.digest}".encode()).hexdigest()[:12]
