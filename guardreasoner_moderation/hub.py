"""Fetches repositories of the Hugging Face Hub, with its own client."""

from __future__ import annotations

import errno
from pathlib import Path

from guardreasoner_moderation.errors import ModelNotFoundError, WeightsError, brief

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
        WeightsError: the repository is gated, or could not be fetched or stored.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub import errors as hub

    named = repo_id if revision is None else f"{repo_id} at revision {revision!r}"
    log_in = "log in with `hf auth login`, or set HF_TOKEN"
    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(_REPOSITORY_FILES)))
    except hub.HFValidationError as exc:
        raise ModelNotFoundError(f"{repo_id!r} is neither a local folder nor a Hub repository (owner/name)") from exc
    except hub.GatedRepoError as exc:  # before its parent class RepositoryNotFoundError
        raise WeightsError(f"{repo_id} is gated: accept its terms on its page of the Hub, then {log_in}") from exc
    except hub.RepositoryNotFoundError as exc:
        raise ModelNotFoundError(
            f"the Hub has no repository {repo_id} that you can see. Check the name; if it is private, {log_in}"
        ) from exc
    except hub.RevisionNotFoundError as exc:
        raise ModelNotFoundError(f"the Hub has no {named}. Check the branch, tag or commit") from exc
    except (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled) as exc:
        raise WeightsError(
            f"{named} is not complete in the Hub client's cache and cannot be fetched: {brief(str(exc))}. Connect to "
            "a network (and unset HF_HUB_OFFLINE), or pass a local folder that holds the model"
        ) from exc
    except hub.HfHubHTTPError as exc:
        status = exc.response.status_code
        advice = f"Your token may lack the right to read it: {log_in}" if status in (401, 403) else "Try again later"
        raise WeightsError(f"the Hub answered {named} with HTTP status {status}. {advice}") from exc
    except Exception as exc:  # the client lets through what its transports raise, and those differ by version
        if isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = f"no space left in {constants.HF_HUB_CACHE}. Free some, or set HF_HOME to a folder on another disk"
        else:
            advice = f"{type(exc).__name__}: {brief(str(exc))}. Try again, or pass a local folder that holds the model"
        raise WeightsError(f"{named} could not be fetched: {advice}") from exc
