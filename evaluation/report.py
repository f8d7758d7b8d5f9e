"""One page that tells how good a guard is: tables with intervals, figures, errors, reasoning.

    python -m evaluation.report RUN ... -o DIR [--data-dir DATA]

DIR gets ``report.html`` (one file that needs nothing else), ``report.md`` with the same content, and ``figures/*.png``.
Several runs are put side by side: modes of one model, or models. With ``--data-dir`` the reasoning of think runs is
checked against the items' texts too. The report holds no text of the items: these are named by their ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from evaluation.errors import NOTHING_STANDS_OUT, PLURALS
from evaluation.figures import Figure, drawing
from evaluation.finished import FinishedRun, label_runs, read_run
from evaluation.latency import Cost, measure_costs
from evaluation.published import Beside, put_beside, read_published
from evaluation.quality import MEASURES, Quality
from evaluation.reasoning import compare_sources
from evaluation.report_rows import (
    AVERAGE_NAMES,
    confusion_rows,
    cost_rows,
    find_findings,
    published_rows,
    results_rows,
    run_facts,
    summary_rows,
)
from evaluation.result_plots import draw_groups, draw_latency, draw_published
from evaluation.review import environment
from evaluation.score_plots import draw_calibration, draw_histograms, draw_precision_recall, draw_roc
from evaluation.slices import Case, Kind, Slice, Work, cut, dimensions, most_confident, to_cases, work_list
from evaluation.traces import read_run_traces
from guardreasoner_moderation.errors import InputError, ModerationError
from guardreasoner_moderation.results import Task

CONFIDENT = 8
"""Errors of each kind that the report names."""


@dataclass(frozen=True, slots=True)
class Errors:
    """What the report tells of a run's errors."""

    cases: Sequence[Case]
    work: Sequence[Work]
    tables: Mapping[str, Sequence[Slice]]
    confident: Mapping[Kind, Sequence[Case]]


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Reasoning quality of the runs that have reasoning, on the items that they share where there are enough."""

    names: Sequence[str]
    qualities: Sequence[Quality]
    shared: bool


@dataclass(frozen=True, slots=True)
class Report:
    """All that is shown.

    Attributes:
        runs, names: what is reported, and how each is called.
        besides: of each run, its benchmarks among the published models.
        costs: of each run, on the items that all of them judged; None for a single run.
        errors: of each run.
        reasoning: None when no run has any.
        figures: by name.
    """

    runs: Sequence[FinishedRun]
    names: Sequence[str]
    besides: Sequence[Sequence[Beside]]
    costs: Sequence[Cost] | None
    errors: Sequence[Errors]
    reasoning: Reasoning | None
    figures: dict[str, Figure]


def build_report(
    runs: Sequence[FinishedRun],
    data_dir: Path | None = None,
    *,
    names: Sequence[str] | None = None,
    min_items: int = 10,
) -> Report:
    """Measures and draws everything.

    Args:
        runs: in the order in which they are shown.
        data_dir: folder of benchmark files, to measure whether reasoning is grounded.
        names: what they are called; default: by model and mode.
        min_items: smaller groups are put together.

    Raises:
        MissingDependencyError: matplotlib or Jinja is not installed.
    """
    names = names or label_runs(runs)
    besides = [put_beside(run) for run in runs]
    costs = measure_costs(runs)
    errors = [_find_errors(run, min_items) for run in runs]
    drawn: list[Figure | None] = []
    with drawing():
        drawn += [draw_published(besides, names), draw_precision_recall(runs, names), draw_roc(runs, names)]
        drawn += [draw_calibration(runs, names), draw_latency(costs, names) if costs else None]
        for number, (run, name) in enumerate(zip(runs, names, strict=True), 1):
            drawn.append(draw_histograms(run, name, f"scores-{number}"))
            drawn.append(draw_groups(errors[number - 1].tables.get("Group", ()), name, f"groups-{number}"))
    figures = {figure.name: figure for figure in drawn if figure is not None}
    return Report(runs, names, besides, costs, errors, _find_reasoning(runs, names, data_dir), figures)


def render(report: Report, *, markdown: bool = False) -> str:
    """The page as HTML or Markdown."""
    template = environment().get_template("report.md.jinja" if markdown else "report.html.jinja")
    published = read_published()
    return str(
        template.render(
            report=report,
            findings=find_findings(report.runs, report.names, report.besides, report.costs),
            summary=summary_rows(report.runs, report.names),
            averages={task: name for task, name in AVERAGE_NAMES.items() if _averaged(report.runs, task)},
            facts=_joined([run_facts(run) for run in report.runs]),
            results=[results_rows(run) for run in report.runs],
            published=published_rows(report.besides, report.names),
            published_source=published["source"],
            confusions=[confusion_rows(run) for run in report.runs],
            costs=cost_rows(report.costs, report.names) if report.costs else [],
            measures=MEASURES,
            Kind=Kind,
            plurals=PLURALS,
            nothing_stands_out=NOTHING_STANDS_OUT,
        )
    )


def write_report(report: Report, folder: Path) -> list[Path]:
    """Writes the files and returns their paths, the HTML file first."""
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    pages = [folder / "report.html", folder / "report.md"]
    for page in pages:
        page.write_text(render(report, markdown=page.suffix == ".md"), encoding="utf-8")
    for figure in report.figures.values():
        pages.append(folder / "figures" / f"{figure.name}.png")
        pages[-1].write_bytes(figure.png)
    return pages


def main(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of python -m evaluation.run.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the report.")],
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of benchmark files, for the checks of reasoning.")
    ] = None,
    names: Annotated[
        str, typer.Option(help="What to call the runs, with commas between; default: model and mode.")
    ] = "",
    min_items: Annotated[int, typer.Option(help="Smaller groups are put together.", min=1)] = 10,
) -> None:
    """Write a report on one or several runs."""
    try:
        finished = [read_run(run) for run in runs]
        called = [name.strip() for name in names.split(",")] if names else label_runs(finished)
        if len(set(called)) != len(finished):
            raise InputError(f"--names must hold a name for each of the {len(finished)} runs, all different: {names!r}")
        report = build_report(finished, data_dir, names=called, min_items=min_items)
        pages = write_report(report, output)
    except ModerationError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(2) from exc
    for run in report.runs:
        if run.unfinished:
            typer.echo(f"note: {run.path} has unfinished benchmarks, left out: {', '.join(run.unfinished)}", err=True)
    typer.echo(f"{pages[0]} ({pages[0].stat().st_size / 1e6:.1f} MB), report.md and {len(report.figures)} figures")


def _averaged(runs: Sequence[FinishedRun], task: Task) -> bool:
    return any(task.value in run.results["averages_unseen"] for run in runs)


def _joined(facts: Sequence[dict[str, str]]) -> dict[str, list[str]]:
    """The facts of all runs by their names; one value where all runs have the same."""
    joined = {
        name: [one.get(name, "") for one in facts] for name in dict.fromkeys(name for one in facts for name in one)
    }
    return {name: values[:1] if len(set(values)) == 1 else values for name, values in joined.items()}


def _find_errors(run: FinishedRun, min_items: int) -> Errors:
    cases = to_cases(run)
    tables = {name: cut(cases, name, min_items) for name in dimensions(cases)}
    return Errors(
        cases,
        work_list(cases, min_items),
        tables,
        {kind: most_confident(cases, kind, CONFIDENT) for kind in (Kind.FALSE_ALARM, Kind.MISS)},
    )


def _find_reasoning(runs: Sequence[FinishedRun], names: Sequence[str], data_dir: Path | None) -> Reasoning | None:
    sources = [read_run_traces(name, run, data_dir) for name, run in zip(names, runs, strict=True) if _reasons(run)]
    if not sources:
        return None
    compared = compare_sources(sources)
    shared = compared.shared is not None
    return Reasoning([source.name for source in compared.sources], compared.qualities(shared=shared), shared)


def _reasons(run: FinishedRun) -> bool:
    def steps(result: Any) -> bool:
        return any((result.get(task) or {}).get("reasoning") for task in ("request", "completion", "response"))

    return any(steps(one.result) for part in run.parts.values() for one in part.predictions)


if __name__ == "__main__":
    typer.run(main)
