"""The quick part of :mod:`reliability.bad_input`: some inputs of each surface that needs no model."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from guardreasoner_moderation.errors import InputError
from reliability import bad_input
from reliability.bad_input import SURFACES, main
from reliability.record import Record
from reliability.surface import ACCEPTED, BrokenPromiseError, Surface, Try, try_surface

QUICK = {"calls of Moderator, with an engine without a model": 150, "bytes over a socket": 10}


@pytest.mark.parametrize(
    "surface", [one for one in SURFACES if "embedded" not in one.name], ids=lambda surface: surface.name
)
def test_each_input_is_judged_or_refused_with_an_error_of_ours(surface: Surface, tmp_path: Path) -> None:
    outcome = try_surface(surface, tmp_path, inputs=QUICK.get(surface.name, 100), seed=1)
    assert outcome.failures == []
    assert outcome.outcomes.total() == outcome.tried


def test_ten_thousand_inputs_twice_over_are_tried_in_a_whole_run() -> None:
    assert sum(surface.inputs for surface in SURFACES) >= 20_000


@contextmanager
def misbehaving(_: Path) -> Iterator[Try]:
    def attempt(dice: random.Random) -> str:
        kind = dice.choice(("fine", "refused", "traceback", "hang", "promise"))
        if kind == "refused":
            raise InputError("not this")
        if kind == "traceback":
            raise KeyError("of a dependency")
        if kind == "hang":
            time.sleep(60)
        if kind == "promise":
            raise BrokenPromiseError("rows were lost")
        return ACCEPTED

    yield attempt


def test_tracebacks_hangs_and_broken_promises_count_as_failed(tmp_path: Path) -> None:
    outcome = try_surface(Surface("odd", misbehaving, 10, seconds=0.05), tmp_path, inputs=40, seed=3)
    kinds = {failure.split(": ")[1] for failure in outcome.failures}
    assert kinds == {"KeyError", "OutOfTimeError", "BrokenPromiseError"}
    assert outcome.outcomes["failed"] == len(outcome.failures) < 40
    assert outcome.trial("odd").failed == len(outcome.failures)


def test_the_same_seed_draws_the_same_inputs(tmp_path: Path) -> None:
    surface = Surface("odd", misbehaving, 10, seconds=0.05)
    assert len({tuple(try_surface(surface, tmp_path, inputs=5, seed=7).failures) for _ in range(2)}) == 1


def test_the_command_writes_one_row_a_surface_and_keeps_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine = [surface for surface in SURFACES if surface.name in ("moderation.json", "training recipes")]
    monkeypatch.setattr(bad_input, "SURFACES", fine)
    app = typer.Typer()
    app.command()(main)
    out = tmp_path / "record.json"
    for word in ("moderation", "recipes"):
        done = CliRunner().invoke(app, ["--only", word, "--inputs", "5", "--out", str(out)])
        assert done.exit_code == 0, done.output
    assert [trial.name for trial in Record.load(out).trials] == [surface.name for surface in fine]
    assert json.loads(out.read_text())["notes"] == ["Drawn with the seed 0.", "10 inputs in all."]
