"""The cache: folders that are built once, by one process at a time, and what the SHA-256 of a file was.

<cache>/smollm2-135m-b179c9523d0e/    a complete entry: entries are renamed into place when they are done
<cache>/.smollm2-135m-b179c9523d0e~*  one being built, or left by a process that died; the next build removes it
<cache>/.smollm2-135m-b179c9523d0e.lock
<cache>/.verified/                    what a file's SHA-256 was, and by what it would show that it was changed
<entry>/manifest.json                 SHA-256 of every file of an entry that was made here; not of what has a known one

Nothing here is trusted for lying here: a base model must have the hash that the source names, all else the hashes that
it had when it was built. A file is not read again for that as long as its size, its times of modification and of change
(which programs cannot set), its inode and its device are what they were. What this does not notice is a disk that
returns other bytes than were written, and somebody who may write to this folder and rewrites the notes as well;
:func:`forget_hashes` makes the next look read everything.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from guardreasoner_moderation.errors import InputError, WeightsError

_MANIFEST = "manifest.json"
_LOCK_NOTICE_SECONDS = 2.0
_TICK = 20_000_000  # nanoseconds; two changes within a tick of the system's clock leave the same times


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


def cached_entry(
    key: str,
    build: Callable[[Path], None],
    *,
    valid: Callable[[Path], bool] | None = None,
    needed: int | None = None,
) -> Path:
    """The folder ``cache_dir() / key``, built first where it is missing; by one process at a time.

    Args:
        key: the folder's name: letters, digits, ``_``, ``-`` and dots.
        build: fills the empty folder it is given, which is renamed to ``key`` when it returns.
        valid: whether an entry that is there can be used; one that cannot is removed and built anew. When left out,
            an entry is given a manifest, and can be used as long as its files are those that were built.
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
    usable = valid or _is_whole
    with _storing_in(root, needed):
        if usable(entry):
            return entry
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root / f".{key}.lock", entry):
            if usable(entry):
                return entry
            if entry.exists():  # renamed first, so that no half-removed entry is ever there to be trusted
                entry.replace(root / f".{key}~invalid-{uuid.uuid4().hex[:8]}")
            for dead in root.glob(f".{key}~*"):  # whoever began these would hold the lock if it lived
                shutil.rmtree(dead, ignore_errors=True)
            staging = root / f".{key}~{uuid.uuid4().hex[:8]}"
            staging.mkdir()
            try:
                build(staging)
                hashes = _write_manifest(staging) if valid is None else {}
                for path in (*staging.rglob("*"), staging):
                    _flush(path)
                staging.replace(entry)
                _flush(root)
                for name, digest in hashes.items():
                    _remember(entry / name, digest, _traits(entry / name))
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    return entry


def known_sha256(path: Path) -> str:
    """A file's SHA-256, remembered for as long as nothing shows that the file was changed.

    Reading 100 MB takes 0.1 to 0.3 s, which is as long as loading the embedded model.
    """
    seen = _traits(path)
    with suppress(OSError, ValueError):  # none, or one cut short: then it does not match
        known, _, then = _note_of(path).read_text(encoding="ascii").partition(" ")
        if then == seen:
            return known
    digest = read_sha256(path)
    _remember(path, digest, seen)
    return digest


def forget_hashes() -> None:
    """Makes :func:`known_sha256` read every file again."""
    shutil.rmtree(cache_dir() / ".verified", ignore_errors=True)


def read_sha256(path: Path) -> str:
    """A file's SHA-256, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _remember(path: Path, digest: str, seen: str) -> None:
    """Notes the hash of a file that looked like ``seen`` before it was read; unless a change might not show."""
    if _traits(path) != seen or time.time_ns() - path.stat().st_ctime_ns < _TICK:
        return
    note = _note_of(path)
    with suppress(OSError):  # a cache that cannot be written only costs the time to read the file again
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(f"{digest} {seen}", encoding="ascii")


def _note_of(path: Path) -> Path:
    return cache_dir() / ".verified" / hashlib.sha256(os.fsencode(path.absolute())).hexdigest()


def _traits(path: Path) -> str:
    """By what it shows that a file was changed or replaced."""
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino} {status.st_dev}"


def _write_manifest(folder: Path) -> dict[str, str]:
    """Writes the SHA-256 of each file of a folder, by its path there, into the folder; returns them too."""
    hashes = {name: read_sha256(folder / name) for name in _files_below(folder)}
    (folder / _MANIFEST).write_text(json.dumps(hashes, indent=1), encoding="utf-8")
    return hashes


def _is_whole(entry: Path) -> bool:
    """Whether the files of an entry are those that its manifest names."""
    try:
        hashes = json.loads((entry / _MANIFEST).read_text(encoding="utf-8"))
        return bool(hashes == {name: known_sha256(entry / name) for name in _files_below(entry)})
    except (OSError, ValueError, RecursionError):  # missing or damaged
        return False


def _files_below(folder: Path) -> list[str]:
    """Paths of all files but the manifest."""
    files = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    return sorted(path.relative_to(folder).as_posix() for path in files if path != folder / _MANIFEST)


def tell(line: str) -> None:
    """Writes a line to stderr, if there is one."""
    if sys.stderr is not None:  # None in programs without a console
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


@contextmanager
def _locked(lock_file: Path, entry: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=_LOCK_NOTICE_SECONDS)
    except Timeout:
        tell(f"waiting for another process that is preparing {entry}")
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
