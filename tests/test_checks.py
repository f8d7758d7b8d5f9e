from __future__ import annotations

import math
from typing import Any

import pytest

from guardreasoner_moderation.checks import finite_number, known_word, mapping, of_type, rising_shares, whole_number
from guardreasoner_moderation.errors import InputError, shown


def test_a_word_that_is_not_known_names_the_setting_and_the_nearest() -> None:
    assert known_word("mode", "think", ["think", "verdict"]) == "think"
    with pytest.raises(InputError, match="unknown mode 'thnk'; did you mean 'think'"):
        known_word("mode", "thnk", ["think", "verdict"])


@pytest.mark.parametrize("value", [None, 7, [], {}, b"think"])
def test_what_is_no_word_is_not_known(value: Any) -> None:
    with pytest.raises(InputError, match=r"unknown mode .*known: think"):
        known_word("mode", value, ["think"])


@pytest.mark.parametrize("value", [0, -(10**5000), True, 1.0, "1", None, math.nan], ids=shown)
def test_what_is_no_whole_number_of_the_least_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="rows must be a whole number of at least 1, found"):
        whole_number("rows", value)


@pytest.mark.parametrize("value", [8, 10**5000], ids=shown)
def test_a_whole_number_above_the_most_is_refused(value: int) -> None:
    assert whole_number("rows", 7, most=7) == 7
    with pytest.raises(InputError, match="rows must be at most 7, found"):
        whole_number("rows", value, most=7)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, True, "1", None])
def test_what_is_no_finite_number_is_refused(value: Any) -> None:
    assert finite_number("rate", 2) == 2.0
    with pytest.raises(InputError, match="rate must be a finite number, found"):
        finite_number("rate", value)


@pytest.mark.parametrize("value", [(0.9, 0.1), (0.1,), (0.1, 0.2, 0.3), (-1, 0), (0, 2), "ab", {0.1: 0.2}, None])
def test_what_are_no_rising_shares_is_refused(value: Any) -> None:
    assert rising_shares("bounds", [0, 1]) == (0.0, 1.0)
    with pytest.raises(InputError, match="bounds must be two rising numbers from 0 to 1, found"):
        rising_shares("bounds", value)


def test_types_and_mappings_are_insisted_on() -> None:
    assert of_type(bool, "chat", True) is True
    with pytest.raises(InputError, match="chat must be of type bool, found 1"):
        of_type(bool, "chat", 1)
    with pytest.raises(InputError, match=r"tasks must map names to values, found \['a'\]"):
        mapping("tasks", ["a"])
