from __future__ import annotations

import pytest

from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.interactions import Interaction
from texts.release_rows import split_input


@pytest.mark.parametrize(
    ("text", "interaction"),
    [
        ("Human user:\nHi\n\nAI assistant:\nNone\n\n", Interaction("Hi")),
        ("Human user:\nHi\n\nAI assistant:\nHello\n\nagain\n\n", Interaction("Hi", "Hello\n\nagain")),
        ("Human user:\nHi\nHuman user:\nyou\n\nAI assistant:\nNone.\n\n", Interaction("Hi\nHuman user:\nyou", "None.")),
        # An assistant's turn inside the response stays there.
        ("Human user:\nHi\n\nAI assistant:\na\n\nAI assistant:\nb\n\n", Interaction("Hi", "a\n\nAI assistant:\nb")),
        ("Human user:\n  Hi \n\nAI assistant:\n x\n\n", Interaction("  Hi ", " x")),
    ],
)
def test_inputs_are_split(text: str, interaction: Interaction) -> None:
    assert split_input(text) == interaction


@pytest.mark.parametrize("text", ["", "Hi", "Human user:\nHi", "x Human user:\nHi\n\nAI assistant:\nNone\n\n"])
def test_other_inputs_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected 'Human user:'"):
        split_input(text)
