"""The audit's three ends: skipped, passed and failed. pip-audit itself is run where it is installed already."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "audit.py"
# Writes what pip-audit does with --format json, from the answers of the database that it is given.
STAND_IN = """#!{python}
import json, sys, urllib.request
words = dict(zip(sys.argv[1::1], sys.argv[2::1]))
rows = []
for line in open(words["--requirement"]):
    name, _, version = line.strip().partition("==")
    body = json.dumps({{"package": {{"name": name}}, "version": version}}).encode()
    with urllib.request.urlopen(urllib.request.Request(words["--osv-url"], body)) as answer:
        vulns = [{{"id": one["id"], "fix_versions": ["9.9"]}} for one in json.load(answer).get("vulns", [])]
    rows.append({{"name": name, "version": version, "vulns": vulns}})
print(json.dumps({{"dependencies": rows}}))
sys.exit(any(row["vulns"] for row in rows))
"""


@pytest.fixture
def database() -> Iterator[tuple[str, set[str]]]:
    """A stand-in for the database: its address, and the packages that it knows something of."""
    vulnerable: set[str] = set()

    class Database(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            known = asked.get("package", {}).get("name") in vulnerable
            vulnerability = {"id": "PLANTED-1", "affected": [], "summary": "", "aliases": []}
            answer = json.dumps({"vulns": [vulnerability]} if known else {}).encode()
            self.send_response(200 if asked else 400)
            self.end_headers()
            self.wfile.write(answer)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Database)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query", vulnerable
    server.shutdown()
    server.server_close()
    thread.join()


def audit(tmp_path: Path, url: str, *, stand_in: bool = True) -> subprocess.CompletedProcess[str]:
    """The script, in an environment of its own with one package, beside which pip-audit is there already."""
    environment = {**os.environ, "AUDIT_URL": url, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    code = (
        f"import sys; sys.prefix = {str(tmp_path)!r}; sys.path.insert(0, {str(SCRIPT.parent)!r}); import audit; "
        "audit.installed = lambda: ['something==1.0', 'other==2.0']; sys.exit(audit.main())"
    )
    program = tmp_path / "audit" / "bin" / "pip-audit"
    program.parent.mkdir(parents=True, exist_ok=True)
    if stand_in:
        program.write_text(STAND_IN.format(python=sys.executable))
        program.chmod(0o755)
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_without_the_database_the_audit_is_skipped_and_says_so(tmp_path: Path) -> None:
    done = audit(tmp_path, "http://127.0.0.1:9/v1/query")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("audit skipped: the database of vulnerabilities cannot be reached")


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script with a shebang")
def test_an_audit_that_finds_nothing_passes(tmp_path: Path, database: tuple[str, set[str]]) -> None:
    done = audit(tmp_path, database[0])
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2 dependencies audited, 0 with known vulnerabilities\n"


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script with a shebang")
def test_a_known_vulnerability_fails_and_is_named(tmp_path: Path, database: tuple[str, set[str]]) -> None:
    database[1].add("other")
    done = audit(tmp_path, database[0])
    assert done.returncode == 1
    assert done.stderr == "other 2.0: PLANTED-1, fixed in 9.9\n"


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script with a shebang")
def test_a_pip_audit_that_fails_is_no_audit_that_passed(tmp_path: Path, database: tuple[str, set[str]]) -> None:
    program = tmp_path / "audit" / "bin" / "pip-audit"
    program.parent.mkdir(parents=True)
    shutil.copy(shutil.which("false") or "/bin/false", program)
    done = audit(tmp_path, database[0], stand_in=False)
    assert done.returncode == 2
    assert "pip-audit failed" in done.stderr


def test_what_is_installed_is_listed_with_its_versions_and_without_this_project() -> None:
    code = f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); import audit; print(*audit.installed())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = {line.partition("==")[0].lower() for line in done.stdout.split()}
    assert "pytest" in names
    assert "guardreasoner-moderation" not in names
    assert "+" not in done.stdout
