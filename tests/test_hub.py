from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from guardreasoner_moderation.errors import ModelNotFoundError, WeightsError
from guardreasoner_moderation.hub import fetch_repository


def raising(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """The Hub's client fails."""

    def download(*args: Any, **options: Any) -> NoReturn:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)


def hub_error(name: str, status: int = 404) -> Exception:
    from huggingface_hub import errors

    response = SimpleNamespace(status_code=status, headers={}, request=None)
    error: Exception = getattr(errors, name)("what the Hub said", response=response)
    return error


def test_a_repository_is_fetched_without_pickles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def download(repo_id: str, **options: Any) -> str:
        asked.update(options, repo_id=repo_id)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert fetch_repository("owner/name", revision="v1") == tmp_path
    assert (asked["repo_id"], asked["revision"]) == ("owner/name", "v1")
    assert not any(pattern.endswith((".bin", ".pt", ".pkl", ".py", "*")) for pattern in asked["allow_patterns"][:-1])


def test_a_gated_repository_says_how_to_get_access(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, hub_error("GatedRepoError", 403))
    with pytest.raises(WeightsError, match=r"owner/name is gated: accept its terms.*hf auth login"):
        fetch_repository("owner/name")


def test_a_repository_that_is_not_there_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, hub_error("RepositoryNotFoundError"))
    with pytest.raises(ModelNotFoundError, match=r"no repository owner/name that you can see.*HF_TOKEN"):
        fetch_repository("owner/name")


def test_a_revision_that_is_not_there_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, hub_error("RevisionNotFoundError"))
    with pytest.raises(ModelNotFoundError, match="no owner/name at revision 'v9'"):
        fetch_repository("owner/name", revision="v9")


def test_what_is_no_repository_id_is_not_found() -> None:
    with pytest.raises(ModelNotFoundError, match="'no such/model!' is neither a local folder nor a Hub repository"):
        fetch_repository("no such/model!")


def test_a_repository_that_is_not_cached_needs_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    # The real client: conftest.py has put it offline.
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda *args, **options: snapshot_download(*args, cache_dir=tmp_path, **options),
    )
    with pytest.raises(WeightsError, match=r"owner/name is not complete in the Hub.*Connect to a network.*OFFLINE"):
        fetch_repository("owner/name")


@pytest.mark.parametrize(("status", "advice"), [(403, "Your token may lack"), (503, "Try again later")])
def test_another_answer_of_the_hub_is_named(monkeypatch: pytest.MonkeyPatch, status: int, advice: str) -> None:
    raising(monkeypatch, hub_error("HfHubHTTPError", status))
    with pytest.raises(WeightsError, match=f"answered owner/name with HTTP status {status}. {advice}"):
        fetch_repository("owner/name")


def test_a_broken_connection_to_the_hub_hides_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, RuntimeError("reset while reading https://cdn/file?Signature=topsecret with hf_topsecret."))
    with pytest.raises(WeightsError, match=r"could not be fetched: RuntimeError: reset.*or pass a local") as caught:
        fetch_repository("owner/name")
    assert "topsecret" not in str(caught.value)


def test_a_full_disk_of_the_hubs_cache_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(WeightsError, match=r"no space left in .*set HF_HOME"):
        fetch_repository("owner/name")
