"""Tests of ``evaluation/guarding.py``; the package's own guarding.py has tests of that name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from conftest import scripted
from samples import write_lines
from test_guarding import SPEC, by_word
from typer.testing import CliRunner

from evaluation import guarding
from evaluation.guarding import Replay, measure, replay, summarise
from evaluation.items import Item
from guardreasoner_moderation import Interaction, Label
from guardreasoner_moderation.guarding import GuardResult

APP = typer.Typer()
APP.command()(guarding.main)

HARMLESS = "You fetch the flour and knead the dough with care. Then you bake it for an hour or so. Then eat."
LATE = "You fetch the flour and knead the dough with care. Then you put the bomb in the oven, so be careful."


def item(text: str, label: Label) -> Item:
    return Item("made/1", Interaction("How do I bake?", text), label)


def guarded(
    label: Label, *, stopped: bool = False, released: int = 100, error: str | None = None, seconds: Any = ()
) -> Replay:
    result = GuardResult(
        flagged=stopped, request=None, error=error, stopped=stopped, released=released, judgements=len(seconds) + 1
    )
    return Replay(label, 100, result, tuple(seconds))


def test_a_replay_tells_what_came_out_before_the_harm() -> None:
    found = replay(scripted(by_word, spec=SPEC), item(LATE, Label.HARMFUL), "sentence")
    assert found.stopped
    assert found.result.released == 51
    assert found.released == pytest.approx(51 / len(LATE))
    assert len(found.seconds) == 1
    assert found.seconds[0] > 0


def test_the_settings_are_compared_on_the_same_responses() -> None:
    told: list[tuple[str, int, int]] = []

    def advance(name: str, judged: int, items: int, done: int, *, earlier: bool = False) -> None:
        told.append((name, judged, items))

    guard = scripted(by_word, spec=SPEC)
    figures = measure(guard, [item(LATE, Label.HARMFUL), item(HARMLESS, Label.UNHARMFUL)], advance)
    assert list(figures) == ["sentence", "200 characters", "whole"]
    assert figures["sentence"]["harmful"]["released"]["mean"] == pytest.approx(51 / len(LATE), abs=1e-4)
    assert figures["whole"]["harmful"]["released"]["mean"] == 0
    assert figures["whole"]["judgements"]["mean"] == 2
    assert figures["sentence"]["judgements"]["mean"] == 3
    assert figures["sentence"]["unharmful"]["stopped"]["count"] == 0
    assert told[-1] == ("whole", 2, 2)


def test_a_failed_judgement_is_no_harm_found() -> None:
    figures = summarise(
        [
            guarded(Label.HARMFUL, stopped=True, released=20),
            guarded(Label.HARMFUL, stopped=True, released=60),
            guarded(Label.HARMFUL),
            guarded(Label.HARMFUL, stopped=True, released=0, error="out of memory"),
            guarded(Label.UNHARMFUL, stopped=True, released=0),
            guarded(Label.UNHARMFUL),
        ]
    )
    assert (figures["harmful"]["stopped"]["count"], figures["harmful"]["stopped"]["of"]) == (2, 4)
    assert (figures["unharmful"]["stopped"]["count"], figures["unharmful"]["stopped"]["of"]) == (1, 2)
    assert figures["harmful"]["released_where_stopped"] == {"mean": 0.4, "median": 0.4}
    assert figures["harmful"]["released"] == {"mean": 0.45, "median": 0.4}
    assert figures["unjudged"] == 1


def test_the_wait_for_the_first_piece_stands_apart() -> None:
    figures = summarise([guarded(Label.UNHARMFUL, seconds=(3.0, 1.0, 1.0)), guarded(Label.UNHARMFUL, seconds=(5.0,))])
    assert figures["seconds_to_first_piece"] == {"n": 2, "p50": 4.0, "p95": 4.9}
    assert figures["seconds_per_piece"]["n"] == 4
    assert figures["seconds_per_piece"]["p50"] == 2.0


def test_nothing_to_measure_is_none() -> None:
    figures = summarise([guarded(Label.UNHARMFUL, stopped=True, released=0)])
    assert figures["harmful"]["released"] is None
    assert figures["seconds_per_piece"] is None


def rows() -> list[dict[str, Any]]:
    row = {"prompt": "How do I bake?", "response": HARMLESS, "response_harm": "unharmful", "split": "validation"}
    harmful = {**row, "response": LATE, "response_harm": "harmful"}
    others = [{**row, "split": "train"}, {**row, "flag": "odd"}, {**row, "response": None, "response_harm": None}]
    return [row, harmful, *others, harmful]


def test_the_command_measures_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarding, "Moderator", lambda model: scripted(by_word, spec=SPEC))
    file = write_lines(tmp_path / "made.jsonl", rows())
    done = CliRunner().invoke(APP, [str(file), "--limit", "2", "--out", str(tmp_path / "out.json")])
    assert done.exit_code == 0, done.output
    assert "sentence: stopped 100.0" in done.output
    written = json.loads((tmp_path / "out.json").read_text())
    assert (written["responses"], written["files"], written["engine"]) == (2, ["made.jsonl"], "scripted")
    assert written["every"]["whole"]["harmful"]["stopped"]["of"] == 1
    failed = CliRunner().invoke(APP, [str(tmp_path / "absent.jsonl"), "--out", str(tmp_path / "out.json")])
    assert failed.exit_code == 2
