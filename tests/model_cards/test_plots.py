from __future__ import annotations

from pathlib import Path

import pytest
from example_cards import make_run, results, sha256_of_run, write

from model_cards.plots import draw_ablations, draw_published, draw_training, moving_means
from model_cards.record import read_record
from model_cards.results import read_evidence


def test_means_are_of_the_last_ten_and_of_fewer_at_the_beginning() -> None:
    values = [float(number) for number in range(30)]
    means = moving_means(values)
    assert len(means) == 30
    assert means[:3] == [0.0, 0.5, 1.0]
    assert means[-1] == pytest.approx(sum(range(20, 30)) / 10)


def test_the_curves_are_a_png_and_told_in_words(tmp_path: Path) -> None:
    plot = draw_training(read_record(make_run(tmp_path / "run")))
    assert plot is not None
    assert plot.png.startswith(b"\x89PNG")
    assert plot.alt.startswith("Training loss from 4.00 to 2.55 over 20 steps")


def test_no_losses_no_curves(tmp_path: Path) -> None:
    assert draw_training(read_record(make_run(tmp_path / "run", losses=[]))) is None


def test_looks_without_a_figure_are_no_hindrance(tmp_path: Path) -> None:
    looks = [{"step": 10, "request": {"n": 5, "accuracy": 1.0, "f1": 1.0, "auprc": None}}, {"step": 20, "loss": 0.5}]
    assert draw_training(read_record(make_run(tmp_path / "run", validation=looks))) is not None


def test_published_models_are_drawn_where_there_is_something_to_compare(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")

    def drawn(name: str) -> object:
        content = results(sha256_of_run(run), benchmarks={name: {"task": "request", "trained_on": True}})
        return draw_published(read_evidence([write(tmp_path / "r.json", content)], sha256_of_run(run)))

    assert drawn("Own") is None
    assert drawn("ToxicChat") is not None


def test_the_ablations_are_drawn_of_the_cells_that_are_there() -> None:
    verdict = {"f1": [0.7, 0.6, 0.8], "auprc": [0.8, 0.7, 0.9]}
    cell = {"kind": "sft", "think_share": 0.5, "items": 500, "epochs": 1, "learning_rate": 0.0, "verdict": verdict}
    more = {**cell, "items": 0, "verdict": {"f1": [0.9, 0.8, 1.0], "auprc": [1.0, 1.0, 1.0]}}
    about = {"training_items": 2494, "recipe": {"learning_rate": 5e-4}}
    apart = {"labels": {"kind": "sft", "think_share": 0.0}, "again": {"kind": "difficult", "think_share": 0.5}}

    def drawn(**cells: object) -> bytes:
        return draw_ablations({"about": about, "cells": cells}).png

    assert drawn(few=cell).startswith(b"\x89PNG")
    assert drawn(few=cell) != drawn(few=cell, all=more)
    assert drawn(few=cell) == drawn(few=cell, **apart)
