"""A local stand-in for the Hugging Face Hub, spoken to by the real ``huggingface_hub`` client.

It has the endpoints that a release and a download use: create a repository, validate a card, preupload, LFS batch,
upload and verify, commit (also as a pull request), tag, refs, trees, repository info, discussions, and ``resolve`` with
HEAD and GET, redirects of large files included. Paths, payloads, status codes and headers are those that the client's
own source reads and writes. What it validates of a card is a stand-in: the real rules are the Hub's.

``fail`` makes the next request of a kind fail, before or after its work was done, as a broken connection would.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

TOKEN = "hf_of_the_tests"
_KINDS = {"models": "model", "spaces": "space", "datasets": "dataset"}
_LICENCES = {"apache-2.0", "mit", "llama3.1", "llama3.2", "llama3.3", "cc0-1.0", "cc-by-4.0", "other"}


@dataclass(frozen=True)
class Blob:
    """A file's content; large ones live in the LFS store."""

    content: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def git(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


@dataclass
class Commit:
    files: dict[str, Blob]
    title: str
    parent: str | None


@dataclass
class Repository:
    kind: str
    private: bool = False
    sdk: str | None = None
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pull_requests: dict[int, str] = field(default_factory=dict)
    closed: set[int] = field(default_factory=set)

    def resolve(self, revision: str) -> str | None:
        if match := re.fullmatch(r"refs/pr/(\d+)", revision):
            return self.pull_requests.get(int(match[1]))
        found = self.branches.get(revision) or self.tags.get(revision)
        return found or (revision if revision in self.commits else None)

    def commit(self, files: dict[str, Blob], title: str, parent: str | None) -> str:
        listing = json.dumps([title, parent, len(self.commits), {path: blob.sha256 for path, blob in files.items()}])
        oid = hashlib.sha1(listing.encode()).hexdigest()
        self.commits[oid] = Commit(files, title, parent)
        return oid


class RefusalError(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Hub:
    """The state of the server, for tests to look at."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.lfs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.lock = threading.Lock()
        self.endpoint = ""
        self.storage = ""  # another host, as on the Hub: the client follows redirects within one by itself
        self._failures: dict[str, str] = {}

    def fail(self, kind: str, when: str = "before") -> None:
        """The next request of a kind answers 500: ``before`` its work, or ``after`` it."""
        self._failures[kind] = when

    def model(self, repo_id: str) -> Repository:
        return self.repositories["model", repo_id]

    def merge(self, repo_id: str, number: int) -> None:
        """What the button on a pull request's page does."""
        repository = self.model(repo_id)
        head = repository.pull_requests[number]
        repository.branches["main"] = head
        repository.closed.add(number)

    @contextmanager
    def step(self, kind: str) -> Iterator[None]:
        self.requests.append(kind)
        when = self._failures.pop(kind, None)
        if when == "before":
            raise RefusalError(500, "made to fail")
        yield
        if when == "after":
            raise RefusalError(500, "made to fail, after the work was done")


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def _answer(self, method: str) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        body = self._body()
        try:
            with self.hub.lock:
                if method == "POST" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    raise RefusalError(401, "no token")
                self._route(method, parts.path.strip("/"), query, body)
        except RefusalError as problem:
            headers = {"X-Error-Message": str(problem)} | ({"X-Error-Code": problem.code} if problem.code else {})
            self._send(problem.status, json.dumps({"error": str(problem)}).encode(), headers)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            content = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _route(self, method: str, path: str, query: Mapping[str, str], body: bytes) -> None:
        if match := re.fullmatch(r"lfs/(?P<oid>[0-9a-f]{64})", path):
            with self.hub.step("lfs upload"):
                if hashlib.sha256(body).hexdigest() != match["oid"]:
                    raise RefusalError(400, "the content has another hash")
                self.hub.lfs[match["oid"]] = body
            return self._send(200, b"")
        if match := re.fullmatch(r"cdn/(?P<oid>[0-9a-f]{64})", path):
            return self._send(200, self.hub.lfs[match["oid"]], {"ETag": f'"{match["oid"]}"'})
        if path == "lfs-verify":
            asked = json.loads(body)
            if len(self.hub.lfs.get(asked["oid"], b"")) != asked["size"]:
                raise RefusalError(404, "no such object")
            return self._json({})
        if path == "api/repos/create":
            return self._create(json.loads(body))
        if path == "api/validate-yaml":
            return self._validate(json.loads(body))
        if match := re.fullmatch(
            r"(?P<prefix>spaces/|datasets/)?(?P<id>[^/]+/[^/]+)\.git/info/lfs/objects/batch", path
        ):
            return self._batch(json.loads(body))
        if match := re.fullmatch(r"api/(?P<kind>models|spaces|datasets)/(?P<id>[^/]+/[^/]+)(?:/(?P<rest>.*))?", path):
            repository = self._repository(_KINDS[match["kind"]], match["id"])
            return self._api(method, repository, match["id"], match["rest"] or "", query, body)
        if match := re.fullmatch(r"(?P<prefix>spaces/|datasets/)?(?P<id>[^/]+/[^/]+)/resolve/(?P<rest>.+)", path):
            repository = self._repository((match["prefix"] or "models/")[:-2], match["id"])
            revision, _, name = match["rest"].partition("/")
            return self._resolve(repository, unquote(revision), unquote(name))
        raise RefusalError(404, f"no such endpoint: {method} {path}")

    def _repository(self, kind: str, repo_id: str) -> Repository:
        if (kind, repo_id) not in self.hub.repositories:
            raise RefusalError(404, "Repository not found", "RepoNotFound")
        return self.hub.repositories[kind, repo_id]

    def _revision(self, repository: Repository, revision: str) -> str:
        oid = repository.resolve(revision)
        if oid is None:
            raise RefusalError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid

    def _create(self, asked: dict[str, Any]) -> None:
        kind = asked.get("type") or "model"
        repo_id = f"{asked['organization']}/{asked['name']}"
        url = {"url": f"{self.hub.endpoint}/{'spaces/' if kind == 'space' else ''}{repo_id}"}
        with self.hub.step("create"):
            if (kind, repo_id) in self.hub.repositories:
                return self._json({"error": "You already created this repo", **url}, 409)
            repository = Repository(kind, asked.get("visibility") == "private", asked.get("sdk"))
            attributes = Blob(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n", lfs=False)
            repository.branches["main"] = repository.commit({".gitattributes": attributes}, "initial commit", None)
            self.hub.repositories[kind, repo_id] = repository
        return self._json(url)

    def _validate(self, asked: dict[str, Any]) -> None:
        errors = find_errors(asked["content"], asked["repoType"])
        self._json({"errors": [{"message": one} for one in errors], "warnings": []}, 400 if errors else 200)

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = []
        for one in asked["objects"]:
            answer = {"oid": one["oid"], "size": one["size"]}
            if one["oid"] not in self.hub.lfs:
                upload = {"href": f"{self.hub.endpoint}/lfs/{one['oid']}", "header": {}}
                answer["actions"] = {"upload": upload, "verify": {"href": f"{self.hub.endpoint}/lfs-verify"}}
            objects.append(answer)
        self._json({"transfer": "basic", "objects": objects})

    def _api(
        self, method: str, repository: Repository, repo_id: str, rest: str, query: Mapping[str, str], body: bytes
    ) -> None:
        action, _, argument = rest.partition("/")
        argument = unquote(argument)
        if method == "GET" and action in ("", "revision"):
            return self._json({"id": repo_id, "sha": self._revision(repository, argument or "main")})
        if method == "GET" and action == "refs":
            branches = [_ref("heads", name, oid) for name, oid in repository.branches.items()]
            tags = [_ref("tags", name, oid) for name, oid in repository.tags.items()]
            return self._json({"branches": branches, "tags": tags, "converts": [], "pullRequests": []})
        if method == "GET" and action == "tree":
            files = repository.commits[self._revision(repository, argument)].files
            return self._json([_entry(path, blob) for path, blob in files.items()])
        if method == "GET" and action == "discussions":
            found = [_discussion(number, repo_id, repository) for number in repository.pull_requests]
            found = [one for one in found if query.get("status") in (None, one["status"])]
            return self._json({"discussions": found, "count": len(found), "start": 0})
        if action == "preupload":
            files = repository.commits[self._revision(repository, argument)].files
            modes = [_mode(one, files) for one in json.loads(body)["files"]]
            with self.hub.step("preupload"):
                return self._json({"files": modes})
        if action == "commit":
            return self._commit(repository, repo_id, argument, body, as_pull_request="create_pr" in query)
        if action == "tag":
            with self.hub.step("tag"):
                tag = json.loads(body)["tag"]
                if tag in repository.tags:
                    raise RefusalError(409, "the tag is there already")
                repository.tags[tag] = self._revision(repository, argument)
            return self._json({})
        raise RefusalError(404, f"no such endpoint: {method} {rest}")

    def _commit(
        self, repository: Repository, repo_id: str, revision: str, body: bytes, *, as_pull_request: bool
    ) -> None:
        parent = self._revision(repository, revision)
        files = dict(repository.commits[parent].files)
        title = ""
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                title = value["summary"]
                if not as_pull_request and value.get("parentCommit", parent) != parent:
                    raise RefusalError(412, "A commit has happened since")
            elif entry["key"] == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]), lfs=False)
            elif entry["key"] == "lfsFile":
                if value["oid"] not in self.hub.lfs:
                    raise RefusalError(400, "an LFS object is missing")
                files[value["path"]] = Blob(self.hub.lfs[value["oid"]], lfs=True)
            elif entry["key"] == "deletedFile" and files.pop(value["path"], None) is None:
                raise RefusalError(404, "A file with this name doesn't exist", "EntryNotFound")
        with self.hub.step("commit"):
            oid = repository.commit(files, title, parent)
            answer = {"commitUrl": f"{self.hub.endpoint}/{repo_id}/commit/{oid}", "commitOid": oid, "success": True}
            if as_pull_request:
                number = len(repository.pull_requests) + 1
                repository.pull_requests[number] = oid
                answer["pullRequestUrl"] = f"{self.hub.endpoint}/{repo_id}/discussions/{number}"
            else:
                repository.branches[revision] = oid
        self._json(answer)

    def _resolve(self, repository: Repository, revision: str, name: str) -> None:
        oid = self._revision(repository, revision)
        blob = repository.commits[oid].files.get(name)
        if blob is None:
            raise RefusalError(404, "Entry not found", "EntryNotFound")
        headers = {"X-Repo-Commit": oid, "ETag": f'"{blob.git}"'}
        if blob.lfs:
            headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.content))}
            return self._send(302, b"", headers | {"Location": f"{self.hub.storage}/cdn/{blob.sha256}"})
        return self._send(200, blob.content, headers)

    def _json(self, content: Any, status: int = 200) -> None:
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def serving() -> Iterator[Hub]:
    """A running server; its state is what is handed out."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    hub.storage = f"http://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def client_environment(hub: Hub, home: str) -> dict[str, str]:
    """What makes the client of another process talk to this server, and to nothing else."""
    return {
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": TOKEN,
        "HF_HOME": home,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",  # large files by LFS, which this server speaks; not by the Xet protocol
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_ETAG_TIMEOUT": "120",  # a busy machine is no failure
        "HF_HUB_DOWNLOAD_TIMEOUT": "120",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def find_errors(content: str, kind: str) -> list[str]:
    """A stand-in for the Hub's check of a card."""
    match = re.match(r"^(\s*---\n)([\S\s]*?)(\n---[ \t]*(\n|$))", content)
    if match is None:
        return ["the metadata block is missing"]
    try:
        data = yaml.safe_load(match[2])
    except yaml.YAMLError as exc:
        return [f"the metadata are no YAML: {exc}"]
    errors = []
    if data.get("license") not in _LICENCES:
        errors.append(f'"license" must be one of {sorted(_LICENCES)}')
    for dataset in data.get("datasets", []):
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", dataset):
            errors.append(f'"datasets" holds {dataset!r}')
    if kind == "space":
        errors += [f'"{key}" is required' for key in ("title", "sdk", "app_file") if key not in data]
        if len(data.get("short_description", "")) > 60:
            errors.append('"short_description" is longer than 60 characters')
    for model in data.get("model-index", []):
        for result in model["results"]:
            if not {"task", "dataset", "metrics"} <= set(result) or not {"name", "type"} <= set(result["dataset"]):
                errors.append('"model-index" is not right')
            errors += ['"model-index" has a metric without value' for one in result["metrics"] if "value" not in one]
    return errors


def _ref(kind: str, name: str, oid: str) -> dict[str, str]:
    return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid}


def _entry(path: str, blob: Blob) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(blob.content), "oid": blob.git}
    if blob.lfs:
        entry["lfs"] = {"oid": blob.sha256, "size": len(blob.content), "pointerSize": 134}
    return entry


def _mode(asked: Mapping[str, Any], files: Mapping[str, Blob]) -> dict[str, Any]:
    large = asked["path"].endswith((".safetensors", ".png")) or asked["size"] > 10_000_000
    found = files.get(asked["path"])
    answer = {"path": asked["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
    return answer | ({"oid": found.sha256 if found.lfs else found.git} if found else {})


def _discussion(number: int, repo_id: str, repository: Repository) -> dict[str, Any]:
    return {
        "num": number,
        "title": repository.commits[repository.pull_requests[number]].title,
        "author": {"name": "tests"},
        "createdAt": "2026-01-01T00:00:00.000Z",
        "status": "merged" if number in repository.closed else "open",
        "repo": {"name": repo_id, "type": repository.kind},
        "isPullRequest": True,
    }
