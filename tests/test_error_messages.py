from __future__ import annotations

import pytest

from guardreasoner_moderation.errors import brief


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("https://someone:topsecret@host/simple/x/", "https://***@host/simple/x/"),
        ("https://topsecret@host/simple", "https://***@host/simple"),
        ("https://a:b@c:topsecret@host", "https://***@host"),
        ("see https://host/file.whl?Signature=topsecret&Key=topsecret now", "see https://host/file.whl?*** now"),
        ("the token hf_topsecret is not valid", "the token hf_*** is not valid"),
        ("<urllib3.Connection object at 0x7f00>: refused.\nTraceback: topsecret", "refused"),
    ],
)
def test_credentials_in_messages_of_others_are_masked(said: str, shown: str) -> None:
    assert brief(said) == shown


def test_messages_of_others_are_cut_to_a_bearable_length() -> None:
    assert len(brief("long " * 1000)) <= 300
