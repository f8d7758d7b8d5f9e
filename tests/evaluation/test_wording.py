from __future__ import annotations

import pytest

from evaluation.wording import content_words, stem


@pytest.mark.parametrize(("word", "stemmed"), [("baking", "bak"), ("bakes", "bak"), ("ties", "tie"), ("is", "is")])
def test_inflections_share_a_stem(word: str, stemmed: str) -> None:
    assert stem(word) == stemmed


def test_content_words_leave_out_what_every_text_has() -> None:
    assert content_words("The user would like to bake breads with them") == {"user", "bak", "bread"}
