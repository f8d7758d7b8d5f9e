from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from example_runs import bench, item, make_run, said

from evaluation.curve_points import main


def read(file: Path) -> list[dict[str, object]]:
    return list(json.loads(file.read_text(encoding="utf-8"))["curves"])


def test_points_of_a_hand_worked_case(tmp_path: Path) -> None:
    scores = {1: 0.9, 2: 0.8, 3: 0.4, 4: 0.4}
    items = [item(number, number in (1, 3)) for number in scores]
    run = make_run(tmp_path / "run", (bench(items), lambda one: said(scores[int(one.id.rpartition("/")[2])])))
    main([run], tmp_path / "curves.json")
    (curve,) = read(tmp_path / "curves.json")
    assert {name: curve[name] for name in ("model", "mode", "benchmark", "task", "n")} == {
        "model": "guard",
        "mode": "verdict",
        "benchmark": "Mini",
        "task": "request",
        "n": 4,
    }
    assert curve["precision_recall"] == [[0.0, 1.0], [0.5, 1.0], [0.5, 0.5], [1.0, 0.5]]
    bins = curve["calibration"]
    assert isinstance(bins, list)
    assert [(one["score"], one["count"], one["of"]) for one in bins] == [(0.4, 1, 2), (0.8, 0, 1), (0.9, 1, 1)]
    assert all(one["low"] <= one["value"] <= one["high"] for one in bins)


def test_a_benchmark_of_one_label_has_no_curve(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", (bench([item(number, True) for number in range(3)]), lambda one: said(0.7)))
    main([run], tmp_path / "curves.json")
    assert read(tmp_path / "curves.json") == []


def test_no_text_of_an_item_is_written(tmp_path: Path) -> None:
    items = [item(number, number % 2 == 0, prompt=f"secret words {number}") for number in range(4)]
    run = make_run(tmp_path / "run", (bench(items), lambda one: said(0.3)), keep_text=True)
    main([run], tmp_path / "curves.json")
    assert "secret" not in (tmp_path / "curves.json").read_text(encoding="utf-8")


def test_a_folder_that_is_no_run_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as left:
        main([tmp_path / "nothing"], tmp_path / "curves.json")
    assert left.value.exit_code == 2
    assert "there is no folder" in capsys.readouterr().err
