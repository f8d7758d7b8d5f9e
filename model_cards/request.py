"""What a card is asked for, written as the command in its last line and read back from it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from guardreasoner_moderation.errors import InputError
from model_cards.reading import ROOT, shown_path

_COMMAND = re.compile(r"<!-- python -m model_cards\.card (.+) -->")


@dataclass(frozen=True, slots=True)
class Request:
    """What a card is asked for.

    Attributes:
        run: the run folder.
        results, beside: results files, of this model and of others.
        repo_id: where the model is published; None for a card that stays with its run.
        name: of the model; default: the repository's, or the adapter's folder.
        version: of the release.
        licence: id of the base's licence, where it is not known.
        decision: what evaluation.decide wrote; default: the run's ``decision.json``.
        override: why it is published against the gate.
    """

    run: Path
    results: Sequence[Path] = ()
    beside: Sequence[Path] = ()
    decision: Path | None = None
    repo_id: str | None = None
    name: str | None = None
    version: str | None = None
    licence: str | None = None
    override: str | None = None

    def __post_init__(self) -> None:
        if "--" in (self.override or ""):  # it would end the comment that it stands in
            raise InputError("the reason of an override must not hold two dashes in a row")

    @property
    def command(self) -> str:
        """What renders the card again."""
        words = ["python", "-m", "model_cards.card", shown_path(self.run)]
        decision = (self.decision,) if self.decision else ()
        for option, files in (("--results", self.results), ("--beside", self.beside), ("--decision", decision)):
            for file in files:
                words += [option, shown_path(file)]
        for option, value in (
            ("--repo-id", self.repo_id),
            ("--name", self.name),
            ("--version", self.version),
            ("--license", self.licence),
            ("--override", self.override),
        ):
            words += [option, value] if value is not None else []
        return shlex.join(words)


def last_request(run: Path) -> Request:
    """What the card in a run folder was asked for, by its last line.

    Raises:
        InputError: there is no card.
    """
    card = run / "README.md"
    found = _COMMAND.search(card.read_text(encoding="utf-8")) if card.exists() else None
    if found is None:
        raise InputError(f"no results: pass --results, or render a card into {card} that names them")
    words = shlex.split(found[1])[1:]
    given: dict[str, list[str]] = {}
    for option, value in zip(words[::2], words[1::2], strict=True):
        given.setdefault(option, []).append(value)

    def files(option: str) -> tuple[Path, ...]:
        return tuple(ROOT / value for value in given.get(option, ()))

    names = ("--repo-id", "--name", "--version", "--license", "--override")
    return Request(
        run,
        files("--results"),
        files("--beside"),
        next(iter(files("--decision")), None),
        *(given.get(name, [None])[0] for name in names),
    )
