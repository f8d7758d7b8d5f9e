from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from example_cards import write

from guardreasoner_moderation.errors import InputError
from model_cards.ablations import render_ablations
from model_cards.papers import has_sections, rendered

FIGURES: dict[str, Any] = {
    "n": 300,
    "accuracy": 0.81,
    "f1": [0.8, 0.75, 0.85],
    "auprc": [0.9, 0.86, 0.94],
    "calibration_error": 0.052,
}
REPORT: dict[str, Any] = {
    "about": {
        "intervals": "95%, percentile bootstrap of 2000 resamples",
        "training_items": 2494,
        "data_sha256": "ab" * 32,
        "seed": 0,
        "hardware": "2 x CPU",
        "versions": {"python": "3.11"},
        "commit": "c0ffee" * 4,
    },
    "cells": {"all": {"tokens": 1234567, "hours": 0.75, "verdict": FIGURES, "think": FIGURES}},
    "claims": {
        "dual_mode": {
            "comparisons": [
                {
                    "run": "all, think mode, against reasoning, think mode",
                    "n": 300,
                    "difference": [-0.01, -0.03, 0.02],
                    "auprc_difference": [0.004, -0.01, 0.02],
                }
            ]
        }
    },
}


def rows(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def test_cells_have_a_row_for_each_mode_and_missing_ones_say_so(tmp_path: Path) -> None:
    text = render_ablations(results=write(tmp_path / "ablations.json", REPORT))
    verdict, think = rows(text, "| `all` ")
    assert verdict.startswith("| `all` | all | 1 | to 50% of the items | 1,234,567 | 0.75 | verdict |")
    assert verdict.endswith("| 300 | 80.0 [75.0, 85.0] | 81.0 | 90.0 [86.0, 94.0] | 5.2 |")
    assert "| think |" in think
    (missing,) = rows(text, "| `hs-dpo` ")
    assert missing.startswith("| `hs-dpo` | 400 | - | hard-sample DPO after `all` | not measured |")
    table = text.split("\n\n")[0].splitlines()
    assert len({line.count("|") for line in table}) == 1
    (difference,) = rows(text, "| dual mode ")
    assert difference.endswith("against reasoning, think mode | 300 | -1.0 [-3.0, +2.0] | +0.4 [-1.0, +2.0] |")
    assert "data SHA-256 abababababab" in text


def test_without_results_every_cell_is_not_measured(tmp_path: Path) -> None:
    text = render_ablations(results=tmp_path / "none.json")
    assert len(rows(text, "| `")) == text.count("| - | not measured |")
    assert "were not measured" in text


def test_damaged_results_are_refused(tmp_path: Path) -> None:
    damaged = {**REPORT, "cells": {"all": {"verdict": {"n": 1}}}}
    with pytest.raises(InputError, match=r"ablations\.json is not what training\.ablations writes"):
        render_ablations(results=write(tmp_path / "ablations.json", damaged))


def test_pages_are_filled_where_they_ask_for_it() -> None:
    page = "# Page\n\n<!-- ablations -->\nold\n<!-- end of ablations -->\n\nafter\n"
    assert has_sections(page)
    filled = rendered(page)
    assert "old" not in filled
    assert filled.startswith("# Page\n\n<!-- ablations -->\n| cell | items |")
    assert filled.endswith("<!-- end of ablations -->\n\nafter\n")
    assert rendered(filled) == filled
