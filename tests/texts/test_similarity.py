from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from texts.similarity import SeenPrompts, normalise, trigrams


def test_exact_ignores_case_spaces_and_punctuation() -> None:
    seen = SeenPrompts(["How do I grow tomatoes on a small balcony in the north?"])
    assert seen.has("how do I GROW tomatoes\non a small balcony -- in the north")
    assert seen.has("how do I grow tomatoes on a small balcony in the north".replace(" ", "\u00a0"))
    assert not seen.has("How do I grow tomatoes?")


def test_similarity_is_jaccard_of_trigrams() -> None:
    seen = SeenPrompts(["a b c d", "x y z"])
    assert trigrams("a b c d") == {"a b c", "b c d"}
    assert trigrams("a b") == {"a b"}
    assert seen.similarity("a b c e") == pytest.approx(1 / 3)
    assert seen.similarity("X, Y, Z!") == 1
    assert seen.similarity("q") == 0


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.text(max_size=30), max_size=5), st.text(max_size=30))
def test_what_is_exact_is_also_similar(prompts: list[str], prompt: str) -> None:
    seen = SeenPrompts([*prompts, prompt])
    assert seen.has(prompt)
    assert seen.similarity(prompt) == 1
    assert normalise(normalise(prompt)) == normalise(prompt)
