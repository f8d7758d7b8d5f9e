from __future__ import annotations

from pathlib import Path

import pytest
from example_cards import ROOT

from model_cards import pages


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


def test_the_command_writes_what_changed_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old.md"
    old.write_bytes(b"old")
    monkeypatch.setattr(pages, "render_pages", lambda: {old: b"old", tmp_path / "figures" / "new.png": b"new"})
    pages.main()
    assert (tmp_path / "figures" / "new.png").read_bytes() == b"new"
    assert capsys.readouterr().out == "same     old.md\nchanged  new.png\n"
