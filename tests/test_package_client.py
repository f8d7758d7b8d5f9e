from __future__ import annotations

import errno
import io
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from guardreasoner_moderation import package_client
from guardreasoner_moderation.package_client import run


def run_python(code: str, folder: Path) -> str | None:
    """Runs Python code as if it were a package client."""
    return run([sys.executable, "-c", code], folder, title="fetching", total=1, progress=False)


@pytest.mark.parametrize("said", ["OSError: [Errno 28] No space", "failed (os error 28)", "[WinError 112] Not enough"])
def test_a_client_that_fills_the_disk_is_a_full_disk(tmp_path: Path, said: str) -> None:
    with pytest.raises(OSError, match="No space") as caught:
        run_python(f"import sys; sys.exit({said!r})", tmp_path)
    assert caught.value.errno == errno.ENOSPC


def test_a_client_that_dies_silently_is_named_with_its_exit_code(tmp_path: Path) -> None:
    assert run_python("import os; os._exit(7)", tmp_path) == "exit code 7"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 always looks into the working folder")
def test_a_file_named_pip_in_the_working_folder_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pip.py").write_text("raise SystemExit('this is not pip')")
    monkeypatch.chdir(tmp_path)
    assert run_python("import pip", tmp_path) is None


def test_a_clients_temporary_files_lie_in_the_cache(tmp_path: Path) -> None:
    assert run_python(f"import tempfile; assert tempfile.gettempdir() == {str(tmp_path)!r}", tmp_path) is None


def test_a_client_is_ended_when_the_user_interrupts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Recorded(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            started.append(self)

    def interrupt(folder: Path) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    monkeypatch.setattr(package_client, "_bytes_below", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_python("import time; time.sleep(20)", tmp_path)
    assert started[0].returncode not in (None, 0)


def test_progress_is_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    with package_client._progress("fetching tiny", 2_000_000, True) as show:
        show(1_000_000)
        show(3_000_000)
    assert "fetching tiny" in terminal.getvalue()
    assert "2.0/2.0 MB" in terminal.getvalue()


def test_progress_needs_no_console(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with package_client._progress("fetching tiny", 1, True) as show:
        show(1)
    assert capsys.readouterr().out == ""
