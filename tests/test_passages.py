from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner_moderation.passages import passages


def words(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"\S+", text)]


def cut(text: str, most: int) -> list[str]:
    return [text[start:end] for start, end in passages(text, words(text), most)]


LINE = "We bake bread with flour, water and some salt."  # nine words


def test_paragraphs_are_passages() -> None:
    text = f"{LINE}\n\n{LINE}\n \n\n{LINE}"
    assert [part.strip() for part in cut(text, 20)] == [LINE] * 3
    assert "".join(cut(text, 20)) == text


def test_a_heading_goes_with_what_follows() -> None:
    assert cut(f"Bread\n\n{LINE}\n\nThe end", 20) == [f"Bread\n\n{LINE}\n\n", "The end"]


def test_lines_of_one_paragraph_stand_together_as_far_as_there_is_room() -> None:
    assert [part.strip() for part in cut("\n".join([LINE] * 5), 20)] == [f"{LINE}\n{LINE}"] * 2 + [LINE]


@pytest.mark.parametrize("end", [". ", '." ', "? ", "!\n", "…) "])
def test_a_long_paragraph_is_cut_between_sentences(end: str) -> None:
    sentence = f"one two three four five six seven{end}"
    assert cut(sentence * 6, 16) == [sentence * 2] * 3


def test_sentences_end_without_spaces_in_languages_without_them() -> None:
    text = "パンを焼く。" * 4
    tokens = [(place, place + 1) for place in range(len(text))]
    assert [text[start:end] for start, end in passages(text, tokens, 13)] == ["パンを焼く。" * 2] * 2


def test_a_sentence_that_is_too_long_is_cut_at_a_token() -> None:
    parts = cut("word " * 50, 20)
    assert [len(part.split()) for part in parts] == [20, 20, 10]


def test_one_character_of_many_tokens_is_not_cut_for_ever() -> None:
    assert passages("é" * 3, [(0, 1)] * 30 + [(1, 2), (2, 3)], 4) == [(0, 1), (1, 3)]


def test_white_space_is_no_passage() -> None:
    assert cut(" \n\n \n ", 20) == []


@given(st.text(alphabet='ab .!?\n"é。', max_size=400), st.integers(1, 60))
def test_every_word_is_read_once_and_no_passage_is_too_long(text: str, most: int) -> None:
    tokens = words(text)
    places = passages(text, tokens, most)
    assert re.sub(r"\s", "", "".join(text[start:end] for start, end in places)) == re.sub(r"\s", "", text)
    assert all(before[1] <= after[0] for before, after in pairwise(places))
    starts = [start for start, _ in tokens]
    assert all(sum(start <= token < end for token in starts) <= most for start, end in places)
