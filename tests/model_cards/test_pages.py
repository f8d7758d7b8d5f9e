from __future__ import annotations

from pathlib import Path

import pytest
from example_cards import EMBEDDED, ROOT, results, write

from guardreasoner_moderation.models import weights_sha256
from model_cards import pages
from model_cards.card import collect


@pytest.fixture(scope="module")
def rendered() -> dict[Path, bytes]:
    return pages.render_pages()


def test_committed_pages_are_rendered_from_the_committed_files(rendered: dict[Path, bytes]) -> None:
    texts = [page for page in rendered if page.suffix != ".png"]  # other versions of matplotlib draw other bytes
    changed = [str(page.relative_to(ROOT)) for page in texts if page.read_bytes() != rendered[page]]
    assert changed == [], "run make pages"


def test_plots_of_cards_are_committed(rendered: dict[Path, bytes]) -> None:
    plots = [page for page in rendered if page.suffix == ".png"]
    assert len(plots) >= 2
    assert all(plot.read_bytes().startswith(b"\x89PNG") for plot in plots)


def test_cards_tables_and_the_demos_figures_are_among_them(rendered: dict[Path, bytes]) -> None:
    names = {page.relative_to(ROOT).as_posix() for page in rendered}
    package = "guardreasoner_moderation"
    assert names >= {
        "model_cards/README.md",
        f"{package}/adapters/smollm2-135m/README.md",
        f"{package}/demo/figures.json",
    }


def test_the_zero_shot_baseline_stands_in_the_cards_table_once_it_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = EMBEDDED / "README.md"
    monkeypatch.setattr(pages, "ZERO_SHOT", tmp_path / "zero_shot.verdict.json")
    before = pages.request_of(card)
    measured = results("f" * 64, benchmarks={"ToxicChat": {"task": "request"}})
    measured["model"]["name"] = "smollm2-135m-zero-shot"
    write(tmp_path / "zero_shot.verdict.json", measured)
    after = pages.request_of(card)
    assert after.beside == (*before.beside, tmp_path / "zero_shot.verdict.json")
    shown = collect(after)
    assert "ToxicChat, model smollm2-135m-zero-shot" in [row[0] for row in shown.results]
    assert "threshold 0.5" in shown.notes[-1]


def test_hostile_texts_are_asked_for_if_they_were_tried_on_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card, file = EMBEDDED / "README.md", tmp_path / "hostile_text.json"
    monkeypatch.setattr(pages, "HOSTILE_TEXT", file)
    plain = [one for one in pages.request_of(card).results if one.name != file.name]
    write(file, {"weights": "f" * 64})
    assert file not in pages.request_of(card).results
    write(file, {"weights": weights_sha256(EMBEDDED)})
    assert [*plain, file] == [one for one in pages.request_of(card).results if one.name != file.name or one == file]


def test_the_command_writes_what_changed_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old.md"
    old.write_bytes(b"old")
    monkeypatch.setattr(pages, "render_pages", lambda: {old: b"old", tmp_path / "figures" / "new.png": b"new"})
    pages.main()
    assert (tmp_path / "figures" / "new.png").read_bytes() == b"new"
    assert capsys.readouterr().out == "same     old.md\nchanged  new.png\n"
