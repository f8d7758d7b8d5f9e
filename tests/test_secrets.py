"""Tokens and keys: planted wherever one is given, and looked for in all that is written."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest
from test_server import serving

from guardreasoner_moderation import ModerationError, Moderator
from guardreasoner_moderation.models import find_folder, load_model
from guardreasoner_moderation.server import ServerSettings

TOKEN = "hf_PlantedPlantedPlanted"
KEY = "planted words of no known form"  # so that no pattern finds it
PASSWORD = "plantedpassword"
SECRETS = (TOKEN, KEY, PASSWORD, base64.b64encode(f"someone:{PASSWORD}".encode()).decode())
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every variable that holds a token or a key."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.setenv(name, TOKEN)
    for name in ("GUARDREASONER_SERVER_KEY", "GUARDREASONER_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, KEY)


def told(*texts: str) -> list[str]:
    """The secrets that are in texts."""
    return [secret for secret in SECRETS for text in texts if secret in text]


@contextmanager
def everything_written(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """What is printed and logged at any level, and what a traceback shows of a ModerationError, which ends here."""
    out, err = io.StringIO(), io.StringIO()
    raised: list[str] = []
    with caplog.at_level(logging.DEBUG), redirect_stdout(out), redirect_stderr(err):
        try:
            yield lambda: "\n".join([out.getvalue(), err.getvalue(), caplog.text, *raised])
        except ModerationError as exc:
            raised += [repr(exc), *traceback.format_exception(exc)]


@contextmanager
def echoing(status: int, *, as_json: bool = True) -> Iterator[str]:
    """A server that repeats what it was sent, keys included, in every error: its address."""

    class Echo(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            said = f"not allowed with {self.headers.get('Authorization')} and {TOKEN}"
            body = json.dumps({"error": {"message": said}}) if as_json else said
            self.send_response(status)
            if self.headers.get("Authorization") == f"Bearer {TOKEN}":  # what the Hub's client reads
                self.send_header("X-Error-Message", said)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body.encode())

        do_GET = do_POST = do_HEAD = _answer  # noqa: N815 - names of the standard library

    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("status", [200, 400, 401, 500])
@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("login", ["", f"someone:{PASSWORD}@"])
def test_the_key_of_a_model_server_is_told_nowhere(
    status: int, as_json: bool, login: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with echoing(status, as_json=as_json) as address, everything_written(caplog) as written:
        server = f"http://{login}{address}/v1"
        with Moderator.from_pretrained("guard", server=server, api_key=KEY) as guard:
            shown = [repr(guard), repr(guard.model), repr(guard.model.engine), str(vars(guard.model.engine))]
            guard.classify("hello", mode="verdict")
    assert "127.0.0.1" in written()
    assert told(written(), *shown) == []


def test_arguments_that_do_not_go_together_are_named_without_their_values(caplog: pytest.LogCaptureFixture) -> None:
    with everything_written(caplog) as written:
        load_model("embedded", api_key=KEY)
    assert "api_key" in written()
    assert told(written()) == []


def test_an_address_with_a_password_that_is_none_is_told_without_it(caplog: pytest.LogCaptureFixture) -> None:
    for address in (f"http://someone:{PASSWORD}@host:99999999/v1", f"ftp://someone:{PASSWORD}@host", f"//{PASSWORD}@x"):
        with everything_written(caplog) as written:
            load_model("guard", server=address)
        assert told(written()) == [], address


def test_a_key_in_an_address_is_refused_untold(caplog: pytest.LogCaptureFixture) -> None:
    with everything_written(caplog) as written:
        load_model("guard", server=f"http://host/v1?key={PASSWORD}")
    assert "without a query" in written()
    assert told(written()) == []


HUB = """
import logging, sys, traceback
logging.basicConfig(level=logging.INFO)
from guardreasoner_moderation import Moderator
from guardreasoner_moderation.errors import ModerationError
try:
    Moderator.from_pretrained("owner/name", revision="main")
except ModerationError:
    traceback.print_exc()
"""


@pytest.mark.parametrize("status", [401, 403, 500])
def test_the_token_of_the_hub_is_told_nowhere(status: int, tmp_path: Path) -> None:
    with echoing(status) as address:
        environment = {
            **os.environ,
            "HF_ENDPOINT": f"http://{address}",
            "HF_HOME": str(tmp_path),
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        for command in (["-c", HUB], ["-m", "guardreasoner_moderation.cli", "pull", "owner/name"]):
            done = subprocess.run(
                [sys.executable, *command], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
            )
            assert "owner/name" in done.stderr
            assert told(done.stdout, done.stderr) == []


def test_the_servers_own_key_is_in_no_answer_log_or_representation(capfd: pytest.CaptureFixture[str]) -> None:
    assert told(repr(ServerSettings(api_key=KEY)), str(ServerSettings(api_key=KEY))) == []
    answers = []
    with serving(api_key=KEY) as served:
        for headers in ({"Authorization": f"Bearer {KEY}"}, {"X-Api-Key": "wrong"}, {}):
            with httpx.Client(base_url=served.url, headers=headers) as client:
                for path in ("/healthz", "/openapi.json", "/metrics", "/v1/models", f"/{KEY}"):
                    answers.append(client.get(path))
                for text in ("hello", "broken"):  # the second makes the engine fail
                    answers.append(client.post("/v1/classify", json={"prompt": text, "mode": "verdict"}))
    captured = capfd.readouterr()
    assert "not judged" in captured.err
    assert {200, 401, 404} <= {answer.status_code for answer in answers}
    assert told(captured.out, captured.err, *(answer.text + str(answer.headers) for answer in answers)) == []


def test_records_of_runs_and_jobs_hold_no_key(tmp_path: Path) -> None:
    from batches import guard_that_knows, write_jsonl

    from guardreasoner_moderation.batch import judge_file
    from training.recipe import Recipe
    from training.run_folder import write_record

    progress = {"step": 1, "tokens": 1, "seconds": 1.0, "losses": [], "validation": []}
    write_record(tmp_path, Recipe("smollm2-135m", ()), tmp_path, [], progress)
    judge_file(write_jsonl(tmp_path / "in.jsonl", [{"prompt": "a"}]), tmp_path / "out.jsonl", guard_that_knows())
    files = {file.name: file.read_text() for file in tmp_path.rglob("*") if file.is_file()}
    assert {"run.json", "out.jsonl", "out.jsonl.job.json"} <= set(files)
    assert told(*files.values()) == []


@pytest.mark.parametrize(("file", "secret"), [("run.json", TOKEN), ("calibration.json", KEY)])
def test_a_release_with_a_token_in_a_file_is_refused_and_one_without_holds_none(
    tmp_path: Path, file: str, secret: str
) -> None:
    sys.path.insert(0, str(ROOT / "tests" / "model_cards"))
    from example_cards import decision, write

    from guardreasoner_moderation.models import weights_sha256

    run = tmp_path / "run"
    shutil.copytree(find_folder("embedded"), run)
    write(run / "decision.json", decision(weights_sha256(run)))
    command = [sys.executable, "-m", "model_cards.release", str(run), "--repo-id", "team/guard", "--dry-run"]

    def release(out: str) -> subprocess.CompletedProcess[str]:
        whole = [*command, "--out", str(tmp_path / out)]
        return subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, check=False)

    done = release("clean")
    assert "holds what looks like a token" not in done.stderr
    texts = [path.read_bytes().decode(errors="replace") for path in (tmp_path / "clean").rglob("*") if path.is_file()]
    assert texts, done.stderr
    assert told(done.stdout, done.stderr, *texts) == []

    content = json.loads((run / file).read_text())
    (run / file).write_text(json.dumps({**content, "note": f"made with {secret}"}))
    done = release("soiled")
    assert done.returncode == 1
    assert "holds what looks like a token or an API key" in done.stderr
    assert told(done.stdout, done.stderr) == []
