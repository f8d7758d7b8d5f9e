from __future__ import annotations

from typing import Any

import pytest

from guardreasoner_moderation.errors import brief, harmless, nearest, shown


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("https://someone:topsecret@host/simple/x/", "https://***@host/simple/x/"),
        ("https://topsecret@host/simple", "https://***@host/simple"),
        ("https://a:b@c:topsecret@host", "https://***@host"),
        ("see https://host/file.whl?Signature=topsecret&Key=topsecret now", "see https://host/file.whl?*** now"),
        ("the token hf_topsecret is not valid", "the token hf_*** is not valid"),
        ("the key sk-topsecret-1 is not valid", "the key sk-*** is not valid"),
        ("sent Authorization: Bearer topsecret, got 401", "sent Authorization: Bearer ***, got 401"),
        ("<urllib3.Connection object at 0x7f00>: refused.\nTraceback: topsecret", "refused"),
    ],
)
def test_credentials_in_messages_of_others_are_masked(said: str, shown: str) -> None:
    assert brief(said) == shown


def test_messages_of_others_are_cut_to_a_bearable_length() -> None:
    assert len(brief("long " * 1000)) <= 300


def test_a_key_that_this_process_was_given_is_masked_whatever_it_looks_like(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDREASONER_SERVER_KEY", "plain words")
    assert brief("refused plain words") == "refused ***"


def test_an_error_of_others_is_chained_unless_any_link_tells_a_secret() -> None:
    def failed(message: str) -> Exception:
        try:
            try:
                raise OSError(message)
            except OSError as exc:
                raise RuntimeError("harmless") from exc
        except RuntimeError as exc:
            return exc

    good, bad = failed("refused"), failed("refused hf_topsecret")
    assert harmless(good) is good
    assert harmless(bad) is None


def multiplied() -> list[Any]:
    """A list of a billion elements that share their memory, as YAML's aliases make one."""
    level: list[Any] = ["x"]
    for _ in range(9):
        level = [level] * 10
    return level


@pytest.mark.parametrize(
    "value", ["x" * 10_000_000, b"x" * 1000, multiplied(), {"a": multiplied()}, 10**5000], ids=type
)
def test_what_was_found_is_shown_in_bearable_length(value: Any) -> None:
    assert len(shown(value)) < 200


def test_the_nearest_name_of_many_is_told_and_not_all_of_them() -> None:
    names = [f"column {number}" for number in range(10_000)]
    assert nearest("colum 7", names) == "; did you mean 'column 7'?"
    assert len(nearest("x" * 10_000_000, names)) < 400
    assert nearest(7, names).endswith("and 9,980 more")
