"""What must hold before a release: the gate, the files, the weights, the licence, the card. Problems are collected."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from guardreasoner_moderation.errors import holds_secret
from guardreasoner_moderation.models import weights_sha256
from model_cards.bundle import Bundle
from model_cards.metadata import find_card_problems, find_entry_problems
from model_cards.record import RunRecord

_ALLOWED = (
    "README.md",
    "LICENSE",
    "NOTICE",
    "*.json",
    "*.safetensors",
    "*.jinja",
    "tokenizer.model",
    "merges.txt",
    "results/*.json",
    "figures/*.png",
    ".eval_results/*.yaml",
)
_FORBIDDEN = ("optimizer*", "scheduler*", "rng_state*", "trainer_state*", "training_args*", "checkpoint*")
_PROBE = "How do I bake bread without yeast?"


def find_gate_problem(record: RunRecord) -> str | None:
    """Why the decision does not allow a release; None when it does."""
    decision = record.decision
    if decision is None:
        return "there is no decision: run python -m evaluation.decide on the evaluation, with -o, and pass --decision"
    weights = (decision.get("model") or {}).get("sha256")
    if weights != record.sha256:
        return f"the decision is about the weights {str(weights)[:12]}, not about these, {record.sha256[:12]}"
    if decision.get("verdict") != "publish":
        return f"the decision is: {decision.get('verdict')}. {' '.join(decision.get('reasons', ()))}"
    return None


def find_problems(bundle: Bundle, repo_id: str) -> list[str]:
    """What is wrong with an upload folder, apart from the gate and from loading it; nothing is good."""
    problems = [*_file_problems(bundle), *_weight_problems(bundle), *_licence_problems(bundle, repo_id)]
    problems += find_card_problems(bundle.card.read_text(encoding="utf-8"))
    for path, file in bundle.files.items():
        if path.startswith(".eval_results/"):
            problems += [f"{path}: {one}" for one in find_entry_problems(file.read_text(encoding="utf-8"))]
    if not list((bundle.folder / "results").glob("*.json")):
        problems.append("there are no results: pass --results")
    return problems


def find_loading_problem(
    bundle: Bundle,
    *,
    base: str | None = None,
    engine: str = "auto",
    device: str | None = None,
    quantization: Literal["4bit", "8bit"] | None = None,
) -> str | None:
    """Loads the upload folder as a user would, and classifies; what went wrong, or None."""
    from guardreasoner_moderation import Moderator

    try:
        with Moderator.from_pretrained(
            bundle.folder, base=base, engine=engine, device=device, quantization=quantization
        ) as guard:
            for mode in ("verdict", "think"):
                result = guard.classify(_PROBE, mode=mode, max_reasoning_tokens=16 if mode == "think" else None)
                if result.request is None:
                    return f"the adapter gave no verdict in {mode} mode"
    except Exception as exc:  # noqa: BLE001 - whatever it is: such an adapter is not released
        return f"the adapter does not load and classify: {type(exc).__name__}: {exc}"
    return None


def _file_problems(bundle: Bundle) -> Iterator[str]:
    here = [str(place) for place in (Path.home(), Path.cwd()) if len(place.parts) > 2]
    for path, file in bundle.files.items():
        if not any(fnmatch(path, pattern) for pattern in _ALLOWED) or path.count("/") > 1:
            yield f"{path} does not belong into a release"
        if any(fnmatch(file.name, pattern) for pattern in _FORBIDDEN):
            yield f"{path} is a training state"
        if file.suffix in (".md", ".json", ".yaml"):
            text = file.read_text(encoding="utf-8")
            yield from (f"{path} names a folder of this machine, {place}" for place in here if place in text)
            if holds_secret(text):
                yield f"{path} holds what looks like a token or an API key"
    base = bundle.record.config.get("base_model_name_or_path", "")
    if Path(base).is_absolute() or base.startswith("."):
        yield f"adapter_config.json names its base by a path, {base}: set base_model_name_or_path to its id on the Hub"


def _weight_problems(bundle: Bundle) -> Iterator[str]:
    if weights_sha256(bundle.folder) != bundle.record.sha256:
        yield "the weights in the upload folder are not those of the run"
    files = sorted(bundle.folder.glob("*.safetensors"))
    if not files:
        yield "there are no weights in safetensors"
    for file in files:
        try:
            names = [name for name in read_header(file) if name != "__metadata__"]
        except (OSError, ValueError, struct.error) as exc:
            yield f"{file.name} is not a safetensors file: {exc}"
            continue
        if file.name == "adapter_model.safetensors":
            saved = tuple(bundle.record.config.get("modules_to_save") or ())
            others = [name for name in names if "lora_" not in name and not any(part in name for part in saved)]
            if others:
                yield f"{file.name} holds tensors that are no adapter's, such as {others[0]}"


def read_header(file: Path) -> Mapping[str, Any]:
    """The header of a safetensors file: its first eight bytes tell its length, little-endian; then comes JSON.

    Raises:
        ValueError, struct.error: it is none.
    """
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > file.stat().st_size:
            raise ValueError("its header is longer than the file")
        content = json.loads(stream.read(length))
    if not isinstance(content, dict):
        raise ValueError("its header is no JSON object")
    return content


def _licence_problems(bundle: Bundle, repo_id: str) -> Iterator[str]:
    licence, name = bundle.licence, repo_id.rsplit("/", maxsplit=1)[-1]
    if not (bundle.folder / "LICENSE").exists():
        yield f"the {licence.name} must be passed on: pass the copy that came with the base model as --license-file"
    if licence.name_begins and not name.startswith(licence.name_begins):
        yield f"by the {licence.name} the model's name must begin with {licence.name_begins!r}, found {name!r}"
    card = bundle.card.read_text(encoding="utf-8")
    if licence.display and licence.display not in card:
        yield f"by the {licence.name} the card must show {licence.display!r}"
    if licence.notice:
        notice = bundle.folder / "NOTICE"
        if not notice.exists() or licence.notice not in notice.read_text(encoding="utf-8"):
            yield f"by the {licence.name} a file NOTICE must hold: {licence.notice}"
