"""Results files, as evaluation wrote them, read into what a card shows.

Four kinds are known by their keys: ``results.json`` of ``evaluation.run``, the JSON files of ``evaluation.reasoning``
and ``evaluation.errors``, and the record of ``reliability.hostile_text``. Figures of other weights than the card's are
refused, unless they are asked for as something to stand beside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.finished import read_object
from evaluation.zero_shot import FOLDER, MEANING
from guardreasoner_moderation.errors import InputError
from model_cards.reading import NOT_MEASURED, ROOT, shown_path

PUBLISHED = ROOT / "evaluation" / "published.json"
UNDEFINED = "undefined"


@dataclass(frozen=True, slots=True)
class Interval:
    """A share, 0 to 1, with its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"

    @property
    def points(self) -> str:
        """As the difference of two shares, in percentage points."""
        return f"{100 * self.value:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"


@dataclass(frozen=True, slots=True)
class Run:
    """What every figure of an evaluation run needs beside it."""

    file: str
    model: str
    sha256: str | None
    engine: str
    mode: str
    scorer: str
    intervals: str
    versions: Mapping[str, str]
    hardware: str
    seconds: float
    averages: Mapping[str, tuple[int, Interval]]

    @property
    def note(self) -> str:
        """The sentence below a table."""
        packages = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        about = f" {MEANING}" if self.model == FOLDER else ""
        return (
            f"`{self.file}`: model `{self.model}`, weights {str(self.sha256)[:12]}, {self.mode} mode, engine "
            f"{self.engine}, {self.scorer} scorer, [{self.intervals}], {self.hardware}, {packages}.{about}"
        )


@dataclass(frozen=True, slots=True)
class Row:
    """One benchmark of a run.

    Attributes:
        run: which it belongs to.
        benchmark, task: what was asked.
        n, available: items that were judged, and that there are.
        positives, unjudged: items whose risky label is true; that got no answer.
        trained_on: whether the model has seen the benchmark.
        license, revision: of the data.
        metrics: by name; None where one is undefined, as recall is without risky items.
    """

    run: Run
    benchmark: str
    task: str
    n: int
    available: int
    positives: int
    unjudged: int
    trained_on: bool
    license: str
    revision: str | None
    metrics: Mapping[str, Interval | None]

    @property
    def items(self) -> str:
        """``300 of 1554`` of a sample."""
        return str(self.n) if self.n == self.available else f"{self.n} of {self.available}"

    def shown(self, metric: str) -> str:
        """A metric in percent with its interval."""
        return str(self.metrics.get(metric, NOT_MEASURED) or UNDEFINED)


@dataclass(frozen=True, slots=True)
class Failure:
    """A kind of item on which a model fails more than elsewhere; shares are 0 to 1."""

    slice: str
    kind: str
    rate: Interval
    count: int
    of: int
    elsewhere: float
    advice: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Checks of reasoning.

    Attributes:
        sources: whose; this model's first.
        items: how many each reasoned about.
        checks: from the check's name to the share of each source; None where it does not apply.
    """

    sources: Sequence[str]
    items: Sequence[int]
    checks: Mapping[str, Sequence[Interval | None]]


@dataclass(frozen=True, slots=True)
class Attack:
    """What came of requests that were wrapped or disguised; shares are 0 to 1, None of nothing.

    Attributes:
        name: the family and the mode.
        pairs: of a plain request and a hostile text made of it.
        changed: share of verdicts that differ from the plain request's.
        missed: share of the requests that are flagged plain and are not any more.
        missed_as_they_are: the same where texts are not normalised.
    """

    name: str
    pairs: int
    changed: float | None
    missed: float | None
    missed_as_they_are: float | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that was measured.

    Attributes:
        rows: of this model, in the order of the papers' benchmarks, then the others.
        beside: of other models, measured here too.
        failures: None where errors were not analysed.
        reasoning: None where it was not checked.
        attacks: None where nobody tried hostile texts.
        files: the results files.
    """

    rows: Sequence[Row]
    beside: Sequence[Row] = ()
    failures: Sequence[Failure] | None = None
    reasoning: Reasoning | None = None
    attacks: Sequence[Attack] | None = None
    files: Sequence[Path] = ()

    @property
    def runs(self) -> Sequence[Run]:
        """Of all rows, each once."""
        return list({row.run.file: row.run for row in (*self.rows, *self.beside)}.values())

    def of(self, benchmark: str) -> list[Row]:
        """This model's rows of a benchmark."""
        return [row for row in self.rows if row.benchmark == benchmark]


def read_evidence(files: Sequence[Path], sha256: str, beside: Sequence[Path] = ()) -> Evidence:
    """Reads results files.

    Args:
        files: of this model.
        sha256: of its weights.
        beside: ``results.json`` files of other models.

    Raises:
        InputError: a file is of no known kind, damaged, of other weights, or of a kind that is already there.
    """
    rows: list[Row] = []
    failures: list[Failure] | None = None
    reasoning: Reasoning | None = None
    attacks: list[Attack] | None = None
    for file in files:
        content = read_object(file)
        try:
            if {"benchmarks", "mode", "model"} <= set(content):
                rows += _read_rows(content, file)
                found = content["model"]["sha256"]
            elif {"work_list", "slices"} <= set(content):
                _refuse_second(failures, file)
                failures = [_read_failure(one) for one in content["work_list"]]
                found = content["model"]["sha256"]
            elif {"sources", "reading_of_polarity"} <= set(content):
                _refuse_second(reasoning, file)
                reasoning = _read_reasoning(content, sha256)
                found = sha256 if reasoning.sources else next(iter(content["weights"].values()), None)
            elif {"promise", "trials", "weights"} <= set(content):
                _refuse_second(attacks, file)
                attacks = [_read_attack(one) for one in content["trials"]]
                found = content["weights"]
            else:
                raise InputError(
                    f"{file} is no results file that a card knows: expected one of evaluation.run, "
                    "evaluation.reasoning, evaluation.errors or reliability.hostile_text"
                )
        except (KeyError, TypeError, ValueError) as exc:
            if isinstance(exc, InputError):
                raise
            raise InputError(f"{file} is not what the evaluation writes: {exc!r}") from exc
        if found != sha256:
            raise InputError(
                f"{file} is of the weights {str(found)[:12]}, not of these, {sha256[:12]}: evaluate this adapter, or "
                "pass the file as --beside"
            )
    others = [row for file in beside for row in _read_rows(read_object(file), file)]
    return Evidence(_sorted(rows), _sorted(others), failures, reasoning, attacks, (*files, *beside))


def read_published() -> Mapping[str, Any]:
    """Figures that others have published."""
    return read_object(PUBLISHED)


def to_interval(found: Any) -> Interval | None:
    """Three numbers as an interval; None where one is missing."""
    if not isinstance(found, Sequence) or len(found) != 3 or any(number is None for number in found):
        return None
    return Interval(*(float(number) for number in found))


def read_interval(found: Any, name: str) -> Interval:
    """An interval that must be there.

    Raises:
        ValueError: it is not three numbers.
    """
    interval = to_interval(found)
    if interval is None:
        raise ValueError(f"{name} must be [value, low, high]")
    return interval


def _read_rows(content: Mapping[str, Any], file: Path) -> list[Row]:
    averages = {}
    for task, average in content["averages_unseen"].items():
        f1 = to_interval(average["metrics"].get("f1"))
        if f1 is not None:
            averages[task] = (int(average["n"]), f1)
    run = Run(
        file=shown_path(file),
        model=str(content["model"]["name"]),
        sha256=content["model"]["sha256"],
        engine=str(content["model"].get("engine", "none")),
        mode=str(content["mode"]),
        scorer=str(content["scorer"]),
        intervals=str(content["intervals"]),
        versions=content["versions"],
        hardware=str(content["hardware"]),
        seconds=float(content["seconds"]),
        averages=averages,
    )
    return [
        Row(
            run=run,
            benchmark=name,
            task=row["task"],
            n=int(row["n"]),
            available=int(row["available"]),
            positives=int(row["positives"]),
            unjudged=int(row["unjudged"]),
            trained_on=bool(row["trained_on"]),
            license=str(row["license"]),
            revision=row["revision"],
            metrics={metric: to_interval(found) for metric, found in row["metrics"].items()},
        )
        for name, row in content["benchmarks"].items()
    ]


def _read_failure(entry: Mapping[str, Any]) -> Failure:
    rate = entry["rate"]
    return Failure(
        slice=str(entry["slice"]),
        kind=str(entry["kind"]),
        rate=Interval(float(rate["value"]), float(rate["low"]), float(rate["high"])),
        count=int(rate["count"]),
        of=int(rate["of"]),
        elsewhere=float(entry["elsewhere"]),
        advice=str(entry["advice"]),
    )


def _read_reasoning(content: Mapping[str, Any], sha256: str) -> Reasoning:
    """Of this model first, then of what stands beside it; of nothing where none of the runs is this model's."""
    ours = [name for name, weights in content["weights"].items() if weights == sha256]
    names = [*ours, *(name for name in content["sources"] if name not in ours)] if ours else []
    measured = [content["sources"][name]["all"] for name in names]

    def share(found: Mapping[str, Any] | None) -> Interval | None:
        return to_interval([found["value"], found["low"], found["high"]]) if found else None

    kinds = dict.fromkeys(kind for one in measured for kind in one["shares"])
    checks = {kind: [share(one["shares"].get(kind)) for one in measured] for kind in kinds}
    items = [int(one["reasoned"]) for one in measured]
    return Reasoning(names, items, {kind: shares for kind, shares in checks.items() if any(shares)})


def _read_attack(trial: Mapping[str, Any]) -> Attack:
    figures = trial["figures"]
    return Attack(
        name=str(trial["name"]),
        pairs=int(trial["tried"]),
        changed=figures["verdicts changed, normalised"],
        missed=figures["harmful ones missed, normalised"],
        missed_as_they_are=figures["harmful ones missed, as it is"],
    )


def _refuse_second(found: object, file: Path) -> None:
    if found is not None:
        raise InputError(f"{file} is the second file of its kind; pass one")


def _sorted(rows: Sequence[Row]) -> list[Row]:
    order = list(read_published()["items"])
    modes = ("verdict", "think", "auto")

    def key(row: Row) -> tuple[int, str, int]:
        place = order.index(row.benchmark) if row.benchmark in order else len(order)
        return place, row.benchmark, modes.index(row.run.mode) if row.run.mode in modes else len(modes)

    return sorted(rows, key=key)
