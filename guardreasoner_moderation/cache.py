"""The cache: folders that are built once, by one process at a time, and what the SHA-256 of a file was.

<cache>/smollm2-135m-b179c9523d0e/    a complete entry: entries are renamed into place when they are done
<cache>/.smollm2-135m-b179c9523d0e~*  one being built, or left by a process that died; the next build removes it
<cache>/.smollm2-135m-b179c9523d0e.lock
<cache>/.verified/                    what a file's SHA-256 was, at which size and modification time
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from guardreasoner_moderation.errors import InputError, WeightsError

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


def known_sha256(path: Path) -> str:
    """A file's SHA-256, remembered for as long as its size and modification time stay: reading 100 MB takes 0.2 s."""
    status = path.stat()
    seen = f"{status.st_size} {status.st_mtime_ns}"
    stamp = cache_dir() / ".verified" / hashlib.sha256(os.fsencode(path.absolute())).hexdigest()
    with suppress(OSError, ValueError):  # none, or one cut short: then it does not match
        known, _, when = stamp.read_text(encoding="ascii").partition(" ")
        if when == seen:
            return known
    digest = read_sha256(path)
    with suppress(OSError):  # a cache that cannot be written only costs the time to read the file again
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(f"{digest} {seen}", encoding="ascii")
    return digest


def read_sha256(path: Path) -> str:
    """A file's SHA-256, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


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
