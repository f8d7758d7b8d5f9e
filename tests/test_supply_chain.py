"""What a deployment is made of: no pickles, no code of others, pinned weights, a cache that can be trusted."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import pickle
import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cache_processes import start, tiny_base_file
from conftest import leftovers
from test_checkpoint import write_lora
from test_weights import build_wheel

import guardreasoner_moderation
from guardreasoner_moderation import Moderator, UnsafeModelError, WeightsError, weights
from guardreasoner_moderation.hub import fetch_repository
from guardreasoner_moderation.models import converted, prepare, weights_sha256

ROOT = Path(__file__).parents[1]
PACKAGE = Path(guardreasoner_moderation.__file__).parent
SOURCES = [
    file for folder in (PACKAGE, *(ROOT / name for name in ("training", "evaluation", "model_cards", "texts")))
    for file in sorted(folder.rglob("*.py"))
]  # fmt: skip


def calls_of(file: Path) -> Iterator[tuple[str, ast.Call]]:
    """Each call in a file, with the dotted name of what is called."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_trust_remote_code_is_never_set() -> None:
    loaders = []
    for file in SOURCES:
        for name, call in calls_of(file):
            given = {word.arg: word.value for word in call.keywords}
            if "trust_remote_code" in given:
                value = given["trust_remote_code"]
                assert isinstance(value, ast.Constant), f"{file}, line {call.lineno}"
                assert value.value is False, f"{file}, line {call.lineno}"
            elif name.rpartition(".")[0].rpartition(".")[2].startswith("Auto") and PACKAGE in file.parents:
                loaders.append(f"{file}, line {call.lineno}: {name}")  # would ask at the terminal
        tree = ast.parse(file.read_text(encoding="utf-8"))
        keys = [key for node in ast.walk(tree) if isinstance(node, ast.Dict) for key in node.keys]
        assert not [key for key in keys if isinstance(key, ast.Constant) and key.value == "trust_remote_code"], file
    assert loaders == []


def test_nothing_that_reads_pickles_or_runs_text_is_called() -> None:
    forbidden = {"pickle", "joblib", "shelve", "marshal", "dill", "cloudpickle"}
    between_own_processes = PACKAGE / "engines" / "worker_process.py"  # through a pipe that nobody else has
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
            found = forbidden & {name.partition(".")[0] for name in names}
            assert not found or (found == {"pickle"} and file == between_own_processes), file
        for name, call in calls_of(file):
            given = {word.arg: ast.unparse(word.value) for word in call.keywords}
            assert name not in ("eval", "exec", "yaml.load_all", "yaml.unsafe_load"), f"{file}, line {call.lineno}"
            assert name != "yaml.load" or ast.unparse(call.args[1]) == "Loader", f"{file}, line {call.lineno}"
            assert given.get("allow_pickle", "False") == "False", f"{file}, line {call.lineno}"
            if name == "torch.load":  # a training run's own checkpoints
                assert given.get("weights_only") == "True", f"{file}, line {call.lineno}"
                assert PACKAGE not in file.parents, f"{file}, line {call.lineno}"


class Evil:
    """A pickle that makes a file when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt", "adapter_model.pkl"])
def test_a_pickled_adapter_is_refused_unread(tiny_adapter: Path, tmp_path: Path, name: str) -> None:
    folder, mark = tmp_path / "adapter", tmp_path / "was read"
    shutil.copytree(tiny_adapter, folder)
    (folder / "adapter_model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Evil(mark)))
    with pytest.raises(UnsafeModelError, match=f"{name}, a pickle, which can run code when it is read. Ask its author"):
        Moderator.from_pretrained(folder)
    assert not mark.exists()


@pytest.mark.parametrize("as_base", [False, True])
def test_a_pickled_model_is_refused_unread(tiny_base: Path, tiny_adapter: Path, tmp_path: Path, as_base: bool) -> None:
    folder, mark = tmp_path / "model", tmp_path / "was read"
    shutil.copytree(tiny_base, folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(mark)))
    with pytest.raises(UnsafeModelError, match=r"pytorch_model\.bin, a pickle"):
        Moderator.from_pretrained(tiny_adapter if as_base else folder, base=folder if as_base else None)
    assert not mark.exists()


def test_code_that_comes_with_a_model_is_not_run_and_nobody_is_asked(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: Any) -> str:
        raise AssertionError("somebody was asked")

    monkeypatch.setattr("builtins.input", asked)
    folder, mark = tmp_path / "model", tmp_path / "was run"
    shutil.copytree(tiny_base, folder)
    (folder / "modeling.py").write_text(f"open({str(mark)!r}, 'w')\nclass Config: pass\nclass Model: pass\n")
    config = json.loads((folder / "config.json").read_text())
    names = {"AutoConfig": "modeling.Config", "AutoModelForCausalLM": "modeling.Model"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "of-its-own", "auto_map": names}))
    with pytest.raises(UnsafeModelError, match="needs code that comes with it, and such code is never run here"):
        Moderator.from_pretrained(folder)
    assert not mark.exists()


def test_every_base_is_pinned_by_version_and_hashes() -> None:
    for base in weights.BASES.values():
        assert base.version
        assert base.size > 0
        assert all(len(bytes.fromhex(digest)) == 32 for digest in (base.sha256, base.wheel_sha256))


# The cache


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A LoRA adapter of the tiny base."""
    folder = tmp_path / "adapter"
    write_lora(folder, "mlp.up_proj", (64, 32))
    (folder / "moderation.json").write_text(json.dumps({"prompt_format": "compact", "base": "tiny"}))
    return folder


def change_a_byte(file: Path) -> None:
    """In place; size and time of modification stay."""
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.usefixtures("tiny_weights")
@pytest.mark.parametrize("name", ["model.bin", "tokenizer.json", "engine.json", "config.json", "manifest.json"])
def test_a_changed_byte_of_a_converted_model_is_noticed_and_it_is_made_anew(adapter: Path, name: str) -> None:
    entry = converted(adapter, weights_sha256(adapter), base="tiny")
    whole = {file.name: file.read_bytes() for file in entry.iterdir()}
    change_a_byte(entry / name)
    assert converted(adapter, weights_sha256(adapter), base="tiny") == entry
    assert {file.name: file.read_bytes() for file in entry.iterdir()} == whole


@pytest.mark.usefixtures("tiny_weights")
def test_a_file_too_many_or_too_few_in_a_converted_model_is_noticed(adapter: Path) -> None:
    entry = converted(adapter, weights_sha256(adapter), base="tiny")
    names = {file.name for file in entry.iterdir()}
    (entry / "vocabulary.txt").touch()
    (entry / "config.json").unlink()
    converted(adapter, weights_sha256(adapter), base="tiny")
    assert {file.name for file in entry.iterdir()} == names


@pytest.mark.usefixtures("tiny_weights")
def test_a_converted_model_is_not_read_again_as_long_as_nothing_shows_a_change(
    adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    converted(adapter, weights_sha256(adapter), base="tiny")
    time.sleep(0.05)  # what changed a moment ago is not noted: another change might leave the same times
    entry = converted(adapter, weights_sha256(adapter), base="tiny")
    read: list[Path] = []
    monkeypatch.setattr("guardreasoner_moderation.cache.read_sha256", lambda path: read.append(path) or "")
    assert converted(adapter, weights_sha256(adapter), base="tiny") == entry
    assert read == []


def test_pull_reads_everything_again(tiny_weights: str, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = prepare(str(adapter))
    read: list[str] = []
    honest = guardreasoner_moderation.cache.read_sha256
    monkeypatch.setattr(
        "guardreasoner_moderation.cache.read_sha256", lambda path: read.append(path.name) or honest(path)
    )
    assert prepare(str(adapter)) == entry
    assert "model.bin" in read


def test_a_changed_file_in_the_hubs_cache_is_refused(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the Hub's client lays it out: snapshots/COMMIT/FILE links to blobs/SHA-256."""
    content = b"weights"
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    blob = blobs / hashlib.sha256(content).hexdigest()
    blob.write_bytes(content)
    (snapshot / "model.safetensors").symlink_to(blob)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(snapshot))
    assert fetch_repository("owner/name") == snapshot
    change_a_byte(blob)
    with pytest.raises(WeightsError, match=r"model\.safetensors is not what the Hub sent any more. Delete .*blobs"):
        fetch_repository("owner/name")


# In real processes


def environment_of(cache: Path, **more: str) -> dict[str, str]:
    return {"GUARDREASONER_CACHE": str(cache), **more}


def answer_of(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text())
    return content


@pytest.fixture
def reference(tiny_gguf: Path, adapter: Path, tmp_path: Path) -> dict[str, Any]:
    """What a process that nobody disturbs finds."""
    environment = environment_of(tmp_path / "undisturbed", GUARDREASONER_BASE=str(tiny_gguf))
    process = start(environment, tiny_base_file(tiny_gguf), adapter, tmp_path / "reference.json")
    process.join(120)
    return answer_of(tmp_path / "reference.json")


def test_two_processes_at_once_on_an_empty_cache_both_work(
    tiny_gguf: Path, adapter: Path, tmp_path: Path, reference: dict[str, Any]
) -> None:
    environment = environment_of(tmp_path / "cache", GUARDREASONER_BASE=str(tiny_gguf))
    base = tiny_base_file(tiny_gguf)
    processes = [start(environment, base, adapter, tmp_path / f"{number}.json") for number in range(2)]
    for process in processes:
        process.join(120)
    assert {process.exitcode for process in processes} == {0}
    assert {answer_of(tmp_path / f"{number}.json")["score"] for number in range(2)} == {reference["score"]}
    assert len(leftovers(tmp_path / "cache")) == 1


def test_a_conversion_killed_at_any_moment_leaves_nothing_that_is_trusted(
    tiny_gguf: Path, adapter: Path, tmp_path: Path, reference: dict[str, Any]
) -> None:
    base = tiny_base_file(tiny_gguf)
    killed = 0
    for step in range(0, reference["steps"], max(1, reference["steps"] // 8)):
        cache = tmp_path / f"cache {step}"
        environment = environment_of(cache, GUARDREASONER_BASE=str(tiny_gguf))
        unfinished = tmp_path / f"{step} killed.json"
        process = start(environment, base, adapter, unfinished, step)
        process.join(120)
        # Some runs have fewer operations, and end before this one: what changed a moment ago is not noted as read.
        assert unfinished.exists() == (process.exitcode != -9)
        killed += process.exitcode == -9
        process = start(environment, base, adapter, tmp_path / f"{step}.json")
        process.join(120)
        assert process.exitcode == 0
        assert answer_of(tmp_path / f"{step}.json")["score"] == reference["score"]
        assert len(leftovers(cache)) == 1, "what the dead process left is still there"
    assert killed >= 5


@pytest.fixture
def stalling_index(tiny_gguf: Path, tmp_path: Path) -> Iterator[tuple[str, Path, threading.Event, threading.Event]]:
    """A package index that sends half of a wheel and waits: its address, the wheel, "half is sent", "send all"."""
    wheel = tmp_path / "tiny_base-1.0-py3-none-any.whl"
    build_wheel(wheel, {"tiny_base/tiny.gguf": tiny_gguf.read_bytes()})
    content = wheel.read_bytes()
    half, whole = threading.Event(), threading.Event()

    class Index(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(200)
            if not self.path.endswith(".whl"):
                page = f'<!DOCTYPE html><html><body><a href="/{wheel.name}">{wheel.name}</a></body></html>'.encode()
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)
                return
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            half.set()
            whole.wait(60)
            self.wfile.write(content[len(content) // 2 :])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/simple", wheel, half, whole
    whole.set()
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_killed_download_leaves_nothing_that_is_trusted(
    tiny_gguf: Path,
    adapter: Path,
    tmp_path: Path,
    reference: dict[str, Any],
    stalling_index: tuple[str, Path, threading.Event, threading.Event],
) -> None:
    address, wheel, half, whole = stalling_index
    cache = tmp_path / "cache"
    environment = environment_of(
        cache, GUARDREASONER_BASE="", PIP_INDEX_URL=address, PIP_CONFIG_FILE=os.devnull, PIP_NO_INDEX="0", NO_PROXY="*"
    )
    base = tiny_base_file(tiny_gguf, wheel)
    process = start(environment, base, adapter, tmp_path / "never.json")
    assert half.wait(60), "pip asked for no wheel"
    process.kill()
    process.join(60)
    assert process.exitcode == -9
    whole.set()
    process = start(environment, base, adapter, tmp_path / "answer.json")
    process.join(120)
    assert process.exitcode == 0
    assert answer_of(tmp_path / "answer.json")["score"] == reference["score"]
    assert len([name for name in leftovers(cache) if not name.startswith(".")]) == 2
    assert not (tmp_path / "never.json").exists()
