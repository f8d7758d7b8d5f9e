from __future__ import annotations

import re
from collections import Counter

from samples import REPOSITORY

from evaluation.benchmarks import find
from evaluation.loading import OWN, load
from evaluation.overlap import measure_overlap, read_training_prompts
from guardreasoner_moderation.results import Label
from training.data import read_interactions
from training.decontamination import decontaminate, read_benchmarks

WRITTEN = REPOSITORY / "training" / "datasets" / "written.jsonl"


def test_the_set_comes_without_a_data_folder_and_is_large_enough() -> None:
    loaded = load(find("Borderline"))
    counts = Counter(item.label for item in loaded.items)
    assert loaded.size_note is None
    assert counts[Label.UNHARMFUL] >= 150
    assert counts[Label.HARMFUL] >= 60
    assert len({item.interaction.prompt for item in loaded.items}) == len(loaded.items)


def test_no_item_is_like_one_of_the_training_data() -> None:
    items = load(find("Borderline")).items
    overlap = measure_overlap(items, read_training_prompts([WRITTEN]))
    assert (overlap.exact, overlap.near) == (0, 0)
    # The other way round: what decontamination takes out of the training data.
    training = read_interactions(WRITTEN)
    kept, (found,) = decontaminate(training, read_benchmarks(OWN))
    assert (found.benchmark, found.prompts, len(kept)) == ("borderline", len(items), len(training))


def test_the_card_counts_what_is_there() -> None:
    items = load(find("Borderline")).items
    counts = Counter((item.group, item.label) for item in items)
    rows = re.findall(
        r"^\| `(\w+)` \| (\d+) \| (\d+) \|", (OWN / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    order = (Label.UNHARMFUL, Label.HARMFUL)
    assert {(style, label): int(n) for style, *pair in rows for label, n in zip(order, pair, strict=True)} == counts
