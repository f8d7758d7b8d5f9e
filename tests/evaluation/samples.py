"""What several tests of the evaluation share: files of their own, and the folder of the public ones."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]


def public_data() -> Path:
    """The folder of the public benchmarks, which only the tests on published figures need."""
    folder = Path(os.environ.get("GUARDREASONER_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "benchmarks").is_dir():
        pytest.skip("no benchmark files; set GUARDREASONER_DATA to their folder")
    return folder


def write_lines(file: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Writes a JSONL file and returns its path."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file
