"""Fills the papers' tables into pages: the claims, the ablations, and the configurations beside those of a run.

    python -m model_cards.papers model_cards/README.md

Between the lines ``<!-- claims -->`` and ``<!-- end of claims -->`` of a Markdown page stands the claims table, between
``<!-- ablations -->`` and ``<!-- end of ablations -->`` what the ablations found,
between ``<!-- configurations: RUN -->`` and ``<!-- end of configurations -->`` the comparison with a run (a path from
the root of the checkout). :mod:`model_cards.pages` fills the committed ones.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from guardreasoner_moderation.errors import ModerationError
from model_cards.ablations import render_ablations
from model_cards.claims import check_claims, render_claims
from model_cards.configurations import render_configurations
from model_cards.reading import ROOT
from model_cards.record import read_record

_CLAIMS = re.compile(r"(<!-- claims -->\n).*?(\n?<!-- end of claims -->)", re.DOTALL)
_ABLATIONS = re.compile(r"(<!-- ablations -->\n).*?(\n?<!-- end of ablations -->)", re.DOTALL)
_CONFIGURATIONS = re.compile(
    r"(<!-- configurations: (?P<run>\S+) -->\n).*?(\n?<!-- end of configurations -->)", re.DOTALL
)


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
    return any(pattern.search(text) for pattern in (_CLAIMS, _ABLATIONS, _CONFIGURATIONS))


def rendered(text: str) -> str:
    """A page with its sections rendered anew."""

    def configurations(match: re.Match[str]) -> str:
        return f"{match[1]}{render_configurations(read_record(ROOT / match['run']))}\n{match[3].lstrip()}"

    text = _ABLATIONS.sub(lambda match: f"{match[1]}{render_ablations()}\n{match[2].lstrip()}", text)
    text = _CLAIMS.sub(lambda match: f"{match[1]}{render_claims(check_claims())}\n{match[2].lstrip()}", text)
    return _CONFIGURATIONS.sub(configurations, text)


if __name__ == "__main__":
    typer.run(main)
