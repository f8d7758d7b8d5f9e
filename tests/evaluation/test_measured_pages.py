import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.measured_pages import PAGES, RESULTS, SECTIONS, rendered
from guardreasoner_moderation.errors import InputError

ABOUT = {"hardware": "2 x Some CPU", "versions": {"python": "3.11.7"}}
SPEED = {
    **ABOUT,
    "start": {"import": 0.0612},
    "latency": {"verdict, short": {side: {"p50": 0.1, "p95": 0.2} for side in ("ours", "transformers")}},
    "throughput": {
        f"{mode}, batch 32": {"ours": {"items_per_second": rate}, "transformers": {"items_per_second": 1.0}}
        for mode, rate in (("verdict", 10.0), ("think", 2.5))
    },
    "peak_mb_one_by_one": {"ours": 500, "transformers": 2000},
    "peak_mb_with_batches": {"ours": 900, "transformers": 2000},
    "limits": {
        "peaks": {"float_gflops": 100.0, "int8_gops": 200.0, "read_gbs": 20.0},
        "verdict": {"gop": 40.0, "least_seconds": 0.05, "share_of_peak": 0.5},
        "token": {"gigabytes": 0.135, "seconds": 0.01, "least_seconds": 0.005, "share_of_peak": 0.5},
    },
}
for row in (*SPEED["latency"].values(), *SPEED["throughput"].values()):
    row["ratio"] = {"transformers": 2.0}


def page(name: str) -> str:
    return f"Before.\n<!-- measured: {name} -->\nold\n<!-- end of measured -->\nAfter.\n"


def shown(tmp_path: Path, name: str, figures: dict[str, Any]) -> str:
    (tmp_path / SECTIONS[name].file).write_text(json.dumps(figures), encoding="utf-8")
    return rendered(page(name), tmp_path)


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_committed_pages_are_what_the_committed_figures_make(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert "<!-- measured: " in text
    assert rendered(text) == text


def test_every_section_stands_in_a_page() -> None:
    text = "".join(file.read_text(encoding="utf-8") for file in PAGES)
    assert [name for name in SECTIONS if f"<!-- measured: {name} -->" not in text] == []
    assert all(section.file.endswith(".json") for section in SECTIONS.values())
    assert RESULTS.is_dir()


def test_what_was_not_measured_is_said_with_the_command(tmp_path: Path) -> None:
    text = rendered(page("auto mode"), tmp_path)
    assert text.startswith(
        "Before.\n<!-- measured: auto mode -->\nNot measured; to do so: `python -m evaluation.auto_mode"
    )
    assert text.endswith("<!-- end of measured -->\nAfter.\n")
    assert "old" not in text


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("start", "| import | 0.06 |"),
        ("latency", "| verdict, short | 0.100 / 0.200 s | 0.100 / 0.200 s | 2.00 |"),
        ("throughput", "| think, batch 32 | 2.50 items/s | 1.00 items/s | 2.00 |"),
        ("memory", "| one text at a time | 500 MB | 2,000 MB | 0.25 |"),
        ("limits", "float gflops 100, int8 gops 200, read gbs 20."),
        ("rates", "| `verdict` | 10.00 | 27.8 h |"),
    ],
)
def test_speed_is_shown_with_where_it_comes_from(tmp_path: Path, name: str, line: str) -> None:
    text = shown(tmp_path, name, SPEED)
    assert line in text
    assert "`evaluation/results/speed.json`: 2 x Some CPU, python 3.11.7." in text


def test_guarded_streams_that_stop_nothing_have_no_share_before_the_stop(tmp_path: Path) -> None:
    none, some = {"count": 0, "of": 10}, {"count": 5, "of": 10}
    row = {
        "harmful": {"stopped": none, "released_where_stopped": None, "released": {"mean": 1.0}},
        "unharmful": {"stopped": some},
        "seconds_to_first_piece": {"p50": 0.2, "p95": 0.4},
        "seconds_per_piece": None,
    }
    figures = {**ABOUT, "weights_sha256": "ab" * 32, "responses": 20, "split": "validation", "every": {"sentence": row}}
    text = shown(tmp_path, "guarding", figures)
    assert "| sentence | 0.0 [0.0, 27.8] | - | 100.0 | 50.0 [23.7, 76.3] | 0.200 / 0.400 s | - |" in text
    assert "weights abababababab, 2 x Some CPU" in text


def test_auto_mode_stands_beside_the_other_modes(tmp_path: Path) -> None:
    row = {
        "reasoned": {"count": 1, "of": 10},
        "accuracy": {"count": 9, "of": 10},
        "f1": 0.9,
        "seconds": {"mean": 0.25, "p95": 1.5},
    }
    figures = {
        **ABOUT,
        "items": 10,
        "split": "validation",
        "bounds": [0.2, 0.8],
        "modes": {"auto": row},
        "computed": [{"bounds": [0.4, 0.6], **row}],
    }
    text = shown(tmp_path, "auto mode", figures)
    assert "| `auto` | 10.0 [1.8, 40.4] | 90.0 | 90.0 [59.6, 98.2] | 0.250 | 1.500 |" in text
    assert "| `auto`, 0.4 to 0.6, computed | 10.0" in text
    assert "`auto` with the bounds 0.2 to 0.8." in text


def test_unknown_sections_and_damaged_files_are_errors_that_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown section 'latenci' of measured; did you mean 'latency'"):
        rendered(page("latenci"), tmp_path)
    (tmp_path / "speed.json").write_text("{}", encoding="utf-8")
    with pytest.raises(
        InputError, match=r"speed\.json cannot be shown \(KeyError: 'start'\); run python -m evaluation\.speed"
    ):
        rendered(page("start"), tmp_path)
