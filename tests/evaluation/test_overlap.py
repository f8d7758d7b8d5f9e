from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import public_data, write_lines

from evaluation.items import Item
from evaluation.overlap import Overlap, SeenPrompts, measure_overlap, normalise, read_training_prompts, trigrams
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.results import Label

TRAINED = "How do I grow tomatoes on a small balcony in the north?"


def items(*prompts: str) -> list[Item]:
    return [Item(f"b/{n}", Interaction(prompt), Label.UNHARMFUL) for n, prompt in enumerate(prompts)]


def test_exact_ignores_case_spaces_and_punctuation() -> None:
    seen = SeenPrompts([TRAINED])
    assert seen.has("how do I GROW tomatoes\non a small balcony -- in the north")
    assert seen.has("how do I grow tomatoes on a small balcony in the north".replace(" ", "\u00a0"))
    assert not seen.has("How do I grow tomatoes?")


def test_counts_exact_near_and_unseen() -> None:
    near = "Tell me: how do I grow tomatoes on a small balcony in the south?"
    found = measure_overlap(items(TRAINED, near, "How do I grow a beard?", "Tomatoes"), SeenPrompts([TRAINED]))
    assert found == Overlap(items=4, exact=1, near=1)
    assert found.share == 0.5


def test_similarity_is_jaccard_of_trigrams() -> None:
    seen = SeenPrompts(["a b c d", "x y z"])
    assert trigrams("a b c d") == {"a b c", "b c d"}
    assert trigrams("a b") == {"a b"}
    assert seen.similarity("a b c e") == pytest.approx(1 / 3)
    assert seen.similarity("X, Y, Z!") == 1
    assert seen.similarity("q") == 0


@given(st.lists(st.text(max_size=30), max_size=5), st.text(max_size=30))
def test_what_is_exact_is_also_similar(prompts: list[str], prompt: str) -> None:
    seen = SeenPrompts([*prompts, prompt])
    assert seen.has(prompt)
    assert seen.similarity(prompt) == 1
    assert normalise(normalise(prompt)) == normalise(prompt)


def test_reads_training_files(tmp_path: Path) -> None:
    seen = read_training_prompts(
        [write_lines(tmp_path / "a.jsonl", [{"prompt": "a"}]), write_lines(tmp_path / "b.jsonl", [{"prompt": "b"}])]
    )
    assert seen.has("A")
    assert seen.has("B")
    with pytest.raises(InputError, match=r"c\.jsonl, row 1: there is no text in the column 'prompt'"):
        read_training_prompts([write_lines(tmp_path / "c.jsonl", [{"text": "a"}])])


def test_only_harmbench_is_in_the_training_data() -> None:
    data = public_data()
    from evaluation.benchmarks import BENCHMARKS, TRAINED_ON
    from evaluation.loading import find_file, load_file

    seen = read_training_prompts([data / "train" / "interactions.jsonl"])
    for benchmark in BENCHMARKS.values():
        file = find_file(benchmark, data)
        if file is not None and benchmark.items < 300:  # the small ones, for time
            share = measure_overlap(load_file(benchmark, file).items, seen).share
            assert (share > 0.05) == (benchmark.name in TRAINED_ON["embedded"]), (benchmark.name, share)
