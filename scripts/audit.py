"""Compares the installed dependencies with the database of known vulnerabilities, by pip-audit.

    python scripts/audit.py

Audited is the environment of the Python that runs this. pip-audit is installed into a folder of its own beside it, so
that its dependencies are not audited as ours. Where pip-audit or the database (https://osv.dev) cannot be reached, that
is said, and the exit code is 0. It is 1 where a vulnerability is known, and 2 where pip-audit fails otherwise.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import venv
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

OWN = "guardreasoner-moderation"
URL_VARIABLE = "AUDIT_URL"
_URL = "https://api.osv.dev/v1/query"
_SECONDS = 10


def main() -> int:
    """Audits, and returns the exit code."""
    url = os.environ.get(URL_VARIABLE, _URL)
    if problem := find_unreachable(url):
        return skip(f"the database of vulnerabilities cannot be reached ({problem})")
    program = install(Path(sys.prefix) / "audit")
    if program is None:
        return skip("pip-audit is not installed and cannot be fetched")
    with tempfile.TemporaryDirectory() as folder:
        pinned = Path(folder) / "installed.txt"
        pinned.write_text("".join(f"{line}\n" for line in installed()), encoding="utf-8")
        options = ["--requirement", str(pinned), "--no-deps", "--disable-pip", "--progress-spinner", "off"]
        options += ["--vulnerability-service", "osv", "--osv-url", url, "--format", "json"]
        done = subprocess.run([str(program), *options], capture_output=True, text=True, check=False)
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        sys.stderr.write(f"pip-audit failed: {done.stderr.strip()[-2000:]}\n")
        return 2
    return report(found)


def find_unreachable(url: str) -> str | None:
    """Why the database cannot be asked; None if it can."""
    request = urllib.request.Request(url, data=b"{}", headers={"Content-Type": "application/json"})  # noqa: S310
    try:
        urllib.request.urlopen(request, timeout=_SECONDS).close()  # noqa: S310 - an address of ours
    except urllib.error.HTTPError as exc:
        return None if exc.code < 500 else f"HTTP status {exc.code}"  # it is there, and wants a better question
    except (OSError, ValueError) as exc:
        return str(getattr(exc, "reason", exc))
    return None


def install(folder: Path) -> Path | None:
    """The program in an environment of its own, made where it is missing; None where it cannot be fetched."""
    place = folder / ("Scripts" if os.name == "nt" else "bin")
    program = place / "pip-audit"
    if not program.exists():
        venv.create(folder, with_pip=True, clear=True)
        command = [str(place / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "pip-audit"]
        if subprocess.run(command, check=False).returncode != 0:
            return None
    return program


def installed() -> list[str]:
    """Each distribution that is installed here, but this project, with its version."""
    found = {one.metadata["Name"]: one.version for one in distributions() if one.metadata["Name"]}
    # Builds for one kind of processor have names of their own after a plus sign, which no database knows.
    return sorted(f"{name}=={version.partition('+')[0]}" for name, version in found.items() if name != OWN)


def report(dependencies: Sequence[Mapping[str, Any]]) -> int:
    """Says what was found; 1 where something was."""
    vulnerable = [one for one in dependencies if one.get("vulns")]
    for one in vulnerable:
        for vulnerability in one["vulns"]:
            fixed = ", ".join(vulnerability.get("fix_versions") or ()) or "no version"
            line = f"{one['name']} {one['version']}: {vulnerability['id']}, fixed in {fixed}"
            sys.stderr.write(f"{line}\n")
    sys.stdout.write(f"{len(dependencies)} dependencies audited, {len(vulnerable)} with known vulnerabilities\n")
    return 1 if vulnerable else 0


def skip(why: str) -> int:
    """Says that nothing was audited."""
    sys.stdout.write(f"audit skipped: {why}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
