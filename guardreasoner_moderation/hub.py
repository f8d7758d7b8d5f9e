"""Fetches repositories of the Hugging Face Hub, with its own client."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from guardreasoner_moderation.cache import known_sha256
from guardreasoner_moderation.errors import ModelNotFoundError, ModerationError, WeightsError, brief, harmless, shown
from guardreasoner_moderation.telemetry import switch_off

# No .bin, .pt or .pkl: formats that can run code when they are read are not even fetched.
_REPOSITORY_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja", "*.model", "*.md", "LICENSE*")


def fetch_repository(repo_id: str, *, revision: str | None = None) -> Path:
    """The local snapshot of a Hub repository, fetched where needed, in the Hub client's own cache.

    Only weights in safetensors, configurations, tokenizers, templates and texts are fetched.

    Args:
        repo_id: ``owner/name``.
        revision: branch, tag or commit; the main branch when left out.

    Raises:
        ModelNotFoundError: no such repository or revision is visible to this account.
        WeightsError: the repository is gated, could not be fetched or stored, or was changed in the cache since.
    """
    switch_off()
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(_REPOSITORY_FILES)))
    except Exception as exc:  # noqa: BLE001 - the client lets through what its transports raise, which differs by version
        raise _explained(exc, repo_id, revision) from harmless(exc)
    _refuse_changed(folder)
    return folder


def _explained(exc: Exception, repo_id: str, revision: str | None) -> ModerationError:
    """What went wrong, as an error of this package."""
    from huggingface_hub import constants
    from huggingface_hub import errors as hub

    named = repo_id if revision is None else f"{repo_id} at revision {revision!r}"
    log_in = "log in with `hf auth login`, or set HF_TOKEN"
    if isinstance(exc, hub.HFValidationError):
        return ModelNotFoundError(f"{shown(repo_id)} is neither a local folder nor a Hub repository (owner/name)")
    if isinstance(exc, hub.GatedRepoError):  # before its parent class RepositoryNotFoundError
        return WeightsError(f"{repo_id} is gated: accept its terms on its page of the Hub, then {log_in}")
    if isinstance(exc, hub.RepositoryNotFoundError):
        return ModelNotFoundError(
            f"the Hub has no repository {repo_id} that you can see. Check the name; if it is private, {log_in}"
        )
    if isinstance(exc, hub.RevisionNotFoundError):
        return ModelNotFoundError(f"the Hub has no {named}. Check the branch, tag or commit")
    if isinstance(exc, (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled)):
        return WeightsError(
            f"{named} is not complete in the Hub client's cache and cannot be fetched: {brief(str(exc))}. Connect to "
            "a network (and unset HF_HUB_OFFLINE), or pass a local folder that holds the model"
        )
    if isinstance(exc, hub.HfHubHTTPError):
        status = exc.response.status_code
        advice = f"Your token may lack the right to read it: {log_in}" if status in (401, 403) else "Try again later"
        return WeightsError(f"the Hub answered {named} with HTTP status {status}. {advice}")
    if isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = f"no space left in {constants.HF_HUB_CACHE}. Free some, or set HF_HOME to a folder on another disk"
    else:
        advice = f"{type(exc).__name__}: {brief(str(exc))}. Try again, or pass a local folder that holds the model"
    return WeightsError(f"{named} could not be fetched: {advice}")


def _refuse_changed(folder: Path) -> None:
    """Insists that the weights in the Hub client's cache are what the Hub sent.

    There a large file is a link to one whose name is its SHA-256. Where links cannot be made (Windows) there is no such
    name, and nothing to compare with.
    """
    for file in sorted(folder.glob("*.safetensors")):
        blob = file.resolve()
        if re.fullmatch(r"[0-9a-f]{64}", blob.name) and known_sha256(blob) != blob.name:
            raise WeightsError(f"{file} is not what the Hub sent any more. Delete {blob}, so that it is fetched anew")
