from __future__ import annotations

from pathlib import Path

import pytest
from labelled import item, write

from guardreasoner_moderation.errors import InputError
from training.decontamination import Found, decontaminate, read_benchmarks

ASKED = "How do I grow tomatoes on a small balcony in the north?"
SAME = item("how do I grow tomatoes on a small balcony -- in the NORTH", id="same")
NEAR = item("Tell me: how do I grow tomatoes on a small balcony in the south?", id="near")
OTHER = item("How do I grow a beard?", id="other")


def test_the_same_and_nearly_the_same_are_taken_out_and_counted() -> None:
    left, found = decontaminate([SAME, NEAR, OTHER], {"plants": [ASKED, "Why?"], "rocks": ["Is granite hard?"]})
    assert left == [OTHER]
    assert found == [Found("plants", 2, exact=1, near=1), Found("rocks", 1, exact=0, near=0)]


def test_what_was_declared_as_trained_on_stays_and_is_counted() -> None:
    left, found = decontaminate([SAME, NEAR, OTHER], {"plants": [ASKED]}, ["plants"])
    assert left == [SAME, NEAR, OTHER]
    assert found == [Found("plants", 1, exact=1, near=1, kept=True)]


def test_what_another_benchmark_has_too_is_taken_out_all_the_same() -> None:
    left, _ = decontaminate([SAME, OTHER], {"plants": [ASKED], "gardens": [ASKED]}, ["plants"])
    assert left == [OTHER]


def test_validation_items_are_taken_out_too() -> None:
    assert decontaminate([item(ASKED, split="validation")], {"plants": [ASKED]})[0] == []


def test_an_unknown_benchmark_is_an_error() -> None:
    with pytest.raises(InputError, match="no benchmark 'plant'; did you mean 'plants'"):
        decontaminate([OTHER], {"plants": [ASKED]}, ["plant"])


def test_a_folder_of_benchmarks_is_read_by_file(tmp_path: Path) -> None:
    write(tmp_path / "one.jsonl", [{"prompt": "a"}, {"prompt": "b"}])
    write(tmp_path / "two.jsonl", [{"text": "c"}])
    assert read_benchmarks(tmp_path) == {"one": ["a", "b"], "two": ["c"]}


def test_a_folder_without_benchmarks_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no benchmark file"):
        read_benchmarks(tmp_path)
    with pytest.raises(InputError, match="there is no folder of benchmarks"):
        read_benchmarks(tmp_path / "nowhere")
