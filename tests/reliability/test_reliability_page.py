from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from guardreasoner_moderation import ModerationError
from reliability import pages
from reliability.record import Record, Trial

PHASE: dict[str, Any] = {
    "share_of_capacity": 3.0,
    "seconds": 60.0,
    "requests": 100,
    "statuses": {"0": 1, "200": 70, "429": 20, "500": 4, "503": 5},
    "verdict_seconds": {"p50": 0.5, "p95": 0.6, "p99": 0.7, "max": 0.8},
    "refusals_without_retry_after": 2,
    "memory_mb": [100, 110, 120, 190, 140, 150],
}


def rendered(tmp_path: Path, *trials: Trial, name: str = "batch_faults", notes: tuple[str, ...] = ()) -> str:
    Record("Trials of files", "Nothing is lost.", "python -m x", trials, notes, {"python": "3"}, "2 cores").save(
        tmp_path / f"{name}.json"
    )
    return pages.render(tmp_path, tmp_path)


def test_the_committed_page_is_rendered_from_the_committed_files() -> None:
    assert pages.PAGE.read_text(encoding="utf-8") == pages.render(), "run make pages"


def test_a_record_is_a_table_with_its_promise_and_its_origin(tmp_path: Path) -> None:
    page = rendered(tmp_path, Trial("a fault", 1200, 3, {"rows lost": 2}), Trial("b|c", 5), notes=("A note.",))
    assert "## Trials of files\n\nNothing is lost.\n\n**3 of 1,200 failed.**\n" in page
    assert "| what | tried | failed | rows lost |\n|---|--:|--:|--:|\n| a fault | 1,200 | 3 | 2 |\n" in page
    assert "| b\\|c | 5 | - | - |\n\nA note.\n\n`python -m x`  \n2 cores, python 3.\n" in page


def test_shares_are_in_percent_and_seconds_counts_and_differences_are_not(tmp_path: Path) -> None:
    figures = {"changed": 0.045, "seconds until ready": 0.5, "twice": 1, "largest difference": 0.0004}
    page = rendered(tmp_path, Trial("a", 1, None, figures), Trial("b", 1, None, {"changed": 0}))
    assert "| a | 1 | - | 4.5% | 0.5 | 1 | 0.0004 |" in page
    assert "| b | 1 | - | 0.0% | - | - | - |" in page


def test_what_has_no_record_is_named_with_its_command(tmp_path: Path) -> None:
    page = pages.render(tmp_path, tmp_path)
    for section in (*pages.TRIALS, *pages.SERVER_LOADS):
        assert f"## {section.title}\n\nNot measured yet. This measures it:\n\n```sh\n{section.command}\n" in page


def test_a_record_of_another_name_is_shown_after_the_others(tmp_path: Path) -> None:
    page = rendered(tmp_path, Trial("a", 1), name="another")
    headings = re.findall("^## (.*)$", page, re.MULTILINE)
    assert headings.index("Trials of files") == len(pages.TRIALS)


def test_a_second_record_of_a_trial_is_shown_after_its_first(tmp_path: Path) -> None:
    headings = re.findall("^## (.*)$", rendered(tmp_path, Trial("a", 1), name="bad_input_long"), re.MULTILINE)
    assert headings[headings.index("Trials of files") - 1] == "Bad input"


def test_load_is_shown_with_its_statuses_its_times_and_its_memory(tmp_path: Path) -> None:
    content = {
        "throughput": {"clients": 32, "server_to_batch": 0.937},
        "phases": {"steady": {**PHASE, "verdict_seconds": None}, "overload": {**PHASE, "seconds_until_normal": 0.2}},
        "tokens": 200,
        "queue_seconds": 6.0,
        "versions": {},
        "hardware": "2 cores",
    }
    (tmp_path / "soak.json").write_text(json.dumps(content))
    page = pages.render(tmp_path / "none", tmp_path)
    assert "got 93.7% of the rate" in page
    assert "| overload | 60 | 300.0% | 100 | 70 | 25 | 2 | 5 | 0.5 | 0.7 | 0.8 |" in page
    assert "| steady | 60 | 300.0% | 100 | 70 | 25 | 2 | 5 | - | - | - |" in page
    assert "0.2 s after the overload's last request, with `--queue-seconds 6`, a verdict took" in page
    assert "| overload | 100 | 110 | 120 | 190 | 140 | 150 | 190 |" in page


def test_a_file_of_another_form_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "bad_input.json").write_text("{}")
    with pytest.raises(
        ModerationError, match=r"bad_input\.json cannot be shown .* run: python -m reliability.bad_input"
    ):
        pages.render(tmp_path, tmp_path)


def test_the_script_runs_every_command_whatever_fails_and_renders(tmp_path: Path) -> None:
    stub = tmp_path / "python"
    stub.write_text(f"""#!/bin/sh
case "$*" in
    *--commands*) exec {sys.executable} "$@" ;;
    *long_inputs*) exit 1 ;;
    *) echo "ran $*" ;;
esac
""")
    stub.chmod(0o755)
    sections = {section.name: section.command for section in (*pages.TRIALS, *pages.SERVER_LOADS)}
    failing = sections["long_inputs"]
    for names in ((), ("batch_rate", "soak")):
        done = call(stub, *names)
        assert (done.returncode, done.stderr) == ((0, "") if names else (1, f"failed: {failing}\n"))
        ran = [line.removeprefix("ran ") for line in done.stdout.splitlines() if line.startswith("ran ")]
        chosen = [sections[name].removeprefix("python ") for name in names or sections if name != "long_inputs"]
        assert ran == [*chosen, "-m reliability.pages"]


def test_a_trial_that_there_is_not_is_told_before_any_is_run() -> None:
    done = call(sys.executable, "batch_fault")
    assert done.returncode == 2
    assert done.stderr == "error: there are no trials 'batch_fault'; did you mean 'batch_faults'?\n"


def call(python: str | Path, *names: str) -> subprocess.CompletedProcess[str]:
    script = pages.ROOT / "scripts" / "reliability.sh"
    environment = {**os.environ, "PYTHON": str(python)}
    return subprocess.run([script, *names], env=environment, capture_output=True, text=True, check=False)
