from __future__ import annotations

import pytest
from labelled import item

from guardreasoner_moderation.errors import InputError
from training.balance import GROUPS, balance

HARMLESS = [item(f"bread {number}") for number in range(30)]
HARMFUL = [item(f"poison {number}", request="harmful", source="other") for number in range(10)]


@pytest.mark.parametrize(("ratio", "harmless"), [(1.0, 10), (1.5, 15), (10.0, 30)])
def test_the_larger_class_is_cut_to_the_ratio(ratio: float, harmless: int) -> None:
    left, sizes = balance([*HARMLESS, *HARMFUL], GROUPS["request"], ratio=ratio, seed=0)
    assert sizes == {"unharmful": (30, harmless), "harmful": (10, 10)}
    assert len(left) == harmless + 10


def test_sources_are_balanced() -> None:
    _, sizes = balance([*HARMLESS, *HARMFUL], GROUPS["source"], ratio=1, seed=0)
    assert sizes == {"own": (30, 10), "other": (10, 10)}


def test_classes_are_balanced_within_sources() -> None:
    _, sizes = balance([*HARMLESS, *HARMFUL], GROUPS["source-request"], ratio=2, seed=0)
    assert sizes == {"own: unharmful": (30, 20), "other: harmful": (10, 10)}


def test_the_seed_decides_who_stays() -> None:
    first, again, other = (balance([*HARMLESS, *HARMFUL], GROUPS["request"], ratio=1, seed=s)[0] for s in (0, 0, 1))
    assert first == again
    assert first != other


def test_validation_items_neither_count_nor_go() -> None:
    held_out = [item(f"held out {number}", request="harmful", split="validation") for number in range(3)]
    left, sizes = balance([*HARMLESS, *held_out, *HARMFUL], GROUPS["request"], ratio=1, seed=0)
    assert sizes["harmful"] == (10, 10)
    assert [one for one in left if one.split == "validation"] == held_out


def test_a_ratio_below_one_is_an_error() -> None:
    with pytest.raises(InputError, match=r"must be at least 1, found 0\.5"):
        balance(HARMLESS, GROUPS["request"], ratio=0.5, seed=0)
