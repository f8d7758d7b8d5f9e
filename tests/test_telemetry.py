"""Nothing is reported to anybody: not by this package, nor by what it starts."""

from __future__ import annotations

import os
import re
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from guardreasoner_moderation.telemetry import SWITCHES, switch_off

ROOT = Path(__file__).parents[1]
CHECK = """
import os, sys
{call}
from guardreasoner_moderation.telemetry import SWITCHES
print({{name: os.environ.get(name) for name in SWITCHES}} == dict(SWITCHES))
{then}
"""


def without_switches() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in SWITCHES}


def test_a_switch_that_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SWITCHES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    switch_off()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"


@pytest.mark.parametrize(
    ("call", "then"),
    [
        (
            "from guardreasoner_moderation.demo import require_extra\nrequire_extra()",
            "from gradio import analytics\nassert not analytics.analytics_enabled()",
        ),
        (
            "from guardreasoner_moderation.hub import fetch_repository\n"
            "try: fetch_repository('owner/name')\nexcept Exception: pass",
            "from huggingface_hub import constants\nassert constants.HF_HUB_DISABLE_TELEMETRY",
        ),
        (
            "from guardreasoner_moderation.batch.cluster import RayRunner\n"
            "try: RayRunner(lambda: None, 'embedded')\nexcept ImportError: pass",
            "",
        ),
        (
            "from pathlib import Path\nfrom guardreasoner_moderation.engines.vllm import VllmEngine\n"
            "try: VllmEngine(Path('x'))\nexcept ImportError: pass",
            "",
        ),
    ],
    ids=["gradio", "hub", "ray", "vllm"],
)
def test_a_library_that_would_report_is_told_not_to_before_it_is_imported(call: str, then: str) -> None:
    code = CHECK.format(call=call, then=then)
    environment = {**without_switches(), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split()) == (0, ["True"]), done.stderr


@pytest.fixture
def listener() -> Iterator[tuple[str, list[bytes]]]:
    """A proxy that only listens: its address, and what anybody has asked of it."""
    asked: list[bytes] = []
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            while not ended.is_set():
                if select.select([server], [], [], 0.1)[0]:
                    connection, _ = server.accept()
                    with connection:
                        connection.settimeout(2)
                        asked.append(connection.recv(200))

        thread = threading.Thread(target=listen)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", asked
        ended.set()
        thread.join()


@pytest.mark.usefixtures("embedded")
def test_the_demo_reaches_for_no_other_host(listener: tuple[str, list[bytes]], tmp_path: Path) -> None:
    address, asked = listener
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"), address)
    environment = {**without_switches(), **proxies, "NO_PROXY": "127.0.0.1,localhost", "HF_HUB_OFFLINE": "0"}
    environment["no_proxy"] = environment["NO_PROXY"]
    with (tmp_path / "log").open("wb") as log:
        command = [sys.executable, "-m", "guardreasoner_moderation.cli", "demo"]
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + 120
            while not (found := re.search(r"http://127\.0\.0\.1:\d+", (tmp_path / "log").read_text())):
                assert process.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.2)
            assert httpx.get(found[0]).status_code == 200
            time.sleep(2)  # what reports in the background has begun by now
        finally:
            process.terminate()
            process.wait(60)
    assert asked == []
