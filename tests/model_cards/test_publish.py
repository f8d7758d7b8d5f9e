"""Publishing by the real ``huggingface_hub`` client, in a process of its own, to a local server that stands in."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hub_server import Blob, Hub, client_environment, serving

from guardreasoner_moderation.cache import read_sha256
from model_cards.publish import git_sha1

ROOT = Path(__file__).parents[2]
CARD = "---\nlicense: apache-2.0\nlibrary_name: peft\n---\n# Card\n"
WORKER = """
import dataclasses, json, sys
from pathlib import Path
from guardreasoner_moderation.errors import ModerationError
from model_cards.publish import Target, publish
for line in sys.stdin:
    folder, options = json.loads(line)
    try:
        answer = dataclasses.asdict(publish(Path(folder), Target(**options), "Release"))
    except ModerationError as exc:
        answer = {"error": f"{type(exc).__name__}: {exc}"}
    print(json.dumps(answer), flush=True)
"""


class Publisher:
    """A process whose client knows the local server only; the client reads its environment once, at import."""

    def __init__(self, hub: Hub, home: Path, **environment: str) -> None:
        self.hub = hub
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **client_environment(hub, str(home)), **environment},
        )

    def publish(self, folder: Path, repo_id: str, **options: object) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([str(folder), {"repo_id": repo_id, **options}]) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def close(self) -> None:
        self.process.communicate()
        assert self.process.returncode == 0


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publisher]:
    with serving() as hub, closing(Publisher(hub, tmp_path_factory.mktemp("hf"))) as running:
        yield running


@pytest.fixture
def hub(publisher: Publisher) -> Hub:
    publisher.hub.requests.clear()
    return publisher.hub


@pytest.fixture
def repo(request: pytest.FixtureRequest) -> str:
    """A repository of the test's own."""
    return "team/" + re.sub(r"\W+", "-", request.node.name).strip("-")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An upload folder with a small and a large file."""
    place = tmp_path / "upload"
    weights = str(tmp_path).encode() * 300  # of each test its own, so that none finds them uploaded already
    write(place, {"README.md": CARD.encode(), "adapter_model.safetensors": weights})
    return place


def write(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    listed = {path.name: read_sha256(path) for path in folder.iterdir() if path.name != "release.json"}
    (folder / "release.json").write_text(json.dumps({"files": listed}))


def contents(hub: Hub, repo: str, revision: str) -> dict[str, bytes]:
    repository = hub.model(repo)
    files = repository.commits[str(repository.resolve(revision))].files
    return {path: blob.content for path, blob in files.items() if path != ".gitattributes"}


def sent(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_everything_goes_in_one_commit_with_a_tag(hub: Hub, publisher: Publisher, folder: Path, repo: str) -> None:
    done = publisher.publish(folder, repo, tag="v1.0.0")
    assert contents(hub, repo, "v1.0.0") == sent(folder)
    repository = hub.model(repo)
    assert [commit.title for commit in repository.commits.values()] == ["initial commit", "Release"]
    assert done == {"commit": repository.branches["main"], "new": True, "tag": "v1.0.0", "pull_request": None}
    assert repository.commits[repository.branches["main"]].files["adapter_model.safetensors"].lfs


def test_the_same_again_commits_nothing(hub: Hub, publisher: Publisher, folder: Path, repo: str) -> None:
    first = publisher.publish(folder, repo, tag="v1.0.0")
    assert publisher.publish(folder, repo, tag="v1.0.0") == {**first, "new": False}
    assert hub.requests.count("commit") == 1
    assert hub.requests.count("tag") == 1


@pytest.mark.parametrize("kind", ["create", "commit", "tag"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupted_release_goes_on(
    hub: Hub, publisher: Publisher, folder: Path, repo: str, kind: str, when: str
) -> None:
    hub.fail(kind, when)
    first = publisher.publish(folder, repo, tag="v1.0.0")
    assert "Run the same command again" in first["error"]
    if ("model", repo) in hub.repositories:  # either nothing of it is to be seen, or all
        assert contents(hub, repo, "main") in ({}, sent(folder))
    assert publisher.publish(folder, repo, tag="v1.0.0")["tag"] == "v1.0.0"
    assert contents(hub, repo, "v1.0.0") == sent(folder)
    assert len(hub.model(repo).commits) == 2


def test_large_files_that_were_uploaded_before_are_not_sent_again(
    hub: Hub, publisher: Publisher, folder: Path, repo: str
) -> None:
    hub.fail("commit")
    assert "error" in publisher.publish(folder, repo, tag="v1.0.0")
    assert "error" not in publisher.publish(folder, repo, tag="v1.0.0")
    assert hub.requests.count("lfs upload") == 1


def test_a_tag_never_changes(hub: Hub, publisher: Publisher, folder: Path, repo: str) -> None:
    publisher.publish(folder, repo, tag="v1.0.0")
    before = contents(hub, repo, "main")
    write(folder, {"README.md": CARD.encode() + b"More.\n"})
    again = publisher.publish(folder, repo, tag="v1.0.0")
    assert again["error"].startswith(f"InputError: {repo} has a tag v1.0.0 that names other content; raise --version")
    assert contents(hub, repo, "main") == before
    publisher.publish(folder, repo, tag="v1.1.0")
    assert contents(hub, repo, "v1.0.0") == before
    assert contents(hub, repo, "v1.1.0") == sent(folder)


def test_files_of_an_earlier_release_go_and_files_of_others_stay(
    hub: Hub, publisher: Publisher, folder: Path, repo: str
) -> None:
    write(folder, {"old.json": b"{}"})
    publisher.publish(folder, repo, tag="v1.0.0")
    repository = hub.model(repo)
    head = repository.branches["main"]
    others = {**repository.commits[head].files, "their_notes.md": Blob(b"Hello\n", lfs=False)}
    repository.branches["main"] = repository.commit(others, "Add notes", head)
    (folder / "old.json").unlink()
    write(folder, {"new.json": b"[]"})
    publisher.publish(folder, repo, tag="v1.1.0")
    assert contents(hub, repo, "v1.1.0") == {**sent(folder), "their_notes.md": b"Hello\n"}


def test_a_pull_request_leaves_main_alone_is_opened_once_and_is_tagged_when_merged(
    hub: Hub, publisher: Publisher, folder: Path, repo: str
) -> None:
    first = publisher.publish(folder, repo, tag="v1.0.0", pull_request=True)
    second = publisher.publish(folder, repo, tag="v1.0.0", pull_request=True)
    assert contents(hub, repo, "main") == {}
    assert contents(hub, repo, "refs/pr/1") == sent(folder)
    assert first["pull_request"] == second["pull_request"] == f"{hub.endpoint}/{repo}/discussions/1"
    assert (first["new"], second["new"]) == (True, False)
    assert first["tag"] is None
    assert len(hub.model(repo).pull_requests) == 1

    hub.merge(repo, 1)
    merged = publisher.publish(folder, repo, tag="v1.0.0")
    assert (merged["new"], merged["tag"]) == (False, "v1.0.0")
    assert contents(hub, repo, "v1.0.0") == sent(folder)


def test_a_space_is_created_with_its_sdk(hub: Hub, publisher: Publisher, tmp_path: Path, repo: str) -> None:
    page = "---\ntitle: Guard\nsdk: gradio\napp_file: app.py\nlicense: apache-2.0\n---\n"
    write(tmp_path / "space", {"README.md": page.encode(), "app.py": b"print()\n"})
    publisher.publish(tmp_path / "space", repo, kind="space")
    space = hub.repositories["space", repo]
    assert space.sdk == "gradio"
    assert space.commits[space.branches["main"]].files["app.py"].content == b"print()\n"


def test_a_card_that_the_hub_refuses_is_not_sent(hub: Hub, publisher: Publisher, folder: Path, repo: str) -> None:
    write(folder, {"README.md": CARD.replace("apache-2.0", "no-such-licence").encode()})
    assert "Invalid metadata in README.md" in publisher.publish(folder, repo, tag="v1.0.0")["error"]
    assert contents(hub, repo, "main") == {}


def test_a_private_repository_is_made_private(hub: Hub, publisher: Publisher, folder: Path, repo: str) -> None:
    publisher.publish(folder, repo, private=True)
    assert hub.model(repo).private


def test_a_wrong_repository_id_is_bad_input(publisher: Publisher, folder: Path) -> None:
    assert publisher.publish(folder, "no owner")["error"].startswith("InputError: 'no owner' is no repository id")


def test_without_a_right_token_the_advice_is_to_log_in(hub: Hub, folder: Path, repo: str, tmp_path: Path) -> None:
    with closing(Publisher(hub, tmp_path / "hf", HF_TOKEN="hf_wrong")) as publisher:
        assert "hf auth login" in publisher.publish(folder, repo)["error"]


def test_git_names_a_file_like_git_does() -> None:
    assert git_sha1(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"
