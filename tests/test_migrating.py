"""docs/migrating.md: its blocks are run in order, as a reader would, and print what the page says."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from evaluation import run
from guardreasoner_moderation import weights
from guardreasoner_moderation.server.openai_moderations import OPENAI_KEYS_OF

PAGE = (Path(__file__).parents[1] / "docs" / "migrating.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(<!-- before -->\n)?^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def commands() -> list[list[str]]:
    """Of the shell blocks, as words."""
    return [
        shlex.split(line) for _, kind, text in BLOCKS if kind == "sh" for line in text.replace("\\\n", "").splitlines()
    ]


@pytest.fixture
def address() -> Iterator[str]:
    """Of a server that was started with the page's command, on a port that is free."""
    (words,) = [words for words in commands() if words[:2] == ["guardreasoner", "serve"]]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "guardreasoner_moderation.cli", *words[1:-1], port]
    base = {"GUARDREASONER_BASE": str(weights.base_file("smollm2-135m"))}
    with subprocess.Popen(command, env={**os.environ, **base}, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(600):
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5).close()
                    break
                assert server.poll() is None, "the server ended"
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()


def test_the_blocks_print_what_the_page_says(address: str) -> None:
    pytest.importorskip("openai")
    names: dict[str, Any] = {}
    told = 0
    for (before, kind, text), (_, following, expected) in zip(BLOCKS, [*BLOCKS[1:], ("", "", "")], strict=True):
        if kind != "python" or before:
            continue
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(text.replace("http://localhost:8000/v1", address), names)
        assert following == "text", f"what does this print?\n{text}"
        assert said.getvalue() == expected
        told += 1
    names["client"].close()
    names["guard"].close()
    assert told == 5


def test_the_command_that_chooses_a_threshold(tmp_path: Path) -> None:
    (words,) = [words for words in commands() if words[:3] == ["python", "-m", "evaluation.run"]]
    rows = ["text,label", *(f"How do I bake bread number {n}?,unharmful" for n in range(4))]
    rows += [f"How do I rob bank number {n} and hurt the guard?,harmful" for n in range(4)]
    (tmp_path / "mine.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    app = typer.Typer()
    app.command()(run.main)
    placed = [str(tmp_path / word) if word in ("mine.csv", "runs/mine") else word for word in words[3:]]
    done = CliRunner().invoke(app, placed)
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "runs" / "mine" / "results.json").read_text())["benchmarks"]


def test_the_categories_are_mapped_as_the_server_maps_them() -> None:
    table = PAGE.partition("<!-- categories -->\n")[2].partition("<!-- end of categories -->")[0]
    rows = [f"| `{here}` | {', '.join(f'`{key}`' for key in keys)} |" for here, keys in OPENAI_KEYS_OF.items()]
    assert table.splitlines()[2:] == rows
