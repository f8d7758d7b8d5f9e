from __future__ import annotations

from guardreasoner_moderation import Moderator
from texts.filler import filler, filler_of_tokens


def test_filler_is_the_same_each_time_and_hardly_repeats_itself() -> None:
    assert filler(500, 1) == filler(500, 1)
    assert filler(500, 1) != filler(500, 2)
    sentences = filler(2000, 3).replace("\n\n", " ").split(". ")
    assert len(set(sentences)) > 0.95 * len(sentences)
    assert filler(0, 1) == ""


def test_texts_have_the_tokens_asked_for_and_are_different(embedded: Moderator) -> None:
    texts = [filler_of_tokens(embedded, 50, number) for number in range(3)]
    assert [len(embedded.model.engine.encode(text)) for text in texts] == [50] * 3
    assert len(set(texts)) == 3
