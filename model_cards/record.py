"""The record of a finished run: what was trained, on what, how, and what it cost.

    RUN/run.json               recipe, data, versions, hardware, hours, losses, looks at the validation split
    RUN/adapter/ or RUN/       adapter_config.json, adapter_model.safetensors, moderation.json
    RUN/calibration.json       how the scores were calibrated (optional)
    RUN/decision.json          what evaluation.decide said (optional)

The licence table of the training data is ``inventory`` in ``run.json``, as ``training.inventory`` takes it; records
without one tell the files only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from evaluation.finished import read_object
from guardreasoner_moderation import weights
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.models import SHORT_NAMES, SPEC_FILE, ModelSpec, find_folder, read_spec, weights_sha256
from model_cards.reading import build_rows
from texts.strict_yaml import read_yaml

LICENCES = Path(__file__).with_name("licences.yaml")

_COUNTS = ("train", "validation", "doubtful")


@dataclass(frozen=True, slots=True)
class DataRow:
    """One source of training data: its licence, items in each split, and those left out as doubtfully labelled."""

    source: str
    license: str
    train: int
    validation: int
    doubtful: int


@dataclass(frozen=True, slots=True)
class Licence:
    """What the base model's licence asks of an adapter that is passed on.

    Attributes:
        bases: patterns of the Hub ids that it covers.
        id: as the Hub calls it.
        name: for people.
        file: of the checkout, whose text is passed on; None where the releaser has to bring it.
        name_begins: what the adapter's name must begin with.
        display: what its page must show.
        notice: the content of its NOTICE file.
    """

    bases: tuple[str, ...]
    id: str
    name: str
    file: str | None = None
    name_begins: str | None = None
    display: str | None = None
    notice: str | None = None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run folder, read.

    Attributes:
        folder: of the run.
        adapter: where the weights lie.
        run: content of ``run.json``; empty where there is none.
        config: content of ``adapter_config.json``.
        spec: how the model is asked and its scores are read.
        calibration, decision: content of these files; None where there are none.
        sha256: of the weights.
    """

    folder: Path
    adapter: Path
    run: Mapping[str, Any]
    config: Mapping[str, Any]
    spec: ModelSpec
    calibration: Mapping[str, Any] | None
    decision: Mapping[str, Any] | None
    sha256: str

    @property
    def base(self) -> str:
        """The base model's id on the Hub, or a path."""
        known = weights.BASES.get(self.spec.base or "")
        return known.source if known else str(self.config["base_model_name_or_path"])

    @property
    def is_shipped(self) -> bool:
        """Whether the package carries these very weights as its embedded model."""
        return any(weights_sha256(find_folder(name)) == self.sha256 for name in SHORT_NAMES)

    @property
    def earlier(self) -> Mapping[str, Any]:
        """The record of the round that this one started from; empty where there was none, or it is not known."""
        found: Mapping[str, Any] = (self.run.get("started_from") or {}).get("run") or {}
        return found

    @property
    def data(self) -> Sequence[DataRow]:
        """What was learned from; empty where the record does not tell.

        Raises:
            InputError: the record's table is damaged.
        """
        try:
            return [
                DataRow(str(row["source"]), str(row["license"]), *(int(row[key]) for key in _COUNTS))
                for row in self.run.get("inventory") or ()
            ]
        except (KeyError, TypeError, ValueError) as exc:
            raise InputError(f"{self.folder / 'run.json'}: the inventory is not right: {exc!r}") from exc


def read_record(folder: Path, decision: Path | None = None) -> RunRecord:
    """Reads a run folder.

    Args:
        folder: of the run.
        decision: what evaluation.decide wrote, where it lies elsewhere.

    Raises:
        InputError: there is none, or it holds no adapter.
        IncompatibleModelError: its ``moderation.json`` is damaged.
    """
    if not folder.is_dir():
        raise InputError(f"there is no run folder {folder}")
    adapter = folder / "adapter" if (folder / "adapter" / "adapter_config.json").exists() else folder
    if not (adapter / "adapter_config.json").exists():
        raise InputError(f"{folder} holds no adapter: no adapter_config.json, neither there nor in its folder adapter")
    if not (adapter / SPEC_FILE).exists():
        raise InputError(
            f"{adapter} has no {SPEC_FILE}, how the adapter is asked: python -m training.calibrate writes it"
        )

    def optional(name: str) -> dict[str, Any] | None:
        places = [place / name for place in (folder, adapter) if (place / name).exists()]
        return read_object(places[0]) if places else None

    return RunRecord(
        folder=folder,
        adapter=adapter,
        run=optional("run.json") or {},
        config=read_object(adapter / "adapter_config.json"),
        spec=read_spec(adapter / SPEC_FILE),
        calibration=optional("calibration.json"),
        decision=read_object(decision) if decision else optional("decision.json"),
        sha256=weights_sha256(adapter),
    )


def find_licence(base: str, given: str | None = None) -> Licence:
    """The licence of a base model.

    Args:
        base: its id on the Hub.
        given: the licence's id, for a base that ``licences.yaml`` does not know.

    Raises:
        InputError: the base is unknown and no licence was given, or another one than the base's.
    """
    rows = [row | {"bases": tuple(row["bases"])} for row in read_yaml(LICENCES)]
    known = build_rows(Licence, rows, LICENCES)
    for licence in known:
        if any(fnmatch(base.lower(), pattern.lower()) for pattern in licence.bases):
            if given not in (None, licence.id):
                raise InputError(f"{base} is under {licence.id}, so an adapter of it cannot be under {given}")
            return licence
    if given is None:
        raise InputError(f"the licence of {base} is not known: pass --license, or add the base to {LICENCES.name}")
    return next((licence for licence in known if licence.id == given), Licence((base,), given, given))
