"""Renders all committed pages that this package writes anew, from the committed files.

    python -m model_cards.pages

These are the card of each adapter that the package carries, with its plots, by the command in the card's last line, and
with the zero-shot baseline and hostile texts where those were measured; the pages with the papers' tables, and the plot
of the ablations; and the figures of the demo. A test renders them and compares.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import typer

from evaluation.finished import read_object
from evaluation.tables import ZERO_SHOT
from guardreasoner_moderation.errors import ModerationError
from guardreasoner_moderation.models import weights_sha256
from model_cards import demo_figures, papers
from model_cards.ablations import RESULTS as ABLATIONS
from model_cards.card import card_files, collect
from model_cards.plots import draw_ablations
from model_cards.reading import ROOT, shown_path
from model_cards.request import Request, last_request

CARDS = sorted((ROOT / "guardreasoner_moderation" / "adapters").glob("*/README.md"))
HOSTILE_TEXT = ROOT / "reliability" / "results" / "hostile_text.json"
WITH_TABLES = [
    page
    for pattern in ("*.md", "docs/*.md", "model_cards/*.md")
    for page in sorted(ROOT.glob(pattern))
    if papers.has_sections(page.read_text(encoding="utf-8"))
]


def main() -> None:
    """Render all committed pages."""
    try:
        pages = render_pages()
    except ModerationError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(2) from exc
    for page, content in pages.items():
        changed = not page.exists() or page.read_bytes() != content
        page.parent.mkdir(exist_ok=True)
        page.write_bytes(content)
        typer.echo(f"{'changed' if changed else 'same':<9}{shown_path(page)}")


def render_pages() -> dict[Path, bytes]:
    """The pages' contents by their paths.

    Raises:
        ModerationError: a card's run or results are not right, such as results of other weights than the adapter's.
    """
    pages: dict[Path, bytes] = {}
    for card in CARDS:
        pages |= card_files(collect(request_of(card)), card)
    for page in WITH_TABLES:
        pages[page] = papers.rendered(page.read_text(encoding="utf-8")).encode()
    if ABLATIONS.exists():
        plot = draw_ablations(read_object(ABLATIONS))
        pages[ROOT / "docs" / "images" / plot.name] = plot.png
    return pages | {demo_figures.TARGET: demo_figures.render_figures().encode()}


def request_of(card: Path) -> Request:
    """What a committed card is asked for: what it was last, the zero-shot baseline, and hostile texts to it."""
    request = last_request(card.parent)
    if ZERO_SHOT.exists() and ZERO_SHOT not in request.beside:
        request = replace(request, beside=(*request.beside, ZERO_SHOT))
    results = [file for file in request.results if file.resolve() != HOSTILE_TEXT]
    if HOSTILE_TEXT.exists() and read_object(HOSTILE_TEXT).get("weights") == weights_sha256(card.parent):
        results.append(HOSTILE_TEXT)
    return replace(request, results=tuple(results))


if __name__ == "__main__":
    typer.run(main)
