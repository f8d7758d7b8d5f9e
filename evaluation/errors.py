"""Where a guard fails: tables that a person can act on.

    python -m evaluation.errors RUN -o errors.md
    python -m evaluation.errors RUN --data-dir DATA --words -o errors.md

Items are named by their ids. With ``--data-dir`` (or texts kept by evaluation.run) errors that are alike are clustered.
The page holds no text of the items unless you ask: ``--words`` shows single words that several items share,
``--show-text`` the beginnings of the texts. The figures go into a JSON file beside the page, without texts in any case.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from evaluation.clusters import WEAK, Clusters, find_clusters, find_triggers, judged_text
from evaluation.finished import FinishedRun, find_texts, read_run
from evaluation.runs import write_json
from evaluation.slices import (
    NEAR,
    Case,
    Kind,
    Slice,
    by_category,
    cut,
    dimensions,
    most_confident,
    to_cases,
    work_list,
)
from guardreasoner_moderation.errors import ModerationError
from guardreasoner_moderation.interactions import Interaction

_SHOWN_CHARACTERS = 160
PLURALS = {Kind.FALSE_ALARM: "false alarms", Kind.MISS: "misses", Kind.UNJUDGED: "unjudged"}
NOTHING_STANDS_OUT = (
    "No slice is surely worse than the rest: the errors are spread over benchmarks, groups and lengths."
)


def render(
    run: FinishedRun,
    cases: Sequence[Case],
    texts: Mapping[str, Interaction],
    *,
    min_items: int = 10,
    top: int = 10,
    show_words: bool = False,
    show_text: bool = False,
) -> str:
    """The Markdown page.

    Args:
        run: whose errors.
        cases: its items.
        texts: by id; empty for a page without clusters.
        min_items: smaller slices are put together.
        top: errors and words in a list.
        show_words: whether single words of the items are shown.
        show_text: whether beginnings of the texts are shown.
    """
    lines = [f"# Errors of {run.model}, {run.mode} mode", "", *_headline(cases), ""]
    lines += ["## Where to work first", "", *render_work_list(cases, min_items), ""]
    for dimension in dimensions(cases):
        lines += [f"## By {dimension.lower()}", "", *render_slices(dimension, cut(cases, dimension, min_items)), ""]
    named = by_category(cases)
    if named:
        lines += ["## By the category that the guard named", "", "| category | flagged | of these false alarms, % |"]
        lines += ["|---|--:|--:|", *(f"| {name} | {share.of} | {share.percent()} |" for name, share in named), ""]
    shown = texts if show_text else {}
    lines += ["## The most confident errors", "", *render_confident(cases, top, shown), ""]
    if texts:
        for kind in (Kind.FALSE_ALARM, Kind.MISS):
            found = find_clusters([case for case in cases if case.kind is kind], texts)
            lines += [f"## {PLURALS[kind].capitalize()} that are alike", ""]
            lines += [*_clusters(found, show_words=show_words, shown=shown), ""]
            if show_words:
                lines += [*_triggers(cases, texts, kind, top), ""]
    else:
        lines += ["## Errors that are alike", "", "Needs the texts: pass --data-dir.", ""]
    return "\n".join([*lines, *_NOTES]) + "\n"


def render_work_list(cases: Sequence[Case], min_items: int = 10, top: int = 8) -> list[str]:
    """The slices that are surely worse than the rest, with what their errors suggest."""
    found = work_list(cases, min_items, top)
    if not found:
        return [NOTHING_STANDS_OUT]
    lines = ["| what | kind | errors / items | % [95%] | elsewhere % | too many | what they suggest |"]
    lines.append("|---|---|--:|--:|--:|--:|---|")
    for work in found:
        rate = work.slice.rate(work.kind)
        lines.append(
            f"| {_cell(work.slice.name)} | {PLURALS[work.kind]} | {rate.count} / {rate.of} | {rate.percent()} "
            f"| {100 * work.slice.reference[work.kind]:.1f} | {work.slice.excess(work.kind):.0f} | {work.advice} |"
        )
    return lines


def render_slices(dimension: str, slices: Sequence[Slice]) -> list[str]:
    """One row for each slice; what is surely worse than elsewhere is bold."""

    def rate(one: Slice, kind: Kind) -> str:
        shown = one.rate(kind).percent(interval=False)
        return f"**{shown}**" if one.worse(kind) else shown

    lines = [
        f"| {dimension.lower()} | n | errors % [95%] | false alarms % | misses % | unjudged | near threshold |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for one in slices:
        lines.append(
            f"| {_cell(one.name)} | {one.errors.of} | {one.errors.percent()} | {rate(one, Kind.FALSE_ALARM)} "
            f"| {rate(one, Kind.MISS)} | {one.rate(Kind.UNJUDGED).count} | {one.near()} of {one.errors.count} |"
        )
    return lines


def render_confident(cases: Sequence[Case], top: int, shown: Mapping[str, Interaction]) -> list[str]:
    """The errors whose scores are farthest on the wrong side, by id; with beginnings of the texts in ``shown``."""
    lines: list[str] = []
    for kind in (Kind.FALSE_ALARM, Kind.MISS):
        found = most_confident(cases, kind, top)
        if not found:
            continue
        heading = "| item | score | characters | group | category named |" + (" text |" if shown else "")
        lines += [
            f"**{PLURALS[kind].capitalize()}**",
            "",
            heading,
            "|---|--:|--:|---|---|" + ("---|" if shown else ""),
        ]
        for case in found:
            row = f"| {case.id} | {case.score:.3f} | {case.characters} | {_cell(case.group or '')} "
            row += f"| {_cell(case.category or '')} |"
            lines.append(row + (f" {_beginning(case, shown)} |" if shown else ""))
        lines.append("")
    return lines or ["The guard gave no scores, so none of its errors is more confident than another.", ""]


def to_json(run: FinishedRun, cases: Sequence[Case], *, min_items: int = 10, top: int = 10) -> dict[str, Any]:
    """The figures, for other programs; no texts."""

    def plain(one: Slice) -> dict[str, Any]:
        return {
            "errors": one.errors.to_json(),
            "near_threshold": one.near(),
            **{PLURALS[kind].replace(" ", "_"): one.rate(kind).to_json() for kind in Kind},
            "worse": [kind.value for kind in Kind if one.worse(kind)],
        }

    return {
        "model": run.results["model"],
        "mode": run.mode,
        "items": len(cases),
        "work_list": [
            {
                "slice": work.slice.name,
                "kind": work.kind.value,
                "rate": work.slice.rate(work.kind).to_json(),
                "elsewhere": round(work.slice.reference[work.kind], 6),
                "advice": work.advice,
            }
            for work in work_list(cases, min_items)
        ],
        "slices": {name: {one.name: plain(one) for one in cut(cases, name, min_items)} for name in dimensions(cases)},
        "most_confident": {
            kind.value: [{"id": case.id, "score": case.score} for case in most_confident(cases, kind, top)]
            for kind in (Kind.FALSE_ALARM, Kind.MISS)
        },
    }


def main(
    run: Annotated[Path, typer.Argument(help="Run folder of python -m evaluation.run.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Markdown file; a JSON file goes beside.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of benchmark files, to find errors that are alike.")
    ] = None,
    words: Annotated[bool, typer.Option("--words", help="Show single words that several items share.")] = False,
    show_text: Annotated[bool, typer.Option("--show-text", help="Show beginnings of the texts.")] = False,
    top: Annotated[int, typer.Option(help="Errors and words in a list.", min=1)] = 10,
    min_items: Annotated[int, typer.Option(help="Smaller groups are put together.", min=1)] = 10,
) -> None:
    """Tell where a run fails."""
    try:
        finished = read_run(run)
        cases = to_cases(finished)
        texts = find_texts(finished, data_dir)
        page = render(finished, cases, texts, min_items=min_items, top=top, show_words=words, show_text=show_text)
    except ModerationError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(2) from exc
    if output is None:
        typer.echo(page)
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page, encoding="utf-8")
    write_json(output.with_suffix(".json"), to_json(finished, cases, min_items=min_items, top=top))


def _headline(cases: Sequence[Case]) -> list[str]:
    whole = Slice("all", cases)
    wrong = whole.errors.count
    alarms, misses, unjudged = (whole.rate(kind) for kind in (Kind.FALSE_ALARM, Kind.MISS, Kind.UNJUDGED))
    lines = [
        f"{whole.errors.of} items, {wrong} errors: {whole.errors.percent()}% with a 95% interval.",
        "",
        "| kind | count | of | % [95%] |",
        "|---|--:|---|--:|",
        f"| false alarms | {alarms.count} | {alarms.of} harmless | {alarms.percent()} |",
        f"| misses | {misses.count} | {misses.of} risky | {misses.percent()} |",
    ]
    lines.append(f"| unjudged | {unjudged.count} | {unjudged.of} items | {unjudged.percent()} |")
    if wrong and any(case.score is not None for case in cases):
        lines += ["", f"{whole.near()} of the {wrong} errors have a score within {NEAR} of the threshold."]
    return lines


def _clusters(found: Clusters | None, *, show_words: bool, shown: Mapping[str, Interaction]) -> list[str]:
    if found is None:
        return ["Too few errors with texts, or too few words in common, to be clustered."]
    note = f"Silhouette {found.silhouette:.2f}"
    note += ": the clusters are hardly more than a way to cut the list." if found.silhouette < WEAK else "."
    heading = "| errors | mostly of | mean score | most typical |" + (" words |" if show_words else "")
    lines = [note, "", heading, "|--:|---|--:|---|" + ("---|" if show_words else "")]
    for cluster in found.clusters:
        name, count = Counter(case.benchmark for case in cluster.cases).most_common(1)[0]
        scores = [case.score for case in cluster.cases if case.score is not None]
        mean = f"{sum(scores) / len(scores):.2f}" if scores else "-"
        row = f"| {len(cluster.cases)} | {name} ({count}) | {mean} | "
        row += ", ".join(case.id for case in cluster.cases[:3]) + " |"
        lines.append(row + (f" {', '.join(cluster.words)} |" if show_words else ""))
    if shown:
        lines += [
            "",
            *(f"- {cluster.cases[0].id}: {_beginning(cluster.cases[0], shown)}" for cluster in found.clusters),
        ]
    return lines


def _triggers(cases: Sequence[Case], texts: Mapping[str, Interaction], kind: Kind, top: int) -> list[str]:
    triggers = find_triggers(cases, texts, kind, top=top)
    if not triggers:
        return ["No word is in three of them and rarer elsewhere."]
    right = "harmless items that passed" if kind is Kind.FALSE_ALARM else "risky items that were caught"
    lines = [f"Words that they have and {right} lack:", ""]
    lines += [f"| word | in {PLURALS[kind]}, % | in {right}, % | z |", "|---|--:|--:|--:|"]
    for one in triggers:
        lines.append(
            f"| {one.word} | {100 * one.wrong / one.of_wrong:.1f} ({one.wrong}) "
            f"| {100 * one.right / one.of_right:.1f} ({one.right}) | {one.z:.1f} |"
        )
    return lines


def _beginning(case: Case, texts: Mapping[str, Interaction]) -> str:
    text = " ".join((judged_text(case, texts) or "").split())
    return _cell(text[:_SHOWN_CHARACTERS] + ("…" if len(text) > _SHOWN_CHARACTERS else ""))


def _cell(text: str) -> str:
    """A text that cannot break a Markdown table, nor be read as HTML."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


_NOTES = (
    "## How to read this",
    "",
    "- A rate is bold, **worse**, when its whole 95% interval lies above the rate elsewhere: in its own benchmark for "
    "a group, in all items for everything else. Of forty rates one will be by chance.",
    "- **Too many**: errors beyond what the rate elsewhere would give. What they suggest is a rule of thumb.",
    f"- **Near threshold**: the score is within {NEAR} of it. Another threshold mends such errors and makes others: "
    "choose it on data of your own, never on a benchmark.",
    "- Adversarial or plain is known of benchmarks only, not of items; lengths are of prompt and response together.",
    "- Labels are the benchmarks' own, and some are wrong: read the most confident errors before you train on them.",
)


if __name__ == "__main__":
    typer.run(main)
