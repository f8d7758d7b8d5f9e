"""Runs on tiny models, killed a few times; ``reliability.training_kills`` is the long form."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from reliability import training_kills
from reliability.record import Trial
from reliability.training_kills import Trainer, kills

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")

TINY_RSFT = """
import hashlib, os
from dataclasses import replace
from pathlib import Path

import typer

from guardreasoner_moderation import weights
from training import rsft

content = Path(os.environ["GUARDREASONER_BASE"]).read_bytes()
digest = hashlib.sha256(content).hexdigest()
base = replace(weights.BASES["smollm2-135m"], name="tiny", sha256=digest, size=len(content))
weights.BASES = {"tiny": base}
typer.run(rsft.main)
"""


@pytest.fixture
def packed(tiny_weights: str, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # a tiny model is slower with more
    return training_kills.rsft(tiny_weights, first_layer=1, command=(sys.executable, "-c", TINY_RSFT))


def check(trials: list[Trial], *, aimed: int) -> None:
    random, at_writing, losses = trials
    assert (random.failed, at_writing.failed, losses.failed) == (0, 0, 0)
    assert at_writing.tried == aimed
    assert losses.tried > 10


def test_a_killed_packed_run_goes_on_to_the_same_losses_and_adapter(packed: Trainer, tmp_path: Path) -> None:
    check(kills(packed, tmp_path, 2, 200), aimed=1)


def test_a_killed_run_on_trl_goes_on_to_the_same_losses_and_adapter(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    check(kills(training_kills.trl(str(tiny_base), "chat: true"), tmp_path, 2, 40), aimed=1)


def test_a_checkpoint_that_cannot_be_read_and_other_losses_are_found(packed: Trainer, tmp_path: Path) -> None:
    def spoil(out: Path) -> int:
        (out / "checkpoint.pt").write_bytes(b"half")
        return packed.step(out)

    other = Trainer(packed.name, packed.command, packed.recipe, spoil, packed.parts)
    with pytest.raises(RuntimeError, match=r"training\.rsft failed"):
        kills(other, tmp_path, 2, 200)
    assert training_kills._step(packed, tmp_path / "whole") > 0
    (tmp_path / "whole" / "best.pt").write_bytes(b"half")
    assert training_kills._step(packed, tmp_path / "whole") == -1
