from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.threshold_page import ADAPTER, IMAGES, PAGE, SECTIONS, read_figures, rendered
from evaluation.threshold_plots import PLOTS, draw_plot
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.models import weights_sha256

CHOSEN = {"threshold": [0.6, 0.4, 0.7], "recall": [0.8, 0.7, 0.9], "precision": [0.9, 0.8, 1.0], "f1": [0.85, 0.8, 0.9]}
TASK: dict[str, Any] = {
    "risky": 40,
    "others": 60,
    "unjudged": 0,
    "metrics": {"auprc": [0.9, 0.8, 0.95], "calibration_error": [0.05, 0.02, 0.1]},
    "counts": [[step / 100, 40 - step // 5, 60 - step // 2] for step in range(1, 100)],
    "calibration": [{"score": 0.2, "count": 1, "of": 10}, {"score": 0.8, "count": 9, "of": 10}],
    "chosen": {"fpr=0.01": {**CHOSEN, "false_positive_rate": [0.01, 0.0, 0.05]}, "cost=5": None},
}
FIGURES: dict[str, Any] = {
    "model": "embedded",
    "weights_sha256": weights_sha256(ADAPTER),
    "engine": "ctranslate2",
    "split": "validation",
    "limit": None,
    "versions": {"python": "3.11"},
    "hardware": "2 x CPU",
    "example": {"told": "threshold of request for fpr=0.1: 0.3000 [0.1000, 0.9000]"},
    "tasks": {"request": TASK, "completion": TASK, "response": TASK},
}


def section(name: str, figures: dict[str, Any] | None = FIGURES) -> str:
    page = f"Before.\n\n<!-- thresholds: {name} -->\nwhat stood there\n<!-- end of thresholds -->\n\nAfter.\n"
    text = rendered(page, figures)
    assert text.startswith(f"Before.\n\n<!-- thresholds: {name} -->\n")
    assert text.endswith("\n<!-- end of thresholds -->\n\nAfter.\n")
    assert "what stood there" not in text
    return text


def test_the_committed_page_is_rendered_from_the_committed_file() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert rendered(text, read_figures()) == text, "run make pages"


def test_the_page_shows_all_sections_and_the_repository_holds_their_plots() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [name for name in SECTIONS if f"<!-- thresholds: {name} -->\n" not in text] == []
    if read_figures() is not None:
        for name in PLOTS:
            plot = IMAGES / f"threshold-{name}.png"
            assert plot.read_bytes().startswith(b"\x89PNG")
            assert plot.stat().st_size < 60_000


def test_without_figures_nothing_is_invented() -> None:
    assert "Not measured for these weights; to do so: `python -m evaluation.threshold_figures" in section("rates", None)


@pytest.mark.parametrize("name", SECTIONS)
def test_rendering_again_changes_nothing(name: str) -> None:
    assert rendered(section(name), FIGURES) == section(name)


def test_rates_are_of_the_counts() -> None:
    # At 0.5: 30 of 40 risky items and 35 of 60 others.
    assert "| request | 0.5 | 65.0 | 75.0 [59.8, 85.8] | 58.3 [45.7, 69.9] | 46.2 [34.6, 58.1] |" in section("rates")


def test_a_target_that_no_threshold_reaches_is_told() -> None:
    assert "| request | `cost=5` | none reaches it | - | - | - | - |" in section("costs")
    row = "| request | `fpr=0.01` | 0.600 [0.400, 0.700] | 80.0 [70.0, 90.0] | 1.0 [0.0, 5.0] | 90.0 [80.0, 100.0] |"
    assert row in section("false alarms")
    assert "`fpr" not in section("recall")


def test_precision_falls_with_the_base_rate() -> None:
    text = section("base rates")
    # 0.75 and 0.5833 at 0.5; 0.8 and 0.01 at the threshold for fpr=0.01.
    assert "| 50% | 56.2% | 6667, 2917 | 98.8% | 4050, 50 |" in text
    assert "| 1% | 1.3% | 5850, 5775 | 44.7% | 179, 99 |" in text


def test_an_unknown_section_is_an_error() -> None:
    with pytest.raises(InputError, match="unknown section 'rate' of thresholds; did you mean 'rates'"):
        section("rate")


@pytest.mark.parametrize(
    ("changes", "message"), [({"limit": 20}, "of a trial"), ({"weights_sha256": "0"}, "of other weights")]
)
def test_figures_that_are_not_the_adapters_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = tmp_path / "thresholds.json"
    file.write_text(json.dumps({**FIGURES, **changes}), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_figures(file)


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_has_its_words_and_is_small(name: str) -> None:
    plot = draw_plot(name, FIGURES["tasks"])
    assert plot.name == f"threshold-{name}"
    assert plot.alt == PLOTS[name][0]
    assert plot.png.startswith(b"\x89PNG")
    assert len(plot.png) < 60_000
