"""Fixtures that the browser tests share; a test module names this file in ``pytest_plugins``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from browsing import chromium, need_demo, opened, served_by_script

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


# Not for the whole session: while Playwright's loop is there no other test can run one of its own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """The page with a guard that takes its time."""
    need_demo()
    with served_by_script(0.06) as found:
        yield found


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    found = opened(browser, address)
    yield found
    found.context.close()
