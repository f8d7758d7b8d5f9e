"""A real browser on the demo's real page, for the tests of its tabs."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PATIENCE = 60_000  # milliseconds; a busy machine draws a page slowly
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def need_demo() -> None:
    """Skips the test where the extra ``demo`` is not installed; nothing is imported into the process of the tests."""
    if importlib.util.find_spec("gradio") is None or importlib.util.find_spec("mcp") is None:
        pytest.skip("the extra demo is not installed: pip install '.[demo]'")


@contextlib.contextmanager
def served(*command: str) -> Iterator[str]:
    """Starts a process that prints the address of the page, and ends it."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            address = next((line for line in map(find_address, process.stdout) if line), None)
            assert address, f"{command} ended without an address"
            yield address
        finally:
            process.terminate()


def find_address(line: str) -> str | None:
    """The address of the page, if a line of output holds it."""
    found = re.search(r"http://127\.0\.0\.1:\d+/", line)
    return found and found[0]


def served_by_script(pace: float) -> contextlib.AbstractContextManager[str]:
    """The page with a guard that takes ``pace`` seconds for a word."""
    return served(sys.executable, str(Path(__file__).with_name("paced_guard.py")), str(pace))


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """The machine's own Chromium; the test is skipped where there is none."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install '.[browser]'"
    )
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if found is None:
        pytest.skip(f"there is no browser here; looked for {', '.join(_BROWSERS)}")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"], timeout=PATIENCE)
        yield browser
        browser.close()


def opened(browser: Browser, address: str, *, width: int = 1200, dark: bool = False) -> Page:
    """A new page of the demo, which is ready to be used."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", accept_downloads=True
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.get_by_role("button", name="Judge", exact=True).wait_for()
    return page
