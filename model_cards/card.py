"""Renders the card of a finished run, from its record and results files only.

    python -m model_cards.card RUN --results FILE... -o README.md
    python -m model_cards.card RUN --results verdict.json think.json reasoning.json errors.json \
        --beside zero-shot.json --repo-id owner/name --version 0.1.0 -o README.md

RUN is a run folder (``model_cards/record.py`` tells what lies in it), FILE what evaluation.run, evaluation.reasoning
and evaluation.errors wrote. The plots go into the folder ``figures`` beside the card. A figure that is in none of these
files is printed as not measured. The last line of a card is the command that renders it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guardreasoner_moderation.errors import MissingDependencyError, ModerationError
from guardreasoner_moderation.prompts import PromptFormat
from model_cards.claims import check_claims, render_claims
from model_cards.configurations import render_configurations
from model_cards.metadata import card_data
from model_cards.plots import Plot, draw_plots
from model_cards.reading import NOT_MEASURED, NOT_RECORDED
from model_cards.record import Licence, find_licence, read_record
from model_cards.request import Request
from model_cards.results import read_evidence, read_published
from model_cards.sections import (
    Cells,
    attack_rows,
    calibration_measured,
    calibration_rows,
    cell,
    configuration_rows,
    cost_rows,
    data_note,
    data_rows,
    failure_rows,
    gate,
    headlines,
    limitations,
    look_rows,
    over_refusal_rows,
    published_table,
    reasoning_table,
    result_rows,
    summarise,
)
from model_cards.usage import Usage, describe_usage, prompt_note

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True, slots=True)
class Card:
    """The arguments of the template; tables are rows of cells.

    Attributes:
        name, base, sha256, licence: of the model.
        metadata: YAML for the Hub.
        summary, headlines, gate: the first sentences.
        usage, chat, prompt_note, categories: how it is asked.
        data, data_note, configuration, looks: how it was trained.
        results, any_trained_on, notes: how good it is.
        published_source, published_headings, published: figures of others, beside ours.
        over_refusal, calibration, calibration_measured, reasoning_headings, reasoning: parts of how good it is.
        attacks: what disguises do to its verdicts.
        limitations, failures: where it is not; ``failures`` is None where nobody looked.
        claims, configurations: the papers beside ours, in Markdown.
        cost: time and hardware.
        plots: by the name of the file.
        origin: the command that renders the card again.
    """

    name: str
    base: str
    sha256: str
    licence: Licence
    metadata: str
    summary: str
    headlines: Sequence[str]
    gate: str
    usage: Usage
    chat: bool
    prompt_note: str
    categories: Sequence[str]
    data: Sequence[Cells]
    data_note: str
    configuration: Sequence[Cells]
    looks: Sequence[Cells]
    results: Sequence[Cells]
    any_trained_on: bool
    notes: Sequence[str]
    published_source: str
    published_headings: Sequence[str]
    published: Sequence[Cells]
    over_refusal: Sequence[Cells]
    calibration: Sequence[Cells]
    calibration_measured: Sequence[Cells]
    reasoning_headings: Sequence[str]
    reasoning: Sequence[Cells]
    attacks: Sequence[Cells]
    limitations: Sequence[str]
    failures: Sequence[Cells] | None
    claims: str
    configurations: str
    cost: Sequence[Cells]
    plots: Mapping[str, Plot]
    origin: str


def collect(request: Request) -> Card:
    """Reads everything that a card shows.

    Raises:
        ModerationError: the run, a results file or the licence is not right.
    """
    record = read_record(request.run, request.decision)
    evidence = read_evidence(request.results, record.sha256, request.beside)
    licence = find_licence(record.base, request.licence)
    name = request.name or (request.repo_id or record.adapter.resolve().name).split("/")[-1]
    spec = record.spec
    chat = spec.chat and spec.prompt_format is PromptFormat.GUARDREASONER
    revision = f"v{request.version}" if request.version else None
    published_headings, published = published_table(evidence)
    reasoning_headings, reasoning = reasoning_table(evidence)
    return Card(
        name=name,
        base=record.base,
        sha256=record.sha256,
        licence=licence,
        metadata=card_data(record, evidence.rows, licence, name),
        summary=summarise(record),
        headlines=headlines(record, evidence),
        gate=gate(record, request.override),
        usage=describe_usage(record, request.repo_id, revision),
        chat=chat,
        prompt_note=prompt_note(spec),
        categories=spec.categories,
        data=data_rows(record),
        data_note=data_note(record),
        configuration=configuration_rows(record),
        looks=look_rows(record),
        results=result_rows(evidence),
        any_trained_on=any(row.trained_on for row in (*evidence.rows, *evidence.beside)),
        notes=[run.note for run in evidence.runs],
        published_source=str(read_published()["source"]),
        published_headings=published_headings,
        published=published,
        over_refusal=over_refusal_rows(evidence),
        calibration=calibration_rows(record),
        calibration_measured=calibration_measured(evidence),
        reasoning_headings=reasoning_headings,
        reasoning=reasoning,
        attacks=attack_rows(evidence),
        limitations=limitations(record, evidence),
        failures=failure_rows(evidence),
        claims=render_claims(check_claims()),
        configurations=render_configurations(record),
        cost=cost_rows(record, evidence),
        plots={plot.name: plot for plot in draw_plots(record, evidence)},
        origin=request.command,
    )


def render(card: Card) -> str:
    """The card as Markdown."""
    template = environment().get_template("card.md.jinja")
    text = template.render(card=card, not_measured=NOT_MEASURED, not_recorded=NOT_RECORDED)
    return f"{text.rstrip()}\n"


def card_files(card: Card, file: Path) -> dict[Path, bytes]:
    """The contents of the card and, beside it, of its plots by their paths, the card first."""
    figures = {file.parent / "figures" / plot.name: plot.png for plot in card.plots.values()}
    return {file: render(card).encode(), **figures}


def write_card(card: Card, file: Path) -> list[Path]:
    """Writes the card, and its plots beside it; returns the paths, the card first."""
    files = card_files(card, file)
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return list(files)


def environment() -> Environment:
    """Jinja for Markdown: nothing is escaped as in HTML, cells escape themselves, and what is undefined is an error.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as exc:
        raise MissingDependencyError("rendering a card", "release") from exc
    environment = Environment(  # noqa: S701 - Markdown
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["cell"] = cell
    return environment


def main(
    run: Annotated[Path, typer.Argument(help="Run folder: run.json and an adapter.")],
    more: Annotated[list[Path] | None, typer.Argument(metavar="[FILE]...", help="More files of --results.")] = None,
    results: Annotated[list[Path] | None, typer.Option(help="Results files of this model.")] = None,
    beside: Annotated[list[Path] | None, typer.Option(help="results.json of another model, measured here.")] = None,
    decision: Annotated[
        Path | None, typer.Option(help="What evaluation.decide wrote; default: RUN/decision.json.")
    ] = None,
    repo_id: Annotated[str | None, typer.Option(help="Where the model is published.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the model; default: the repository's.")] = None,
    version: Annotated[str | None, typer.Option(help="Of the release.")] = None,
    licence: Annotated[str | None, typer.Option("--license", help="Where the base's is not known.")] = None,
    override: Annotated[str | None, typer.Option(help="Why it is published against the gate.")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The card.")] = Path("README.md"),
) -> None:
    """Render the card of a run."""
    files = (*(results or ()), *(more or ()))
    try:
        request = Request(run, files, tuple(beside or ()), decision, repo_id, name, version, licence, override)
        card = collect(request)
        paths = write_card(card, output)
    except ModerationError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(2) from exc
    for path in paths:
        typer.echo(str(path))


if __name__ == "__main__":
    typer.run(main)
