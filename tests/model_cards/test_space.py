from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from example_cards import ROOT
from hub_server import find_errors
from packaging.requirements import Requirement

from guardreasoner_moderation.errors import InputError
from model_cards.record import find_licence
from model_cards.space import FILES, requirements, write_space

LICENCE = find_licence("HuggingFaceTB/SmolLM2-135M-Instruct")
LLAMA = find_licence("meta-llama/Llama-3.2-3B-Instruct")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a demo, and with what the Space needs besides."""
    root = tmp_path / "checkout"
    for name in ("app.py", "guardreasoner_moderation/__init__.py", "guardreasoner_moderation/adapters/a/x.safetensors"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    (root / "guardreasoner_moderation" / "__pycache__").mkdir()
    (root / "guardreasoner_moderation" / "__pycache__" / "x.pyc").write_text("")
    (root / "private.jsonl").write_text("")
    return root


def test_the_space_holds_the_demo_and_the_package_and_nothing_else(checkout: Path, tmp_path: Path) -> None:
    folder = write_space(tmp_path / "space", "team/guard", "guard demo", LICENCE, root=checkout)
    files = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert files == {
        "README.md",
        "app.py",
        "guardreasoner_moderation/__init__.py",
        "guardreasoner_moderation/adapters/a/x.safetensors",
        "release.json",
        "requirements.txt",
    }
    assert set(json.loads((folder / "release.json").read_text())["files"]) == files - {"release.json"}


def test_its_page_has_the_metadata_that_a_space_needs(checkout: Path, tmp_path: Path) -> None:
    folder = write_space(tmp_path / "space", "team/Llama-guard", "guard demo", LLAMA, root=checkout)
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert find_errors(page, "space") == []
    data = yaml.safe_load(re.split(r"^---$", page, flags=re.MULTILINE)[1])
    assert (data["title"], data["sdk"], data["app_file"]) == ("guard demo", "gradio", "app.py")
    assert (data["license"], data["models"]) == ("llama3.2", ["team/Llama-guard"])
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {data["colorFrom"], data["colorTo"]} <= colours
    assert "**Built with Llama**" in page


def test_requirements_are_the_packages_own_with_the_demos() -> None:
    names = {Requirement(one).name for one in requirements()}
    assert {"ctranslate2", "tokenizers", "huggingface-hub", "gradio"} <= names
    assert not {"torch", "pytest", "fastapi"} & names
    assert not [one for one in requirements() if "extra" in one]


def test_without_a_demo_the_error_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"there is no app\.py in .*: the Space is this demo; release without --space"):
        write_space(tmp_path / "space", "team/guard", "guard demo", LICENCE, root=tmp_path / "empty")


def test_a_pattern_without_files_is_an_error(checkout: Path, tmp_path: Path) -> None:
    shutil.rmtree(checkout / "guardreasoner_moderation")
    with pytest.raises(InputError, match=r"files\.txt: nothing in .* is 'guardreasoner_moderation/\*\*/\*'"):
        write_space(tmp_path / "space", "team/guard", "guard demo", LICENCE, root=checkout)


def test_a_folder_of_something_else_is_never_removed(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "space").mkdir()
    (tmp_path / "space" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds something else than a Space"):
        write_space(tmp_path / "space", "team/guard", "guard demo", LICENCE, root=checkout)


def test_what_is_listed_is_in_this_checkout() -> None:
    patterns = [line for line in FILES.read_text().splitlines() if line and not line.startswith("#")]
    assert all(any(ROOT.glob(pattern)) for pattern in patterns)
