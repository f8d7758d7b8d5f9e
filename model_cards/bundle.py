"""The upload folder of a release: everything that is published, and nothing else.

    README.md, figures/*.png             the card and its plots
    adapter_config.json, *.safetensors   the adapter, with its tokenizer's files if it brings them
    moderation.json, run.json, ...       how it is asked, how it was trained, calibrated and decided on
    results/*.json, .eval_results/*.yaml what was measured
    LICENSE, NOTICE                      what the base model's licence asks for
    release.json                         version, hashes, gate: what the next release and a resumed one look at

Files are picked by name from a list, so that no checkpoint, optimiser state or data set comes along. The same inputs
give the same bytes.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guardreasoner_moderation.cache import read_sha256
from guardreasoner_moderation.errors import InputError
from model_cards.card import collect, write_card
from model_cards.metadata import entries_to_yaml, eval_entries
from model_cards.reading import ROOT
from model_cards.record import Licence, RunRecord, find_licence, read_record
from model_cards.request import Request
from model_cards.results import Evidence, read_evidence

MANIFEST = "release.json"

_ADAPTER_FILES = (
    "adapter_config.json",
    "*.safetensors",
    "moderation.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A written upload folder.

    Attributes:
        folder: where it is.
        record, licence: of what is released.
    """

    folder: Path
    record: RunRecord
    licence: Licence

    @property
    def card(self) -> Path:
        """The rendered card."""
        return self.folder / "README.md"

    @property
    def files(self) -> Mapping[str, Path]:
        """All files by their path in the repository."""
        return list_files(self.folder)


def write_bundle(request: Request, folder: Path, *, licence_file: Path | None = None) -> Bundle:
    """Writes the upload folder anew.

    Args:
        request: of the card.
        folder: to write; one that is there must be empty or an earlier upload folder.
        licence_file: the copy of the base model's licence, where the checkout has none.

    Raises:
        InputError: the folder holds something else, or the run or a results file is not right.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / MANIFEST).exists():
        raise InputError(f"{folder} holds something else than an upload folder; pass another --out")
    record = read_record(request.run, request.decision)
    licence = find_licence(record.base, request.licence)
    evidence = read_evidence(request.results, record.sha256, request.beside)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Written beside its place and moved there when it is whole.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as name:
        staging = Path(name) / folder.name
        staging.mkdir()
        _copy_adapter(record, staging)
        _copy_results(evidence, staging)
        _write_licence(licence, licence_file, staging)
        write_card(collect(request), staging / "README.md")
        manifest = {
            "repo_id": request.repo_id,
            "version": request.version,
            "base": record.base,
            "license": licence.id,
            "weights_sha256": record.sha256,
            "gate": record.decision and record.decision.get("verdict"),
            "override": request.override,
            "files": {path: read_sha256(file) for path, file in list_files(staging).items()},
        }
        _write_json(staging / MANIFEST, manifest)
        if folder.exists():
            shutil.rmtree(folder)
        staging.rename(folder)
    return Bundle(folder, record, licence)


def list_files(folder: Path) -> dict[str, Path]:
    """All files of a folder by their paths in it, sorted."""
    return {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}


def unique_names(files: Sequence[Path]) -> list[str]:
    """The files' names, with their folder's in front where two are alike."""
    names = [file.name for file in files]
    names = [
        f"{file.resolve().parent.name}.{name}" if names.count(name) > 1 else name
        for file, name in zip(files, names, strict=True)
    ]
    return [name if names.index(name) == number else f"{number}.{name}" for number, name in enumerate(names)]


def _copy_adapter(record: RunRecord, folder: Path) -> None:
    for pattern in _ADAPTER_FILES:
        for file in record.adapter.glob(pattern):
            shutil.copyfile(file, folder / file.name)
    for name, content in (("run", record.run), ("calibration", record.calibration), ("decision", record.decision)):
        if content:
            _write_json(folder / f"{name}.json", content)


def _copy_results(evidence: Evidence, folder: Path) -> None:
    for file, name in zip(evidence.files, unique_names(evidence.files), strict=True):
        (folder / "results").mkdir(exist_ok=True)
        shutil.copyfile(file, folder / "results" / name)
    for name, entries in eval_entries(evidence.rows).items():
        (folder / ".eval_results").mkdir(exist_ok=True)
        (folder / ".eval_results" / name).write_text(entries_to_yaml(entries), encoding="utf-8")


def _write_licence(licence: Licence, given: Path | None, folder: Path) -> None:
    source = given or (ROOT / licence.file if licence.file else None)
    if source is not None:
        if not source.is_file():
            raise InputError(f"there is no licence file {source}")
        shutil.copyfile(source, folder / "LICENSE")
    if licence.notice:
        (folder / "NOTICE").write_text(f"{licence.notice}\n", encoding="utf-8")


def _write_json(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
