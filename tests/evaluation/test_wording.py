from __future__ import annotations

import pytest

from evaluation.wording import content_words, has_loop, repeated_share, sentences, stem, words


def test_sentences_end_at_their_marks() -> None:
    assert sentences('He asks "why?" It is 3.5 km. No harm!') == ['He asks "why?', "It is 3.5 km.", "No harm!"]
    assert sentences("  ") == []


def test_words_keep_apostrophes_and_hyphens() -> None:
    assert words("It won\u2019t be a well-known 2nd case.") == ["it", "won't", "be", "a", "well-known", "nd", "case"]


@pytest.mark.parametrize(("word", "stemmed"), [("baking", "bak"), ("bakes", "bak"), ("ties", "tie"), ("is", "is")])
def test_inflections_share_a_stem(word: str, stemmed: str) -> None:
    assert stem(word) == stemmed


def test_content_words_leave_out_what_every_text_has() -> None:
    assert content_words("The user would like to bake breads with them") == {"user", "bak", "bread"}


def test_loops() -> None:
    assert has_loop(["The user asks about bread.", "Nothing here.", "The user asks about bread."])
    assert has_loop(["it is fine because it is fine because it is fine because it is fine because it is fine"])
    assert not has_loop(["No harm.", "No harm."])  # too short to be one
    assert not has_loop(["The user asks about bread.", "The user asks about cake."])


def test_repeated_share_of_a_hand_worked_case() -> None:
    # runs: abcd bcda cdab dabc abcd: five, four of them different
    assert repeated_share(list("abcdabcd")) == pytest.approx(1 / 5)
    assert repeated_share(list("abc")) == 0.0
