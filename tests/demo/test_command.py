"""The command and the Space's file as a user starts them: the real process, the real embedded model."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browsing import need_demo, opened, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytest_plugins = ["page_fixtures"]

ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, "-m", "guardreasoner_moderation.cli", "demo"]
SPACE = [sys.executable, str(ROOT / "app.py")]


def run(*arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code] if code else [*DEMO, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.usefixtures("embedded")  # which fetches it
@pytest.mark.parametrize("command", [[*DEMO, "--port", "7841"], SPACE], ids=["command", "space"])
def test_the_embedded_model_judges_on_the_page_without_a_network(
    command: list[str], browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_demo()
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "7842")
    with served(*command) as address:
        page = opened(browser, address)
        page.get_by_role("button", name="Harmful request").click()
        page.locator("#verdict .gm-steps").wait_for()
        page.locator("#verdict .gm-cost").wait_for()
        shown = page.locator("#verdict").inner_text()
        page.context.close()
    assert "Flagged" in shown
    assert "embedded" in shown


def test_a_model_that_is_not_there_is_one_sentence() -> None:
    need_demo()
    done = run("--model", "embeded")
    assert done.returncode == 2
    assert "did you mean 'embedded'" in done.stderr


def test_a_port_in_use_is_one_sentence() -> None:
    need_demo()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--port", str(port))
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1, port {port}" in done.stderr


@pytest.mark.parametrize("missing", ["gradio", "mcp"])
def test_a_missing_extra_is_the_pip_line(missing: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['guardreasoner', 'demo']\n"
        "from guardreasoner_moderation.cli import main; main()"
    )
    done = run(code=code)
    assert done.returncode == 2
    assert "pip install 'guardreasoner-moderation[demo]'" in done.stderr


def test_importing_the_demo_loads_no_gradio() -> None:
    code = "import sys, guardreasoner_moderation.demo; sys.exit('gradio' in sys.modules)"
    assert run(code=code).returncode == 0
