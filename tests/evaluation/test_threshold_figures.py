from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from samples import write_lines

from evaluation import threshold_figures
from evaluation.items import Item
from evaluation.metrics import Outcomes, collect
from evaluation.threshold_figures import EXAMPLE, STEPS, TARGETS, choose_on_example, judge, main, render, summarise
from guardreasoner_moderation import Moderator
from guardreasoner_moderation.engines.scripted import ScriptedEngine
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.models import ModelSpec
from guardreasoner_moderation.prompts import PromptFormat
from guardreasoner_moderation.results import Label, Task

OUTCOMES = collect([True, False, True, False, True], [True, True, False, False, None], [0.9, 0.6, 0.4, 0.05, None])


def answers(harmful: str) -> Moderator:
    """A guard that finds a text harmful when it holds this word."""
    engine = ScriptedEngine(lambda prompt: f" {'harmful' if harmful in prompt.text else 'unharmful'}")
    return Moderator.from_engine(engine, ModelSpec(prompt_format=PromptFormat.COMPACT))


def row(
    prompt: str, request: str, completion: str | None = None, response_harm: str | None = None
) -> dict[str, object]:
    response = None if completion is None else f"About {prompt}"
    labels = {"request": request, "completion": completion, "response_harm": response_harm}
    return {"prompt": prompt, "response": response, "split": "validation", **labels}


def test_counts_are_of_the_items_that_reach_a_threshold() -> None:
    figures = summarise(OUTCOMES, resamples=20)
    assert (figures["risky"], figures["others"], figures["unjudged"]) == (2, 2, 1)
    counts = {threshold: (hits, alarms) for threshold, hits, alarms in figures["counts"]}
    assert len(counts) == STEPS - 1
    assert (counts[0.05], counts[0.06], counts[0.4], counts[0.5], counts[0.6], counts[0.61], counts[0.91]) == (
        *((2, 2), (2, 1), (2, 1), (1, 1), (1, 1), (1, 0), (0, 0)),
    )


def test_every_target_has_a_threshold_or_none() -> None:
    chosen = summarise(OUTCOMES, resamples=20)["chosen"]
    assert tuple(chosen) == TARGETS
    assert chosen["fpr=0.01"]["recall"][0] == 0.5
    certain = Outcomes(OUTCOMES.labels[:4], OUTCOMES.predictions[:4], OUTCOMES.labels[:4] * 0.0 + 1.0)
    assert summarise(certain, resamples=20)["chosen"]["fpr=0.01"] is None


def test_items_of_one_label_are_refused() -> None:
    with pytest.raises(InputError, match="items of both labels"):
        summarise(collect([True, True], [True, True], [0.9, 0.8]))


def test_scores_stand_at_their_items_places() -> None:
    texts = ["a rather long text about bombs", "bread", "bombs"]
    items = [Item(text, Interaction(text), Label.HARMFUL) for text in texts]
    assert judge(answers("bombs"), items, Task.REQUEST).predictions.tolist() == [1, 0, 1]


def test_the_command_writes_figures_and_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threshold_figures, "Moderator", lambda _: answers("bombs"))
    rows = [row("secret bombs", "harmful"), row("secret bread", "unharmful")]
    rows += [
        row("secret cars", "unharmful", "refusal", "unharmful"),
        row("secret guns", "harmful", "compliance", "harmful"),
    ]
    file = write_lines(tmp_path / "rows.jsonl", rows)
    monkeypatch.setattr(threshold_figures, "summarise", lambda outcomes: {"risky": int(outcomes.labels.sum())})
    main([file], tmp_path / "thresholds.json")
    content = (tmp_path / "thresholds.json").read_text(encoding="utf-8")
    figures = json.loads(content)
    assert "secret" not in content
    assert figures["tasks"] == {"request": {"risky": 2}, "completion": {"risky": 1}, "response": {"risky": 1}}
    assert figures["example"]["items"] == 40
    assert figures["files"] == ["rows.jsonl"]


def test_a_missing_file_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as left:
        main([tmp_path / "none.jsonl"], tmp_path / "thresholds.json")
    assert left.value.exit_code == 2
    assert "cannot be read" in capsys.readouterr().err


def test_the_example_is_told_as_the_evaluation_tells_it() -> None:
    with answers("a") as guard:
        assert choose_on_example(guard, EXAMPLE)["told"].startswith("threshold of request for fpr=0.1: ")


def test_what_is_rendered_is_json_with_a_line_for_each_entry() -> None:
    figures = {"model": "m", "tasks": {"request": {"risky": 1, "counts": [[0.5, 1, 0]]}, "response": {"risky": 2}}}
    assert json.loads(render(figures)) == figures
    assert len(render(figures).splitlines()) == 12
