"""Errors by kind of item: which slices of a run are worse than the rest, and in which way."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from evaluation.finished import FinishedRun
from evaluation.shares import Share
from guardreasoner_moderation.results import LABELS, StrEnum, Task

LENGTHS = (100, 300, 1000, 3000)
"""Upper bounds of the length slices, in characters of prompt and response."""

NEAR = 0.1
"""A score so close to its threshold is a near miss: a slightly other threshold would have been right."""


class Kind(StrEnum):
    """Ways to be wrong."""

    FALSE_ALARM = "false alarm"
    MISS = "miss"
    UNJUDGED = "unjudged"


@dataclass(frozen=True, slots=True)
class Case:
    """One item and what came out.

    Attributes:
        id, benchmark, task, group: as of the item.
        source: of the benchmark's items.
        adversarial: whether the benchmark includes jailbreaks.
        risky: whether the risky label is the true one.
        kind: of the error; None where the answer is right.
        score, threshold: of the risky label; None where there are none.
        characters: of prompt and response together.
        category: that the guard named, for flagged requests and responses.
    """

    id: str
    benchmark: str
    task: Task
    group: str | None
    source: str
    adversarial: bool
    risky: bool
    kind: Kind | None
    score: float | None
    threshold: float | None
    characters: int
    category: str | None

    @property
    def near(self) -> bool:
        """Whether the score lies close to the threshold."""
        return self.score is not None and self.threshold is not None and abs(self.score - self.threshold) <= NEAR

    @property
    def length(self) -> str:
        """Its length slice."""
        below = 0
        for bound in LENGTHS:
            if self.characters <= bound:
                return f"{below + 1} to {bound} characters"
            below = bound
        return f"over {LENGTHS[-1]} characters"


@dataclass(frozen=True, slots=True)
class Slice:
    """Items that have something in common.

    Attributes:
        name: what they have in common.
        cases: the items.
        reference: what they are compared with: the rate of each kind of error, of the items that can have it.
    """

    name: str
    cases: Sequence[Case]
    reference: Mapping[Kind, float] = field(default_factory=dict)

    @property
    def errors(self) -> Share:
        """Of all items."""
        return Share(sum(case.kind is not None for case in self.cases), len(self.cases))

    def rate(self, kind: Kind) -> Share:
        """False alarms of the harmless items, misses of the risky ones, unjudged of all."""
        able = [case for case in self.cases if kind is Kind.UNJUDGED or case.risky is (kind is Kind.MISS)]
        return Share(sum(case.kind is kind for case in able), len(able))

    def near(self, kind: Kind | None = None) -> int:
        """Errors close to the threshold, of a kind or of all."""
        return sum(case.near and case.kind is not None and kind in (None, case.kind) for case in self.cases)

    def worse(self, kind: Kind) -> bool:
        """Whether the whole interval of the rate lies above the reference."""
        rate = self.rate(kind)
        return rate.of > 0 and kind in self.reference and rate.interval[0] > self.reference[kind]

    def excess(self, kind: Kind) -> float:
        """Errors beyond what the reference rate would give."""
        rate = self.rate(kind)
        return rate.count - self.reference.get(kind, 0.0) * rate.of

    @property
    def expected(self) -> float:
        """The error rate that the reference rates would give for these items' labels; NaN without items."""
        errors = sum(self.reference.get(kind, 0.0) * self.rate(kind).of for kind in Kind)
        return errors / len(self.cases) if self.cases else math.nan


@dataclass(frozen=True, slots=True)
class Work:
    """A slice that is surely worse than its reference in one kind of error."""

    slice: Slice
    kind: Kind

    @property
    def advice(self) -> str:
        """What these errors suggest to do."""
        count, near = self.slice.rate(self.kind).count, self.slice.near(self.kind)
        advice = {
            Kind.MISS: "train on more risky items of this kind",
            Kind.FALSE_ALARM: "train on harmless look-alikes of this kind",
            Kind.UNJUDGED: "read their `error` in the predictions",
        }[self.kind]
        if near >= 0.4 * count and self.kind is not Kind.UNJUDGED:
            advice += f"; {near} are near the threshold: tune it on validation data of your own"
        return advice


def to_cases(run: FinishedRun) -> list[Case]:
    """The items of all benchmarks of a run."""
    cases = []
    for part in run.parts.values():
        risky_label = LABELS[part.task][0]
        for one in part.predictions:
            risky = one.label is risky_label
            kind = None
            if one.predicted is None:
                kind = Kind.UNJUDGED
            elif one.predicted is not one.label:
                kind = Kind.MISS if risky else Kind.FALSE_ALARM
            verdict = one.result.get(part.task.value) or {}
            cases.append(
                Case(
                    id=one.id,
                    benchmark=part.name,
                    task=part.task,
                    group=one.group or None,
                    source=str(part.summary["source"]),
                    adversarial=bool(part.summary["adversarial"]),
                    risky=risky,
                    kind=kind,
                    score=one.score,
                    threshold=verdict.get("threshold") if one.score is not None else None,
                    characters=one.prompt_characters + (one.response_characters or 0),
                    category=one.result.get("category"),
                )
            )
    return cases


DIMENSIONS: Mapping[str, Callable[[Case], str | None]] = {
    "Benchmark": lambda case: case.benchmark,
    "Task": lambda case: case.task.value,
    "Group": lambda case: None if case.group is None else f"{case.benchmark}: {case.group}",
    "Length": lambda case: case.length,
    "Adversarial or plain": lambda case: "includes jailbreaks" if case.adversarial else "plain",
    "Source": lambda case: case.source,
}
"""By what items are told apart; an item without an answer is in no slice. "Adversarial" is known of benchmarks only."""


def cut(cases: Sequence[Case], dimension: str, min_items: int = 1) -> list[Slice]:
    """The slices of a dimension, those with the most errors beyond the expected first; lengths in their order.

    Groups are compared with their own benchmark, everything else with all items, each kind of error by itself: a slice
    of risky items alone is not worse for having no others.

    Args:
        cases: of a run.
        dimension: a key of :data:`DIMENSIONS`.
        min_items: smaller slices are put together, and compared with nothing.
    """
    by_name: dict[str, list[Case]] = {}
    for case in cases:
        name = DIMENSIONS[dimension](case)
        if name is not None:
            by_name.setdefault(name, []).append(case)
    overall = rates_of(cases)
    benchmarks = {name: rates_of(part) for name, part in _by_benchmark(cases).items()} if dimension == "Group" else {}
    slices = [
        Slice(name, part, benchmarks.get(part[0].benchmark, overall))
        for name, part in by_name.items()
        if len(part) >= min_items
    ]
    small = [part for part in by_name.values() if len(part) < min_items]
    if dimension == "Length":
        slices.sort(key=lambda one: min(case.characters for case in one.cases))
    else:
        slices.sort(key=lambda one: -sum(one.excess(kind) for kind in Kind))
    if small:
        rest = [case for part in small for case in part]
        together = f"{len(small)} smaller ones together"
        slices.append(Slice(DIMENSIONS[dimension](rest[0]) or "" if len(small) == 1 else together, rest))
    return slices


def dimensions(cases: Sequence[Case]) -> list[str]:
    """The dimensions that tell items apart, without those that only call the benchmarks by another name."""
    found = []
    for name, of in DIMENSIONS.items():
        values = {(of(case), case.benchmark) for case in cases if of(case) is not None}
        parts = len({value for value, _ in values})
        renamed = parts == len(values) == len({benchmark for _, benchmark in values})
        if parts > 1 and (name == "Benchmark" or not renamed):
            found.append(name)
    return found


def work_list(cases: Sequence[Case], min_items: int = 10, top: int = 8) -> list[Work]:
    """What to look at first: slices surely worse than their reference in a kind of error, most excess errors first."""
    found = [
        Work(one, kind)
        for dimension in ("Benchmark", "Group", "Length")
        for one in cut(cases, dimension, min_items)
        for kind in Kind
        if one.worse(kind) and one.rate(kind).of >= min_items
    ]
    return sorted(found, key=lambda work: -work.slice.excess(work.kind))[:top]


def rates_of(cases: Sequence[Case]) -> dict[Kind, float]:
    """The rate of each kind of error, without those that no item could have."""
    whole = Slice("", cases)
    return {kind: rate.value for kind in Kind if (rate := whole.rate(kind)).of}


def by_category(cases: Sequence[Case]) -> list[tuple[str, Share]]:
    """For each category that the guard named: how many of the flagged items were false alarms; most first."""
    flagged = [case for case in cases if case.category is not None and case.task is not Task.COMPLETION]
    named = Counter(str(case.category) for case in flagged)
    false = Counter(str(case.category) for case in flagged if case.kind is Kind.FALSE_ALARM)
    return sorted(((name, Share(false[name], total)) for name, total in named.items()), key=lambda row: -row[1].count)


def most_confident(cases: Sequence[Case], kind: Kind, top: int) -> list[Case]:
    """The errors of a kind whose score is farthest on the wrong side."""
    wrong = [case for case in cases if case.kind is kind and case.score is not None]
    return sorted(wrong, key=lambda case: (-(case.score or 0.0) if kind is Kind.FALSE_ALARM else case.score, case.id))[
        :top
    ]


def _by_benchmark(cases: Sequence[Case]) -> dict[str, list[Case]]:
    parts: dict[str, list[Case]] = {}
    for case in cases:
        parts.setdefault(case.benchmark, []).append(case)
    return parts
