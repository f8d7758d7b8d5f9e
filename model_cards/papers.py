"""Fills the papers' tables into pages: the claims, the ablations, and the configurations beside those of a run.

    python -m model_cards.papers model_cards/README.md

Between the lines ``<!-- claims -->`` and ``<!-- end of claims -->`` of a Markdown page stands the claims table, between
``<!-- ablations -->`` and ``<!-- end of ablations -->`` what the ablations found,
between ``<!-- configurations: RUN -->`` and ``<!-- end of configurations -->`` the comparison with a run (a path from
the root of the checkout). :mod:`model_cards.pages` fills the committed ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from guardreasoner_moderation.errors import ModerationError
from model_cards.ablations import render_ablations
from model_cards.claims import check_claims, render_claims
from model_cards.configurations import render_configurations
from model_cards.reading import ROOT
from model_cards.record import read_record
from texts.marked import fill, has_marks

KINDS = ("claims", "ablations", "configurations")


def main(pages: Annotated[list[Path], typer.Argument(help="Markdown pages with such sections.")]) -> None:
    """Fill the papers' tables into pages."""
    try:
        for page in pages:
            page.write_text(rendered(page.read_text(encoding="utf-8")), encoding="utf-8")
    except ModerationError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(2) from exc


def has_sections(text: str) -> bool:
    """Whether a page has such a section."""
    return any(has_marks(text, kind) for kind in KINDS)


def rendered(text: str) -> str:
    """A page with its sections rendered anew."""
    text = fill(text, "ablations", lambda _: render_ablations())
    text = fill(text, "claims", lambda _: render_claims(check_claims()))
    return fill(text, "configurations", lambda run: render_configurations(read_record(ROOT / run)))


if __name__ == "__main__":
    typer.run(main)
