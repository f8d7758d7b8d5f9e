"""The folder of the Space: the demo ``app.py`` as it is in the checkout, what it needs, and a page with its metadata.

``space/files.txt`` lists what goes there besides, as patterns from the root of the checkout. The package itself is
among it, so that the Space runs the code it was released with.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from importlib import metadata
from pathlib import Path

from guardreasoner_moderation.cache import read_sha256
from guardreasoner_moderation.errors import InputError
from model_cards.bundle import MANIFEST, list_files
from model_cards.card import environment
from model_cards.reading import ROOT
from model_cards.record import Licence

FILES = Path(__file__).with_name("space") / "files.txt"
APP = "app.py"


def write_space(folder: Path, repo_id: str, title: str, licence: Licence, *, root: Path = ROOT) -> Path:
    """Writes the Space's folder anew.

    Args:
        folder: to write; one that is there must be empty or an earlier one.
        repo_id: of the model that it shows.
        title: of its page.
        licence: of the model.
        root: of the checkout.

    Raises:
        InputError: the checkout has no ``app.py``, or lacks something that the Space needs.
    """
    app = root / APP
    if not app.is_file():
        raise InputError(f"there is no {APP} in {root}: the Space is this demo; release without --space")
    if folder.exists() and any(folder.iterdir()) and not (folder / MANIFEST).exists():
        raise InputError(f"{folder} holds something else than a Space; pass another --out")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as name:
        staging = Path(name) / folder.name
        staging.mkdir()
        for file in (app, *_listed(root)):
            copy = staging / file.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        (staging / "requirements.txt").write_text("".join(f"{one}\n" for one in requirements()), encoding="utf-8")
        page = environment().get_template("space.md.jinja")
        text = page.render(title=title, repo_id=repo_id, licence=licence, sdk_version=_version("gradio"))
        (staging / "README.md").write_text(f"{text.rstrip()}\n", encoding="utf-8")
        manifest = {"model": repo_id, "files": {path: read_sha256(file) for path, file in list_files(staging).items()}}
        (staging / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        staging.rename(folder)
    return folder


def requirements() -> list[str]:
    """What the package and its extra ``demo`` need on this platform.

    Raises:
        InputError: the package is not installed, so nothing tells.
    """
    from packaging.requirements import Requirement

    try:
        declared = metadata.requires("guardreasoner-moderation") or []
    except metadata.PackageNotFoundError as exc:
        raise InputError("install the checkout first (pip install -e .): the Space's requirements are its own") from exc
    needed = []
    for requirement in map(Requirement, declared):
        if requirement.marker is None or requirement.marker.evaluate({"extra": "demo"}):
            requirement.marker = None
            needed.append(str(requirement))
    return sorted(needed)


def _listed(root: Path) -> list[Path]:
    files = []
    for line in FILES.read_text(encoding="utf-8").splitlines():
        pattern = line.partition("#")[0].strip()
        if pattern:
            found = [file for file in sorted(root.glob(pattern)) if file.is_file() and "__pycache__" not in file.parts]
            if not found:
                raise InputError(f"{FILES.name}: nothing in {root} is {pattern!r}")
            files += found
    return files


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
