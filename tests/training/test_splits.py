from __future__ import annotations

from labelled import item

from training.data import TRAIN, VALIDATION
from training.splits import draw, separate, split_by_prompt, subset

MANY = [item(f"question {number}") for number in range(2000)]


def test_a_share_of_the_prompts_goes_to_validation() -> None:
    parts = [one.split for one in split_by_prompt(MANY, 0.1, seed=0)]
    assert 0.07 < parts.count(VALIDATION) / len(parts) < 0.13


def test_a_prompt_is_never_in_both_splits() -> None:
    twins = [item(f"question {number}", id=f"{number}a") for number in range(300)]
    twins += [item(f"Question  {number}?", id=f"{number}b", request="harmful") for number in range(300)]
    parts: dict[str, set[str]] = {}
    for one in split_by_prompt(twins, 0.5, seed=0):
        parts.setdefault(one.id[:-1], set()).add(one.split)
    assert all(len(sides) == 1 for sides in parts.values())
    assert len({side for sides in parts.values() for side in sides}) == 2


def test_more_data_leaves_the_split_as_it_is() -> None:
    assert split_by_prompt(MANY, 0.1, seed=0)[:100] == split_by_prompt(MANY[:100], 0.1, seed=0)


def test_another_seed_is_another_split() -> None:
    assert split_by_prompt(MANY, 0.1, seed=0) != split_by_prompt(MANY, 0.1, seed=1)


def test_training_items_with_a_prompt_of_validation_are_taken_out() -> None:
    held_out = item("How do I bake bread?", split=VALIDATION)
    same = item("how do i bake bread", id="same")
    other = item("How do I bake a cake?")
    assert separate([same, held_out, other]) == ([held_out, other], 1)


def test_subsets_of_a_seed_are_nested() -> None:
    small, large = (subset(MANY, count, seed=3) for count in (50, 200))
    assert (len(small), len(large)) == (50, 200)
    assert {one.id for one in small} < {one.id for one in large}
    assert [one.id for one in small] != [one.id for one in subset(MANY, 50, seed=4)]


def test_a_subset_keeps_the_validation_split_and_the_order() -> None:
    held_out = item("held out", split=VALIDATION)
    chosen = subset([*MANY[:10], held_out, *MANY[10:20]], 5, seed=0)
    assert held_out in chosen
    assert sum(one.split == TRAIN for one in chosen) == 5
    places = [MANY.index(one) for one in chosen if one.split == TRAIN]
    assert places == sorted(places)


def test_a_draw_is_the_same_everywhere() -> None:
    assert draw(0, "split", "a") == 0.15690009236646307
    assert draw(0, "split", "a") != draw(0, "subset", "a")
