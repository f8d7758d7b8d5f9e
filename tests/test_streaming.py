from __future__ import annotations

import pytest

from guardreasoner_moderation.streaming import ReasoningStream

WRITTEN = "The user asks a thing.\nIt is harmless.\n# Task 2\nThe answer helps.\n---\nAnswers:\nRequest: unharmful"
SHOWN = "The user asks a thing.\nIt is harmless.\nThe answer helps.\n"


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_only_the_steps_are_handed_on_however_the_text_is_cut(size: int) -> None:
    pieces: list[str] = []
    stream = ReasoningStream(pieces.append)
    for start in range(0, len(WRITTEN), size):
        stream(0, WRITTEN[start : start + size])
    assert "".join(pieces) == SHOWN


def test_a_step_is_shown_before_it_is_finished() -> None:
    pieces: list[str] = []
    stream = ReasoningStream(pieces.append)
    stream(0, "The user asks")
    assert pieces == ["The user asks"]


def test_a_verdict_shows_nothing() -> None:
    pieces: list[str] = []
    ReasoningStream(pieces.append)(0, "Answers:\nRequest: harmful\nCategory: other")
    assert pieces == []
