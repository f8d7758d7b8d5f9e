"""SECURITY.md names, for each promise, tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def test_every_test_that_the_page_names_is_there() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| **")]
    assert len(rows) >= 12
    for row in rows:
        named = re.findall(r"`(tests/[\w/.]+)?(?:::(\w+))?`", row.split("|")[-2])
        file = None
        for path, name in named:
            file = ROOT / path if path else file
            if file is None:
                continue
            assert file.exists(), path
            assert not name or f"def {name}(" in file.read_text(encoding="utf-8"), name
        assert file is not None, row


def test_every_module_of_ours_that_holds_a_switch_or_a_hash_is_told() -> None:
    for word in ("GUARDREASONER_BASE", "base_sha256", "guardreasoner pull", "make audit", "revision="):
        assert word in PAGE
