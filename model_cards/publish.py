"""Brings a folder onto the Hub: all of it in one commit, then a tag. Safe to repeat.

Before anything is sent the repository is looked at. What is there already is not committed again, a tag that names
other content is an error, and a commit whose tag is missing gets it: so a release that was interrupted anywhere goes on
when the same command is run again. Large files that were uploaded without a commit are seen by nobody.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from guardreasoner_moderation.errors import (
    InputError,
    ModerationError,
    WeightsError,
    brief,
    harmless,
    without_secrets,
)
from model_cards.bundle import MANIFEST, list_files

if TYPE_CHECKING:
    from huggingface_hub import HfApi


@dataclass(frozen=True, slots=True)
class Target:
    """Where a folder goes.

    Attributes:
        repo_id: owner/name.
        kind: model or space.
        tag: of the version; None for none.
        pull_request: open a pull request instead of committing to main; it gets no tag before it is merged.
        private: of a repository that is made now.
    """

    repo_id: str
    kind: str = "model"
    tag: str | None = None
    pull_request: bool = False
    private: bool = False


@dataclass(frozen=True, slots=True)
class Published:
    """What is there now.

    Attributes:
        commit: that holds the folder.
        new: whether it was made now.
        tag: that names it.
        pull_request: address of the one that holds it.
    """

    commit: str
    new: bool
    tag: str | None = None
    pull_request: str | None = None


def publish(folder: Path, target: Target, message: str) -> Published:
    """Brings a folder onto the Hub.

    Raises:
        InputError: the tag is there and names something else.
        WeightsError: the Hub could not be reached, or refused.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi

    with _errors_of(target.repo_id):
        api = HfApi()
        api.create_repo(
            target.repo_id,
            repo_type=target.kind,
            private=target.private or None,
            exist_ok=True,
            space_sdk="gradio" if target.kind == "space" else None,
        )
        refs = api.list_repo_refs(target.repo_id, repo_type=target.kind)
        tagged = {ref.name: ref.target_commit for ref in refs.tags}
        head = next((ref.target_commit for ref in refs.branches if ref.name == "main"), None)
        if target.tag in tagged:
            commit = tagged[target.tag]
            if not _holds(api, target, commit, folder):
                raise InputError(
                    f"{target.repo_id} has a tag {target.tag} that names other content; raise --version, a published "
                    "version never changes"
                )
            return Published(commit, new=False, tag=target.tag)
        new, pull_request = False, None
        if head is not None and _holds(api, target, head, folder):
            commit = head
        elif target.pull_request and (found := _open_pull_request(api, target, folder)):
            return Published(found[0], new=False, pull_request=found[1])
        else:
            stale = [] if head is None else _stale(api, target, head, folder)
            operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [
                *(CommitOperationAdd(path, str(file)) for path, file in list_files(folder).items()),
                *(CommitOperationDelete(path) for path in stale),
            ]
            info = api.create_commit(
                target.repo_id,
                operations,
                commit_message=message,
                repo_type=target.kind,
                parent_commit=head,
                create_pr=target.pull_request,
            )
            commit, new, pull_request = info.oid, True, info.pr_url
        if pull_request:
            return Published(commit, new, pull_request=pull_request)
        if not _holds(api, target, commit, folder):
            raise WeightsError(f"{target.repo_id} at {commit[:12]} does not hold what was sent; run the command again")
        if target.tag:
            api.create_tag(target.repo_id, tag=target.tag, revision=commit, repo_type=target.kind, exist_ok=True)
            refs = api.list_repo_refs(target.repo_id, repo_type=target.kind)
            if {ref.name: ref.target_commit for ref in refs.tags}.get(target.tag) != commit:
                raise InputError(f"{target.repo_id} got a tag {target.tag} from elsewhere meanwhile; raise --version")
        return Published(commit, new, tag=target.tag)


def git_sha1(content: bytes) -> str:
    """The id that git gives a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _remote(api: HfApi, target: Target, revision: str) -> Mapping[str, str]:
    """The files at a revision: SHA-256 of large ones, git's id of the others."""
    from huggingface_hub import RepoFile

    tree = api.list_repo_tree(target.repo_id, recursive=True, revision=revision, repo_type=target.kind)
    return {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in tree if isinstance(file, RepoFile)}


def _holds(api: HfApi, target: Target, revision: str, folder: Path) -> bool:
    """Whether a revision has all files of a folder as they are, and none left of an earlier release."""
    remote = _remote(api, target, revision)
    for path, file in list_files(folder).items():
        content = file.read_bytes()
        if remote.get(path) not in (git_sha1(content), hashlib.sha256(content).hexdigest()):
            return False
    return not _stale(api, target, revision, folder)


def _stale(api: HfApi, target: Target, revision: str, folder: Path) -> list[str]:
    """What an earlier release brought and this one does not have; files from elsewhere are left alone."""
    remote = _remote(api, target, revision)
    if MANIFEST not in remote:
        return []
    file = api.hf_hub_download(target.repo_id, MANIFEST, revision=revision, repo_type=target.kind)
    brought = json.loads(Path(file).read_text(encoding="utf-8"))["files"]
    kept = list_files(folder)
    return sorted(path for path in brought if path in remote and path not in kept)


def _open_pull_request(api: HfApi, target: Target, folder: Path) -> tuple[str, str] | None:
    """Commit and address of an open pull request that holds the folder."""
    discussions = api.get_repo_discussions(
        target.repo_id, discussion_type="pull_request", discussion_status="open", repo_type=target.kind
    )
    for discussion in discussions:
        revision = f"refs/pr/{discussion.num}"
        if _holds(api, target, revision, folder):
            commit = api.repo_info(target.repo_id, revision=revision, repo_type=target.kind).sha
            return str(commit), str(discussion.url)
    return None


@contextmanager
def _errors_of(repo_id: str) -> Iterator[None]:
    """The client's errors as this package's own."""
    from huggingface_hub import errors as hub

    again = "Run the same command again: it goes on where this one stopped"
    try:
        yield
    except ModerationError:
        raise
    except hub.OfflineModeIsEnabled as exc:
        raise WeightsError(f"{repo_id} cannot be published offline: unset HF_HUB_OFFLINE") from harmless(exc)
    except hub.HFValidationError as exc:
        raise InputError(f"{repo_id!r} is no repository id (owner/name)") from exc
    except hub.HfHubHTTPError as exc:
        status = exc.response.status_code
        advice = "log in with `hf auth login`, or set HF_TOKEN" if status in (401, 403) else again
        said = f"HTTP status {status}{f', {brief(exc.server_message)}' if exc.server_message else ''}"
        raise WeightsError(f"{repo_id} was not published: the Hub answered {said}. {advice}") from harmless(exc)
    except Exception as exc:  # noqa: BLE001 - the client lets through what its transports raise, which differs by version
        said = without_secrets(" ".join(str(exc).split()))[:300]
        raise WeightsError(f"{repo_id} could not be published: {type(exc).__name__}: {said}. {again}") from harmless(
            exc
        )
