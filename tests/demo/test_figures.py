from __future__ import annotations

import pytest
from sample_figures import FIGURES

from guardreasoner_moderation.demo.figure_tables import claims_table, f1_table, facts_list, speed_tables
from guardreasoner_moderation.demo.figures import MEASURED, PUBLISHED, RESCORED, Figures, read_figures


def test_figures_of_all_three_sources_stand_together_from_the_highest() -> None:
    rows = FIGURES.f1_of("ToxicChat")
    assert [(row.model, row.source, row.value) for row in rows] == [
        ("Famous", PUBLISHED, 80.0),
        ("Other 1B", RESCORED, 75.0),
        ("guard (verdict)", MEASURED, 70.0),
    ]


def test_benchmarks_with_most_to_see_come_first() -> None:
    assert FIGURES.benchmarks == ["ToxicChat", "Mine", "XSTest"]


def test_an_undefined_f1_is_left_out() -> None:
    assert FIGURES.f1_of("Mine") == []
    assert "There is no figure of Mine" in f1_table("Mine", [], "a paper")


def test_the_table_marks_what_is_published_trained_on_and_unjudged() -> None:
    shown = f1_table("ToxicChat", FIGURES.f1_of("ToxicChat"), "a paper")
    assert "Published figures are not measured here: a paper." in shown
    assert "guard (verdict)*" in shown
    assert "70.0 <small>[60.0, 80.0]</small>" in shown
    assert "measured here, n 40, 2 unjudged" in shown
    assert "published, n 50" in shown


def test_how_a_run_was_measured_is_told() -> None:
    told = facts_list(FIGURES, "ToxicChat")
    assert all(text in told for text in ("sha256 abcdef012345", "a sample of 40, seed 0", "python 3.11", "one core"))
    assert facts_list(FIGURES, "XSTest") == ""


def test_speed_shows_all_sides_of_a_race_on_a_scale_of_its_own() -> None:
    shown = speed_tables(FIGURES.speed)
    assert 'this package</td><td class="gm-number">0.10 s' in shown
    assert 'transformers, float32</td><td class="gm-number">0.40 s' in shown
    assert shown.count("width:25.0%") == 2  # our latency, and the throughput of the others
    assert "Medians of 3 rounds (a third of them with batches) on one core" in shown


def test_what_was_not_measured_is_said() -> None:
    assert "not measured" in speed_tables({})
    assert "not measured" in claims_table([])


@pytest.fixture(scope="module")
def shipped() -> Figures:
    return read_figures()


def test_every_shipped_benchmark_can_be_shown(shipped: Figures) -> None:
    assert shipped.runs
    for name in shipped.benchmarks:
        rows = shipped.f1_of(name)
        assert rows
        assert all(0 <= row.value <= 100 for row in rows)
        assert f1_table(name, rows, shipped.published["source"])
    assert "not measured here" in shipped.published["status"]


def test_every_shipped_claim_has_a_verdict(shipped: Figures) -> None:
    assert {claim["outcome"] for claim in shipped.claims} <= {"reproduced", "not reproduced", "not tested"}
    assert claims_table(shipped.claims).count('<th scope="row">') == len(shipped.claims)
