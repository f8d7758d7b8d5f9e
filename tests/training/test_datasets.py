"""The data that is shipped, and what its card says of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import training
from guardreasoner_moderation.results import Label, Task
from texts.similarity import normalise
from training.data import TRAIN, VALIDATION, read_interactions

FOLDER = Path(training.__file__).parent / "datasets"
ITEMS = read_interactions(FOLDER / "written.jsonl")
CARD = (FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_card_counts_what_is_there() -> None:
    counts: dict[str, Counter[str]] = {}
    for item in ITEMS:
        for name in (f"`{item.style}`", "all"):
            counts.setdefault(name, Counter()).update((item.split, item.labels[Task.REQUEST]))
    for name, row in counts.items():
        cells = (row[TRAIN], row[VALIDATION], row[Label.HARMFUL], row[Label.UNHARMFUL])
        assert f"| {name} | {' | '.join(map(str, cells))} |" in CARD
    assert f"{len(ITEMS):,} requests" in CARD


def test_the_card_counts_the_responses() -> None:
    answers = Counter(item.labels.get(task) for item in ITEMS for task in (Task.COMPLETION, Task.RESPONSE))
    assert f"{answers[Label.REFUSAL]} refusals, {answers[Label.COMPLIANCE]} compliances" in CARD
    assert f"{answers[Label.HARMFUL]} harmful, {answers[Label.UNHARMFUL]} harmless ones" in CARD
    styles = {item.style for item in ITEMS if item.interaction.response}
    assert styles == {"pairs", "response_pairs", "response_pairs_long"}


def test_a_prompt_with_several_responses_has_them_of_both_kinds() -> None:
    harms: dict[str, set[Label]] = {}
    for item in ITEMS:
        if item.style == "response_pairs":
            harms.setdefault(item.interaction.prompt, set()).add(item.labels[Task.RESPONSE])
    assert len(harms) == 138
    assert all(len(labels) == 2 for labels in harms.values())


def test_every_item_can_be_learned_in_both_modes() -> None:
    assert all(item.can_think and not item.doubtful for item in ITEMS)
    assert {item.license for item in ITEMS} == {"CC0-1.0"}
    assert all((item.category is None) == (item.labels[Task.REQUEST] is Label.UNHARMFUL) for item in ITEMS)


def test_no_prompt_is_in_both_splits() -> None:
    sides = {
        split: {normalise(item.interaction.prompt) for item in ITEMS if item.split == split}
        for split in (TRAIN, VALIDATION)
    }
    assert not sides[TRAIN] & sides[VALIDATION]
    assert len({item.id for item in ITEMS}) == len(ITEMS)
