"""How good is the reasoning? Checks of every trace, side by side for several runs and the authors' own outputs.

    python -m evaluation.reasoning RUN ... --data-dir DATA -o reasoning.md
    python -m evaluation.reasoning RUN --data-dir DATA --generations-dir DATA -o reasoning.md
    python -m evaluation.reasoning RUN --data-dir DATA -o reasoning.md --review 50
    python -m evaluation.reasoning RUN --data-dir DATA -o reasoning.md --judge-url http://localhost:8000/v1 \
        --judge-model NAME --judge-items 100

Beside the Markdown file come the figures (``.json``) and the checks of every item (``.items.jsonl``); none of the three
holds a text. ``--review`` adds an HTML page for a person to rate drawn items on, ``--judge-url`` ratings by a model
behind any OpenAI-compatible endpoint, on the same items with the same rubric: these two pass the texts on. DATA is the
folder of benchmark files, as for evaluation.run; without it, and without kept texts, grounding is not measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from evaluation.finished import label_runs, read_run
from evaluation.judge_model import JudgeModel, rate_with_model
from evaluation.polarity import MEASURED_READING
from evaluation.quality import COMPARED_WITH, MEASURES, Quality, check_source, follows_by_task, measure_quality
from evaluation.ratings import draw_for_rating, write_key
from evaluation.review import render_review
from evaluation.rubric import RUBRIC, read_rubric
from evaluation.runs import write_json
from evaluation.shares import Share
from evaluation.trace_checks import Budget, Checked, Follows
from evaluation.traces import Source, read_all_generations, read_run_traces, shared_items
from guardreasoner_moderation.errors import InputError, ModerationError
from guardreasoner_moderation.results import Task

ENOUGH_SHARED = 20
"""Sources are compared on the items they share when there are at least so many."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Checked sources.

    Attributes:
        sources: with all their items.
        checked: for each source, the checks by item.
        shared: the same sources with the items that all of them reason about; None when these are too few.
    """

    sources: Sequence[Source]
    checked: Sequence[Mapping[str, Checked]]
    shared: Sequence[Source] | None
    budget: Budget

    def qualities(self, *, shared: bool) -> list[Quality]:
        """One for each source."""
        sources = self.shared if shared and self.shared is not None else self.sources
        return [measure_quality(one.traces, checked) for one, checked in zip(sources, self.checked, strict=True)]


def compare_sources(sources: Sequence[Source], budget: Budget | None = None) -> Compared:
    """Checks several sources.

    Raises:
        InputError: none of them holds any reasoning.
    """
    if not any(trace.reasoned for source in sources for trace in source.traces):
        names = ", ".join(source.name for source in sources)
        raise InputError(f"{names}: there is no reasoning; run python -m evaluation.run with --mode think")
    sources = [source for source in sources if any(trace.reasoned for trace in source.traces)]
    budget = budget or Budget()
    checked = [check_source(source, budget=budget) for source in sources]
    shared = shared_items(sources) if len(sources) > 1 else []
    return Compared(sources, checked, shared if shared and len(shared[0].traces) >= ENOUGH_SHARED else None, budget)


def render(compared: Compared) -> str:
    """The Markdown page; shares in percent with 95% Wilson intervals."""
    lines = ["# Reasoning quality", "", _INTRODUCTION, ""]
    names = [source.name for source in compared.sources]
    if compared.shared is not None:
        lines += [f"## Side by side, on the {len(compared.shared[0].traces)} items that all reason about", ""]
        lines += [*render_side_by_side(names, compared.qualities(shared=True)), ""]
    elif len(names) > 1:
        lines += [f"The sources share fewer than {ENOUGH_SHARED} items: below, each is measured on its own.", ""]
    lines += ["## Each on its own items", "", *render_side_by_side(names, compared.qualities(shared=False)), ""]
    lines += ["## Verdicts that follow, by task", "", *_by_task(compared), "", "## By benchmark", ""]
    for source, checked in zip(compared.sources, compared.checked, strict=True):
        lines += [f"### {source.name}", "", *_by_benchmark(source, checked), ""]
    return "\n".join([*lines, "## How to read this", "", *_notes(compared.budget)]) + "\n"


def render_side_by_side(names: Sequence[str], qualities: Sequence[Quality]) -> list[str]:
    """A table with a column for each source."""
    rows = [("items with reasoning / items", [f"{one.reasoned} / {one.items}" for one in qualities])]
    readable = [Share(one.shares["follows"].of, one.reasoned).percent(interval=False) for one in qualities]
    rows.append(("last steps could be read", readable))
    for measure in MEASURES:
        shares = [one.shares[measure.name] for one in qualities]
        if any(share.of for share in shares):
            rows.append((measure.title, [share.percent() for share in shares]))
    for follows, title in (
        (Follows.AGREES, "right where it follows"),
        (Follows.CONTRADICTS, "right where it does not"),
    ):
        rows.append((title, [one.right_when[follows].percent() for one in qualities]))
    rows.append(("risky verdicts, of those that do not follow", [one.against.percent() for one in qualities]))
    rows.append(("words, median of the longest task", [f"{one.words:.0f}" for one in qualities]))
    rows.append(("sentences, median of the longest task", [f"{one.sentences:.0f}" for one in qualities]))
    if not all(one.overlap != one.overlap for one in qualities):  # NaN without texts
        rows.append(("content words that the item has, mean", [f"{100 * one.overlap:.0f}" for one in qualities]))
    rows.append(("repeated runs of four words, mean", [f"{100 * one.repeated:.1f}" for one in qualities]))
    table = [f"| {' | '.join(['', *names])} |", f"|---|{'--:|' * len(names)}"]
    return table + [f"| {title} | {' | '.join(cells)} |" for title, cells in rows]


def to_json(compared: Compared) -> dict[str, Any]:
    """The figures, for other programs."""
    own, shared = compared.qualities(shared=False), compared.qualities(shared=True)
    return {
        "budget": {"sentences": compared.budget.sentences, "words": compared.budget.words},
        "reading_of_polarity": read_measured(),
        "shared_items": None if compared.shared is None else len(compared.shared[0].traces),
        "sources": {
            source.name: {
                "all": mine.to_json(),
                "shared": None if compared.shared is None else common.to_json(),
                "follows_by_task": {
                    task.value: share.to_json() for task, share in follows_by_task(source.traces, checked).items()
                },
                "benchmarks": {name: one.to_json() for name, one in _qualities_by_benchmark(source, checked).items()},
            }
            for source, checked, mine, common in zip(compared.sources, compared.checked, own, shared, strict=True)
        },
    }


def read_measured() -> Any:
    """How well polarity is read, as ``python -m evaluation.polarity`` has measured it."""
    return json.loads(MEASURED_READING.read_text(encoding="utf-8"))


def main(
    runs: Annotated[list[Path] | None, typer.Argument(help="Run folders of python -m evaluation.run.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Markdown file; more files go beside.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of benchmark files, for the items' texts.")] = None,
    generations_dir: Annotated[Path | None, typer.Option(help="Folder of the authors' outputs, 1B and 3B.")] = None,
    sentences: Annotated[int, typer.Option(help="Budget of each task's reasoning.", min=1)] = 2,
    words: Annotated[int, typer.Option(help="Budget of each task's reasoning.", min=1)] = 60,
    review: Annotated[int, typer.Option(help="Write a page for a person to rate so many items on.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Draws the items that are rated.")] = 0,
    rubric: Annotated[Path, typer.Option(help="What is rated.")] = RUBRIC,
    judge_url: Annotated[str | None, typer.Option(help="OpenAI-compatible endpoint, as in http://host/v1.")] = None,
    judge_model: Annotated[str, typer.Option(help="Name of the judge model.")] = "",
    judge_key_env: Annotated[str, typer.Option(help="Environment variable of the endpoint's key.")] = "OPENAI_API_KEY",
    judge_items: Annotated[int, typer.Option(help="How many items the judge rates.", min=1)] = 50,
) -> None:
    """Measure the reasoning of runs and of the authors' outputs."""
    try:
        if not runs and generations_dir is None:
            raise InputError("pass a run folder, or --generations-dir, or both")
        if output is None and (review or judge_url):
            raise InputError("--review and --judge-url write files beside the report: pass -o")
        finished = [read_run(path) for path in runs or ()]
        named = dict(zip(label_runs(finished), finished, strict=True))
        sources = [read_run_traces(name, run, data_dir) for name, run in named.items()]
        sources += read_all_generations(generations_dir) if generations_dir else []
        compared = compare_sources(sources, Budget(sentences, words))
        page = render(compared)
        if output is None:
            typer.echo(page)
            return
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(page, encoding="utf-8")
        weights = {name: run.results["model"]["sha256"] for name, run in named.items()}
        write_json(output.with_suffix(".json"), {"weights": weights, **to_json(compared)})
        _write_items(output.with_suffix(".items.jsonl"), compared)
        if review:
            drawn = draw_for_rating(compared.sources, review, seed)
            output.with_suffix(".review.html").write_text(render_review(drawn, read_rubric(rubric)), encoding="utf-8")
            write_key(output.with_suffix(".review-key.json"), drawn)
            typer.echo(f"{len(drawn)} items to rate in {output.with_suffix('.review.html')}, which holds their texts")
        if judge_url:
            drawn = draw_for_rating(compared.sources, judge_items, seed)
            judge = JudgeModel(judge_url, judge_model, judge_key_env)
            file = output.with_suffix(".judge.json")
            sheet = rate_with_model(judge, drawn, read_rubric(rubric), file)
            write_key(output.with_suffix(".judge-key.json"), drawn)
            typer.echo(f"{len(sheet.ratings)} of {len(drawn)} items rated by {judge_model} in {file}")
    except ModerationError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(2) from exc


def _write_items(file: Path, compared: Compared) -> None:
    with file.open("w", encoding="utf-8") as lines:
        for source, checked in zip(compared.sources, compared.checked, strict=True):
            lines.writelines(
                json.dumps({"source": source.name, **one.to_json()}, ensure_ascii=False) + "\n"
                for one in checked.values()
            )


def _qualities_by_benchmark(source: Source, checked: Mapping[str, Checked]) -> dict[str, Quality]:
    names = dict.fromkeys(trace.benchmark for trace in source.traces)
    return {
        name: measure_quality([trace for trace in source.traces if trace.benchmark == name], checked) for name in names
    }


def _by_benchmark(source: Source, checked: Mapping[str, Checked]) -> list[str]:
    shown = [measure for measure in MEASURES if measure.name in ("follows", "grounded", "complete", "no_loop")]
    lines = [f"| benchmark | n | {' | '.join(measure.title for measure in shown)} |", f"|---|--:|{'--:|' * len(shown)}"]
    for name, quality in _qualities_by_benchmark(source, checked).items():
        cells = [quality.shares[measure.name].percent() for measure in shown]
        lines.append(f"| {name} | {quality.reasoned} | {' | '.join(cells)} |")
    return lines


def _by_task(compared: Compared) -> list[str]:
    lines = ["| | request | completion | response |", "|---|--:|--:|--:|"]
    for source, checked in zip(compared.sources, compared.checked, strict=True):
        found = follows_by_task(source.traces, checked)
        cells = [found[task].percent() if task in found else "-" for task in Task]
        lines.append(f"| {source.name} | {' | '.join(cells)} |")
    return lines


def _notes(budget: Budget) -> list[str]:
    notes = [f"- **{measure.title}**: {measure.meaning}." for measure in MEASURES]
    notes.append(f"- The budget is {budget.sentences} sentences and {budget.words} words for each task.")
    measured = read_measured()
    reading = "; ".join(
        f"{task}: {100 * row['read']['value']:.0f}% of {row['n']} read, "
        f"{100 * row['right']['value']:.0f}% of these rightly"
        for task, row in measured["tasks"].items()
    )
    notes.append(
        "- Which label the last steps speak for is told by cue words. Measured on held-out reasoning written for known "
        f"labels ({reading}). So a few percent of verdicts that are said not to follow are errors of the reading: "
        "compare sources, and read the items (`.items.jsonl` names them), before you believe a small difference."
    )
    notes.append(
        f"- Grounding compares with {COMPARED_WITH} other items of the same benchmark; reasoning that could be about "
        "any of them would pass in one of ten cases."
    )
    return notes


_INTRODUCTION = """Checks of what models wrote before they answered. Shares in percent of the items with reasoning, with
95% intervals; higher is better in all of them. Length and repetition come last. No check needs a model, and none can
tell whether an argument is a good one: for that, rate a sample (`--review`, `--judge-url`).

This page is written by `python -m evaluation.reasoning`."""


if __name__ == "__main__":
    typer.run(main)
