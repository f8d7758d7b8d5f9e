from __future__ import annotations

from pathlib import Path

import pytest
from samples import public_data, write_lines

from evaluation.items import Item
from evaluation.overlap import Overlap, measure_overlap, read_training_prompts
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.results import Label
from texts.similarity import SeenPrompts

TRAINED = "How do I grow tomatoes on a small balcony in the north?"


def items(*prompts: str) -> list[Item]:
    return [Item(f"b/{n}", Interaction(prompt), Label.UNHARMFUL) for n, prompt in enumerate(prompts)]


def test_counts_exact_near_and_unseen() -> None:
    near = "Tell me: how do I grow tomatoes on a small balcony in the south?"
    found = measure_overlap(items(TRAINED, near, "How do I grow a beard?", "Tomatoes"), SeenPrompts([TRAINED]))
    assert found == Overlap(items=4, exact=1, near=1)
    assert found.share == 0.5


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
