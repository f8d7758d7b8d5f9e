from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from example_cards import EMBEDDED, ROOT, decision, make_run, results, sha256_of_run, write
from typer import Typer
from typer.testing import CliRunner

from guardreasoner_moderation.errors import InputError
from model_cards.card import collect, main, render, write_card
from model_cards.metadata import find_card_problems
from model_cards.reading import ROOT as CHECKOUT
from model_cards.request import Request, last_request

APP = Typer()
APP.command()(main)
CARDS = sorted(ROOT.glob("guardreasoner_moderation/adapters/*/README.md"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def card_of(run: Path, tmp_path: Path, *files: Any, **request: Any) -> str:
    paths = [write(tmp_path / f"{number}.json", content) for number, content in enumerate(files)]
    return render(collect(Request(run, paths, **request)))


def section(card: str, title: str) -> str:
    match = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#|\Z)", card, re.DOTALL | re.MULTILINE)
    assert match is not None, title
    return match[2]


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.parent.name)
def test_committed_cards_are_rendered_from_the_committed_files(card: Path, tmp_path: Path) -> None:
    text = card.read_text(encoding="utf-8")
    command = text.rstrip().rpartition("<!-- python -m model_cards.card ")[2].removesuffix(" -->")
    words = [str(ROOT / word) if (ROOT / word).exists() else word for word in shlex.split(command)]
    done = CliRunner().invoke(APP, [*words, "-o", str(tmp_path / "README.md")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == text
    for name in re.findall(r"\]\((figures/[\w.]+)\)", text):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
        assert (card.parent / name).read_bytes().startswith(b"\x89PNG")


def test_there_is_a_committed_card_with_right_metadata() -> None:
    assert CARDS
    for card in CARDS:
        assert find_card_problems(card.read_text(encoding="utf-8")) == []


def test_without_results_every_figure_is_not_measured(run: Path, tmp_path: Path) -> None:
    card = card_of(run, tmp_path)
    assert "Quality: not measured." in card
    assert section(card, "Results").rstrip().endswith("Not measured.")
    for name in ("Reasoning quality", "Known failure classes"):
        assert section(card, name).strip() == "Not measured."
    assert "| XSTest | not measured | not measured | not measured |" in section(card, "Over-refusal")
    assert "| ToxicChat | not measured | 64.46 |" in section(card, "Beside published models")
    assert "On benchmarks: not measured." in section(card, "Calibration")
    assert "| evaluation, hours | not measured |" in section(card, "Environmental cost")
    assert "| energy and emissions | not measured |" in card
    assert "How well it judges refusal was not measured" in section(card, "Limitations")
    assert "model-index" not in card


def test_an_empty_record_is_not_recorded(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "run.json").unlink()
    (run / "calibration.json").unlink()
    card = card_of(run, tmp_path)
    assert section(card, "Data").count("not recorded") == 7
    assert "| git commit | not recorded |" in section(card, "Configuration")
    assert "not recorded" in section(card, "Curves")
    assert "| training, hours | not recorded |" in card
    assert "Fit on the validation split: not recorded." in card
    assert "Its scores are calibrated" not in card
    assert collect(Request(run)).plots == {}


def test_results_carry_n_interval_mode_scorer_and_unjudged(run: Path, tmp_path: Path) -> None:
    rows = {
        "ToxicChat": {"task": "request", "unjudged": 3},
        "XSTestResponseRefusal": {"task": "completion", "n": 100, "available": 449},
        "HarmBenchPrompt": {"task": "request", "trained_on": True},
    }
    card = card_of(run, tmp_path, results(sha256_of_run(run), benchmarks=rows))
    table = section(card, "Results")
    assert (
        "| ToxicChat | prompt harmfulness | verdict | strict | 200 | 75.0 [68.0, 81.0] | 80.0 [75.0, 85.0] "
        "| 70.0 [60.0, 80.0] | 10.0 [6.0, 15.0] | undefined | 3 (1.5%) |"
    ) in table
    assert "| XSTestResponseRefusal | refusal | verdict | strict | 100 of 449 |" in table
    assert "| HarmBenchPrompt \\* | prompt" in table
    assert "The model was trained on this benchmark" in table
    assert f"weights {sha256_of_run(run)[:12]}, verdict mode, engine ctranslate2, strict scorer, [95%" in table
    beside = section(card, "Beside published models")
    assert "| HarmBenchPrompt \\* | 75.0 [68.0, 81.0] | 82.27 |" in beside
    assert "GuardReasoner 8B (published)" in beside
    assert "**not measured here**" in beside
    assert "figures/published.png" in beside
    limits = section(card, "Limitations")
    assert "It was trained on texts of HarmBenchPrompt." in limits
    worst = (
        "on ToxicChat, the only unseen benchmark (verdict mode, 200 items), it missed 30.0 [20.0, 40.0]% of the risky"
    )
    assert worst in limits
    assert "Average F1 of the unseen benchmarks below, verdict mode: prompt harmfulness 70.0 [60.0, 80.0]%" in card


def test_training_data_configuration_and_cost_come_from_the_record(run: Path, tmp_path: Path) -> None:
    card = card_of(run, tmp_path)
    assert "| WildGuardTrain | ODC-BY-1.0 | 3000 | 300 | 7 |" in section(card, "Data")
    assert "Left out: 12 showings of items of more than 360 tokens." in card
    configuration = section(card, "Configuration")
    assert "| recipe: learning_rate | 0.0005 |" in configuration
    assert "| adapter: target_modules | q_proj; v_proj |" in configuration
    assert "| 20 | request | 50 | 0.84 | 0.83 | 0.9 |" in section(card, "Curves")
    assert "| training, hours | 0.5 |" in card
    assert "datasets:\n- allenai/wildguardmix\n" in card


def test_an_earlier_round_is_told_and_its_hours_are_counted(tmp_path: Path) -> None:
    first = {"recipe": {"learning_rate": 0.002}, "steps": 720, "tokens": 5, "hours": 1.5, "commit": "abc"}
    run = make_run(tmp_path / "run", started_from={"weights_sha256": "0" * 64, "run": first})
    card = card_of(run, tmp_path)
    configuration = section(card, "Configuration")
    assert "| first round's recipe: learning_rate | 0.002 |" in configuration
    assert "| first round: steps | 720 |" in configuration
    assert "| first round: hardware | not recorded |" in configuration
    assert "| training, hours | 2 |" in card


def test_failures_and_reasoning_are_shown(run: Path, tmp_path: Path) -> None:
    rate = {"value": 0.4, "low": 0.3, "high": 0.5, "count": 20, "of": 50}
    errors = {
        "model": {"sha256": sha256_of_run(run)},
        "slices": {},
        "work_list": [
            {"slice": "a | b", "kind": "miss", "rate": rate, "elsewhere": 0.1, "advice": "Train on more of <them>."}
        ],
    }
    quality = {"all": {"reasoned": 90, "shares": {"follows": rate, "complete": {"value": None, "low": 0, "high": 0}}}}
    others = {"all": {"reasoned": 80, "shares": {"follows": {"value": 0.9, "low": 0.8, "high": 0.95}}}}
    reasoning = {
        "weights": {"guard (think)": sha256_of_run(run)},
        "sources": {"authors, 1B": others, "guard (think)": quality},
        "reading_of_polarity": {},
    }
    card = card_of(run, tmp_path, errors, reasoning)
    row = "| a \\| b | miss | 20 / 50 | 40.0 [30.0, 50.0] | 10.0 | Train on more of &lt;them>. |"
    assert row in section(card, "Known failure classes")
    assert "| verdict follows from the last steps | 40.0 [30.0, 50.0] | 90.0 [80.0, 95.0] |" in section(
        card, "Reasoning quality"
    )
    assert "of the verdicts whose last steps can be read, 40.0 [30.0, 50.0]% follow" in section(card, "Limitations")


def test_hostile_texts_are_shown(run: Path, tmp_path: Path) -> None:
    assert "Not measured." in section(card_of(run, tmp_path), "Hostile texts")
    figures = {
        "verdicts changed, normalised": 0.25,
        "harmful ones missed, normalised": 0.125,
        "harmful ones missed, as it is": None,
    }
    names = ("Base64, think mode", "other languages, verdict mode")
    trials = [{"name": name, "tried": 8, "failed": None, "figures": figures} for name in names]
    record = {"promise": "None.", "trials": trials, "weights": sha256_of_run(run)}
    card = card_of(run, tmp_path, record)
    assert "| Base64, think mode | 8 | 25.0 | 12.5 | - |" in section(card, "Hostile texts")
    assert "it misses 12% in other languages (8 of them, verdict mode)" in section(card, "Limitations")


def test_a_worst_benchmark_is_chosen_among_the_runs_on_most_items(run: Path, tmp_path: Path) -> None:
    sha, bad, good = sha256_of_run(run), {"f1": [0.2, 0.1, 0.3]}, {"f1": [0.9, 0.8, 0.95]}
    sample = results(sha, mode="think", benchmarks={"ToxicChat": {"task": "request", "n": 20, "metrics": bad}})
    rows = {"ToxicChat": {"task": "request", "metrics": good}, "SimpleSafetyTests": {"task": "request"}}
    limits = section(card_of(run, tmp_path, sample, results(sha, benchmarks=rows)), "Limitations")
    assert "on SimpleSafetyTests, of 2 unseen benchmarks the worst (verdict mode, 200 items)" in limits


def test_averages_of_different_items_are_not_to_be_compared(run: Path, tmp_path: Path) -> None:
    sha, rows = sha256_of_run(run), {"ToxicChat": {"task": "request"}}
    both = [results(sha, mode=mode, benchmarks=rows) for mode in ("verdict", "think")]
    assert "cannot be compared" not in card_of(run, tmp_path, *both)
    both[1]["averages_unseen"]["request"]["n"] = 100
    assert "their averages cannot be compared" in card_of(run, tmp_path, *both)


def test_a_decision_about_other_weights_is_not_shown_as_this_models(run: Path, tmp_path: Path) -> None:
    write(run / "decision.json", decision("1" * 64))
    assert "**Gate before publication:** not recorded (the decision is about other weights, 111111111111)." in card_of(
        run, tmp_path
    )


def test_another_model_stands_beside_and_stays_out_of_the_metadata(run: Path, tmp_path: Path) -> None:
    ours = write(tmp_path / "a.json", results(sha256_of_run(run), benchmarks={"ToxicChat": {"task": "request"}}))
    other = results("1" * 64, benchmarks={"ToxicChat": {"task": "request"}, "SafeRLHF": {"task": "response"}})
    card = render(collect(Request(run, [ours], [write(tmp_path / "b.json", other)])))
    assert "| SafeRLHF, model guard | response harmfulness |" in card
    assert "PKU-Alignment/PKU-SafeRLHF" not in card


def test_the_benchmark_that_decided_leads(run: Path, tmp_path: Path) -> None:
    write(run / "decision.json", decision(sha256_of_run(run)))
    rows = {"SafeRLHF": {"task": "response"}, "ToxicChat": {"task": "request"}}
    card = card_of(run, tmp_path, results(sha256_of_run(run), benchmarks=rows))
    assert "ToxicChat, prompt harmfulness, verdict mode, 200 items: accuracy 80.0 [75.0, 85.0]%, F1 75.0" in card
    assert "SafeRLHF, response" not in card


def test_the_gate_and_why_it_was_passed_over_are_printed(run: Path, tmp_path: Path) -> None:
    write(run / "decision.json", decision(sha256_of_run(run), "continue training"))
    assert "**Gate before publication:** continue training. The accuracy on ToxicChat is 80.0%" in card_of(
        run, tmp_path
    )
    card = card_of(run, tmp_path, override="the paper's tables need it")
    assert "Published all the same, because: the paper's tables need it" in card
    write(run / "decision.json", {**decision(sha256_of_run(run)), "cautions": ["this is a sample."]})
    assert "on 200 items. But this is a sample.\n" in card_of(run, tmp_path)


def test_a_reason_cannot_break_out_of_the_cards_comment(run: Path) -> None:
    with pytest.raises(InputError, match="must not hold two dashes"):
        Request(run, override="because --> of <script>")


def test_a_llama_card_shows_what_its_licence_asks_for(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", base="meta-llama/Llama-3.2-3B-Instruct")
    card = card_of(run, tmp_path)
    assert "license: llama3.2" in card
    assert "**Built with Llama**" in card
    assert "Llama 3.2 is licensed under the Llama 3.2 Community License" in card


def test_both_papers_are_cited_with_their_authors(run: Path, tmp_path: Path) -> None:
    citation = section(card_of(run, tmp_path), "Licence and citation")
    assert "Liu, Yue" in citation
    assert "arXiv:2501.18492" in citation
    assert "Sreedhar, Makesh Narsimhan and Rebedea, Traian and Parisien, Christopher" in citation
    assert "arXiv:2505.20087" in citation


def test_the_same_files_give_the_same_card_and_plots(run: Path, tmp_path: Path) -> None:
    files = [write(tmp_path / "a.json", results(sha256_of_run(run), benchmarks={"ToxicChat": {"task": "request"}}))]
    first, second = collect(Request(run, files)), collect(Request(run, files))
    assert render(first) == render(second)
    assert {name: plot.png for name, plot in first.plots.items()} == {
        name: plot.png for name, plot in second.plots.items()
    }
    assert set(first.plots) == {"training.png", "published.png"}


def test_the_last_line_gives_the_request_back(run: Path, tmp_path: Path) -> None:
    ours = write(tmp_path / "a.json", results(sha256_of_run(run), benchmarks={"ToxicChat": {"task": "request"}}))
    # Paths are written from the checkout's root, of files elsewhere the name only.
    request = Request(
        run, [ours], (), write(tmp_path / "d.json", decision(sha256_of_run(run))), "team/guard", "A guard"
    )
    write_card(collect(request), run / "README.md")
    found = last_request(run)
    assert (found.run, found.results, found.decision) == (run, (CHECKOUT / "a.json",), CHECKOUT / "d.json")
    assert (found.repo_id, found.name, found.version, found.override) == ("team/guard", "A guard", None, None)
    assert last_request(EMBEDDED).command in (EMBEDDED / "README.md").read_text(encoding="utf-8")


def test_a_run_without_a_card_names_no_files(run: Path) -> None:
    with pytest.raises(InputError, match="no results: pass --results"):
        last_request(run)


def test_the_command_takes_several_files_after_one_option(run: Path, tmp_path: Path) -> None:
    rows = {"ToxicChat": {"task": "request"}}
    files = [
        str(write(tmp_path / f"{mode}.json", results(sha256_of_run(run), mode=mode, benchmarks=rows)))
        for mode in ("verdict", "think")
    ]
    done = CliRunner().invoke(APP, [str(run), "--results", *files, "-o", str(tmp_path / "out" / "README.md")])
    assert done.exit_code == 0, done.output
    assert {"think", "verdict"} <= set(re.findall(r"ToxicChat \| prompt harmfulness \| (\w+)", done_text(tmp_path)))


def done_text(tmp_path: Path) -> str:
    return (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_an_error_is_one_sentence_with_exit_code_2(tmp_path: Path) -> None:
    done = CliRunner().invoke(APP, [str(tmp_path / "none")])
    assert done.exit_code == 2
    assert "error: there is no run folder" in done.output
