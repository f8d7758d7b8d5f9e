from __future__ import annotations

from model_cards.papers import rendered


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
