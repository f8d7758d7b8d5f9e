from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from example_cards import write

from guardreasoner_moderation.errors import InputError
from model_cards.claims import CLAIMS, Outcome, check_claims, render_claims
from texts.strict_yaml import read_yaml

CLAIM = {
    "claim": "More is better",
    "paper": "2505.20087",
    "there": "F1 0.9 against 0.8",
    "where": "table 1",
    "rule": "better",
    "file": "results.json",
    "entry": "claims.more",
}


def outcome_of(tmp_path: Path, difference: list[float] | None, **changes: object) -> str:
    """The verdict on a claim for a difference; None for no results file."""
    file = tmp_path / "claims.yaml"
    file.write_text(yaml.safe_dump([{**CLAIM, **changes}]))
    if difference is not None:
        entry = {"metric": "F1", "run": "all against 500", "n": 300, "difference": difference}
        write(tmp_path / "results.json", {"claims": {"more": entry}})
    return check_claims(file, tmp_path)[0].outcome


@pytest.mark.parametrize(
    ("rule", "margin", "difference", "outcome"),
    [
        ("better", 0.0, [0.02, 0.001, 0.04], Outcome.REPRODUCED),
        ("better", 0.0, [0.02, -0.001, 0.04], Outcome.NOT_REPRODUCED),
        ("better", 0.0, [-0.02, -0.03, -0.01], Outcome.NOT_REPRODUCED),
        ("within", 0.03, [-0.01, -0.029, 0.01], Outcome.REPRODUCED),
        ("within", 0.03, [-0.01, -0.031, 0.01], Outcome.NOT_REPRODUCED),
        ("better", 0.0, None, Outcome.NOT_TESTED),
    ],
)
def test_the_verdict_follows_from_the_rule(
    tmp_path: Path, rule: str, margin: float, difference: list[float] | None, outcome: Outcome
) -> None:
    assert outcome_of(tmp_path, difference, rule=rule, margin=margin) == outcome


def test_a_file_without_the_entry_leaves_the_claim_untested(tmp_path: Path) -> None:
    assert outcome_of(tmp_path, [0.1, 0.05, 0.2], entry="claims.less") == Outcome.NOT_TESTED


def test_the_table_shows_both_figures_the_run_and_the_verdict(tmp_path: Path) -> None:
    outcome_of(tmp_path, [0.021, 0.001, 0.04])
    table = render_claims(check_claims(tmp_path / "claims.yaml", tmp_path))
    assert (
        "| More is better | arXiv 2505.20087, table 1 | F1 0.9 against 0.8 | F1 +2.1 [+0.1, +4.0] points, n 300 "
        "| all against 500, `results.json` | reproduced |"
    ) in table
    assert "published by others, not measured here" in table


def test_auprc_stands_beside_the_figure_and_does_not_decide(tmp_path: Path) -> None:
    entry = {"metric": "F1", "run": "all against 500", "n": 300, "difference": [0.02, 0.001, 0.04]}
    outcome_of(tmp_path, None)
    write(tmp_path / "results.json", {"claims": {"more": {**entry, "auprc_difference": [-0.05, -0.1, -0.01]}}})
    (found,) = check_claims(tmp_path / "claims.yaml", tmp_path)
    assert str(found.found) == "F1 +2.0 [+0.1, +4.0] points (AUPRC -5.0 [-10.0, -1.0]), n 300"
    assert found.outcome == Outcome.REPRODUCED


def test_a_damaged_figure_names_file_and_entry(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"results\.json, claims\.more: ValueError"):
        outcome_of(tmp_path, [0.1])


def test_a_misspelt_key_or_rule_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="row 1: unknown key 'papre'; did you mean 'paper'"):
        outcome_of(tmp_path, None, papre="x")
    with pytest.raises(InputError, match="unknown rule 'beter' of the claim 'More is better'; did you mean 'better'"):
        outcome_of(tmp_path, None, rule="beter")


def test_all_claims_of_the_plan_are_there() -> None:
    rows = read_yaml(CLAIMS)
    assert [row["paper"] for row in rows] == ["2505.20087"] * 5 + ["2501.18492"]
    entries = [row["entry"] for row in rows]
    assert len(set(entries)) == len(entries) == 6
    assert len(check_claims()) == 6
