from __future__ import annotations

from pathlib import Path

import pytest
from example_cards import ROOT

from model_cards.papers import rendered

PAGES = [
    page
    for place in ("model_cards", "docs", ".")
    for page in sorted((ROOT / place).glob("*.md"))
    if "<!-- claims -->" in page.read_text(encoding="utf-8")
    or "<!-- configurations: " in page.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_committed_pages_are_rendered_from_the_committed_files(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert rendered(text) == text


def test_a_page_shows_both_tables() -> None:
    assert ROOT / "model_cards" / "README.md" in PAGES


def test_sections_are_filled_and_the_rest_is_left_alone() -> None:
    page = "# A\n\n<!-- claims -->\nold\n<!-- end of claims -->\n\nText stays.\n"
    once = rendered(page)
    assert once.startswith("# A\n\n<!-- claims -->\n| claim | paper |")
    assert once.endswith("\n<!-- end of claims -->\n\nText stays.\n")
    assert "old" not in once
    assert rendered(once) == once


def test_an_empty_section_is_filled_too() -> None:
    run = "guardreasoner_moderation/adapters/smollm2-135m"
    page = f"<!-- configurations: {run} -->\n<!-- end of configurations -->\n"
    assert "| base model | Llama 3.2 1B" in rendered(page)
    assert rendered(rendered(page)) == rendered(page)
