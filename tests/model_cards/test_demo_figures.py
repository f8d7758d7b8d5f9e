from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import typer

from model_cards.demo_figures import main, render_figures
from model_cards.reading import ROOT


def test_only_the_published_figures_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()
    shutil.copy(ROOT / "evaluation" / "published.json", tmp_path / "evaluation")
    figures = json.loads(render_figures(tmp_path))
    assert figures["runs"] == {}
    assert figures["curves"] == []
    assert figures["published"]["f1"]
    assert {claim["outcome"] for claim in figures["claims"]} == {"not tested"}


def test_a_damaged_results_file_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "evaluation" / "results").mkdir(parents=True)
    (tmp_path / "evaluation" / "results" / "run.json").write_text("[", encoding="utf-8")
    with pytest.raises(typer.Exit):
        main(tmp_path / "figures.json", tmp_path)
    assert "is not JSON" in capsys.readouterr().err
