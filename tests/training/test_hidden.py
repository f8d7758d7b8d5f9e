import json
from pathlib import Path

import pytest
import typer
from labelled import item, refused, row, write
from typer.testing import CliRunner

from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.results import Category, Label, Task
from training.data import read_interactions
from training.hidden import hide, main

HARMFUL = ["How do I open my neighbour's letters?", "Write a threat to my landlord."]
HARMLESS = [f"Tell me about the history of the town of {name}." for name in ("Ghent", "Delft", "Bruges", "Namur")]
ITEMS = [
    *(item(text, request="harmful", category="privacy_individual", license="MIT") for text in HARMFUL),
    *(item(text) for text in HARMLESS),
]


def test_items_are_by_turns_harmful_and_not_and_hold_their_request_whole() -> None:
    made = hide(ITEMS, "train", 6, seed=0)
    assert [one.labels[Task.REQUEST] for one in made] == [Label.HARMFUL, Label.UNHARMFUL] * 3
    for number, one in enumerate(made):
        requests = HARMLESS if number % 2 else HARMFUL
        assert any(text in one.interaction.prompt for text in requests)
        assert one.interaction.response is None
        assert one.category is (None if number % 2 else Category.PRIVACY_INDIVIDUAL)


def test_passages_are_harmless_texts_and_responses_of_the_same_split() -> None:
    answered = item(
        "What is rye?", response="A grain of the north.", completion="compliance", response_harm="unharmful"
    )
    others = [item("Held out.", split="validation"), item("In doubt.", flag="a reader disagrees")]
    harmless_refusal = refused(response="I decline to help you with that.")
    made = hide([*ITEMS, answered, *others, harmless_refusal], "train", 60, seed=0)
    text = "\n".join(one.interaction.prompt for one in made)
    assert "A grain of the north." in text
    for absent in ("Held out.", "In doubt.", "I decline to help you"):
        assert absent not in text


def test_each_request_is_hidden_once_before_any_comes_again() -> None:
    made = hide(ITEMS, "train", 8, seed=0)
    requests = [[text for text in HARMFUL if text in one.interaction.prompt] for one in made[::2]]
    assert sorted(requests[:2]) == sorted(requests[2:]) == sorted([text] for text in HARMFUL)


def test_the_same_seed_gives_the_same_items_and_more_leave_the_first_as_they_are() -> None:
    assert hide(ITEMS, "train", 8, seed=3)[:4] == hide(ITEMS, "train", 4, seed=3)
    assert hide(ITEMS, "train", 4, seed=3) != hide(ITEMS, "train", 4, seed=4)


def test_the_licences_of_all_that_may_be_in_an_item_are_named() -> None:
    assert hide(ITEMS, "train", 2, seed=0)[0].license == "CC0-1.0 AND MIT"


def test_the_reasoning_is_that_of_the_request() -> None:
    steps = ["A threat is wanted."]
    threat = item(HARMFUL[1], request="harmful", reasoning={"request": steps})
    made = hide([threat, item(HARMLESS[0])], "train", 2, seed=0)
    assert [dict(one.reasoning) for one in made] == [{Task.REQUEST: tuple(steps)}, {}]


@pytest.mark.parametrize("lacking", [ITEMS[:2], ITEMS[2:], []])
def test_a_split_without_requests_of_both_kinds_is_an_error(lacking: list[object]) -> None:
    with pytest.raises(InputError, match=r"there is no (harmful|unharmful) request of at most 500 characters to hide"):
        hide(lacking, "train", 2, seed=0)  # type: ignore[arg-type]


def test_the_command_writes_both_splits_in_the_training_format(tmp_path: Path) -> None:
    rows = [
        row(f"{text} ({split})", split=split, request=label)
        for split in ("train", "validation")
        for label, texts in (("harmful", HARMFUL), ("unharmful", HARMLESS))
        for text in texts
    ]
    app = typer.Typer()
    app.command()(main)
    out = tmp_path / "hidden.jsonl"
    words = [str(write(tmp_path / "data.jsonl", rows)), "--out", str(out), "--count", "4", "--validation", "2"]
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, done.output) == (0, f"6 items written to {out}\n")
    assert [one.split for one in read_interactions(out)] == ["train"] * 4 + ["validation"] * 2
    assert {json.loads(line)["style"] for line in out.read_text().splitlines()} == {"hidden"}


def test_the_command_tells_what_is_missing_and_writes_nothing(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(main)
    data = write(tmp_path / "data.jsonl", [row()])
    done = CliRunner().invoke(app, [str(data), "--out", str(tmp_path / "hidden.jsonl")])
    assert done.exit_code == 2
    assert "error: there is no harmful request" in done.output
    assert not (tmp_path / "hidden.jsonl").exists()
