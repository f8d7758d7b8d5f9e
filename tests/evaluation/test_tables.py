from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.tables import ROOT, rendered, table

RUN = {
    "mode": "verdict",
    "model": {"name": "embedded", "sha256": "0123456789abcdef", "engine": "ctranslate2"},
    "scorer": "strict",
    "intervals": "95%, percentile bootstrap of 1000 resamples",
    "versions": {"python": "3.11"},
    "hardware": "2 x CPU",
    "benchmarks": {
        "Own": {
            "task": "request",
            "n": 40,
            "unjudged": 0,
            "trained_on": True,
            "metrics": {"accuracy": [0.8, 0.7, 0.9], "f1": [0.75, 0.6, 0.85], "auprc": [None, None, None]},
        },
        "ToxicChat": {
            "task": "request",
            "n": 50,
            "unjudged": 0,
            "trained_on": False,
            "metrics": {"f1": [0.5, 0.4, 0.6]},
        },
        "OpenAIModeration": {
            "task": "request",
            "n": 100,
            "unjudged": 0,
            "trained_on": False,
            "metrics": {"f1": [0.575, 0.5, 0.6]},
        },
    },
    "averages_unseen": {
        "request": {"n": 150, "benchmarks": ["ToxicChat", "OpenAIModeration"], "metrics": {"f1": [0.55, 0.5, 0.6]}},
        "response": {"n": 50, "benchmarks": ["BeaverTails"], "metrics": {"f1": [0.3, 0.2, 0.4]}},
    },
}


def test_a_row_has_its_interval_and_its_mark() -> None:
    assert (
        "| Own (trained on) | request | verdict | 40 | 80.0 [70.0, 90.0] | 75.0 [60.0, 85.0] | - | - | - | 0 | - | - |"
        in table([RUN])
    )


def test_published_figures_stand_beside_those_of_the_same_benchmark() -> None:
    (row,) = [line for line in table([RUN]).splitlines() if line.startswith("| ToxicChat ")]
    assert row.endswith("| 0 | 53.12 | 72.43 |")


def test_averages_are_of_several_unseen_benchmarks() -> None:
    rows = [line for line in table([RUN]).splitlines() if line.startswith("| average")]
    assert rows == ["| average of 2 unseen | request | verdict | 150 | - | 55.0 [50.0, 60.0] | - | - | - |  |  |  |"]


def test_the_notes_name_model_scorer_versions_and_hardware() -> None:
    for part in ("`embedded`", "0123456789ab", "ctranslate2", "strict scorer", "python 3.11", "2 x CPU", "bootstrap"):
        assert part in table([RUN])


ZERO = {
    **RUN,
    "model": {"name": "smollm2-135m-zero-shot", "sha256": "fedcba9876543210", "engine": "ctranslate2"},
    "benchmarks": {
        "ToxicChat": {"n": 300, "metrics": {"accuracy": [0.3, 0.2, 0.4], "f1": [0.2, 0.1, 0.3]}},
        "OpenAIModeration": {"n": 100, "metrics": {"accuracy": [0.7, 0.6, 0.8], "f1": [0.6, 0.5, 0.7]}},
    },
}


def test_the_zero_shot_baseline_stands_beside_each_benchmark_and_the_average_of_the_same() -> None:
    lines = table([RUN], ZERO).splitlines()
    assert "| unjudged | accuracy, zero-shot | F1, zero-shot | F1 of LLaMA Guard 3 8B, published |" in lines[0]
    (row,) = [line for line in lines if line.startswith("| ToxicChat ")]
    assert row.endswith("| 0 | 30.0 [20.0, 40.0] | 20.0 [10.0, 30.0] | 53.12 | 72.43 |")
    (other,) = [line for line in lines if line.startswith("| Own ")]
    assert other.endswith("| 0 | - | - | - | - |")
    (average,) = [line for line in lines if line.startswith("| average")]
    assert average.endswith("|  | 56.7 | 46.7 |  |  |")  # by 50 and 100 items, not by its own 300 and 100
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    assert "fedcba987654" in lines[-1]
    assert "the likelier label wins (threshold 0.5)" in lines[-1]


def test_without_a_baseline_there_are_no_empty_columns() -> None:
    assert "zero-shot" not in table([RUN])


@pytest.mark.parametrize("page", ["README.md", "evaluation/results/README.md"])
def test_committed_pages_are_rendered_from_the_committed_results(page: str) -> None:
    text = Path(ROOT, page).read_text(encoding="utf-8")
    assert "<!-- results: " in text
    assert rendered(text) == text
