"""Prepares training data: reads sources, cleans, splits and balances them, and says what is left and what is not.

    python -m training.data DATA                                       what is in a folder
    python -m training.data DATA mine.jsonl --benchmarks BENCHMARKS --out train.jsonl
    python -m training.data GuardReasonerTrain --benchmarks BENCHMARKS --limit 5000 --seed 1 --out train.jsonl
    python -m training.data chats.jsonl --license CC-BY-4.0 --balance request --balance-ratio 1.5 --out train.jsonl

The steps, in this order: interactions that come twice are taken once; prompts of benchmarks are taken out; a source
that has no validation split of its own gets one by prompt; training items whose prompt is in validation are taken out;
the training split is balanced, then cut to the limit. Beside the prepared file comes ``<name>.record.json`` with all
counts, the licence table and the hashes of what went in.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from guardreasoner_moderation.cache import read_sha256
from guardreasoner_moderation.errors import InputError, ModerationError, nearest
from guardreasoner_moderation.interactions import Interaction
from training.balance import GROUPS, balance
from training.data import TRAIN, VALIDATION, LabelledInteraction, to_row, write_rows
from training.decontamination import Found, decontaminate, read_benchmarks
from training.inventory import inventory_tables, take_inventory
from training.sources import UNKNOWN_LICENSE, Loaded, load_sources
from training.splits import separate, split_by_prompt, subset


@dataclass(frozen=True, slots=True)
class Settings:
    """What :func:`prepare` does.

    Attributes:
        benchmarks: folder of benchmark files; None to decontaminate nothing.
        trained_on: benchmarks, by their file's name without ending, whose prompts stay.
        validation_share: of the prompts of each source without a validation split.
        balance: what is balanced, one of :data:`training.balance.GROUPS`; empty for nothing.
        balance_ratio: how much larger than the smallest a group may be.
        limit: training items; 0 for all.
        seed: of all draws.
    """

    benchmarks: Path | None = None
    trained_on: tuple[str, ...] = ()
    validation_share: float = 0.05
    balance: str = ""
    balance_ratio: float = 1.0
    limit: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.validation_share < 1:
            raise InputError(f"the validation share must be from 0 up to 1, found {self.validation_share}")
        if self.balance and self.balance not in GROUPS:
            raise InputError(f"unknown balance {self.balance!r}{nearest(self.balance, GROUPS)}")
        if self.limit < 0:
            raise InputError(f"the limit must be at least 0, found {self.limit}")


@dataclass(frozen=True, slots=True)
class Prepared:
    """Prepared data and what became of the rest.

    Attributes:
        items: of both splits.
        duplicates: interactions that came again.
        found: what was shared with each benchmark.
        contaminated: items that were left out for it.
        separated: training items whose prompt is in the validation split.
        balanced: from each group to its size before and after.
    """

    items: list[LabelledInteraction]
    duplicates: int
    found: list[Found]
    contaminated: int
    separated: int
    balanced: dict[str, tuple[int, int]]


def main(
    sources: Annotated[list[str], typer.Argument(help="Files, folders, or GuardReasonerTrain[/SPLIT] on the Hub.")],
    out: Annotated[Path | None, typer.Option(help="JSONL file to write; without it, only look.")] = None,
    benchmarks: Annotated[Path | None, typer.Option(help="Folder of benchmark files to decontaminate against.")] = None,
    trained_on: Annotated[list[str] | None, typer.Option(help="Benchmark whose prompts stay; may be repeated.")] = None,
    validation_share: Annotated[float, typer.Option(help="For sources without a validation split.")] = 0.05,
    balance: Annotated[str, typer.Option(help=f"What to balance: {', '.join(GROUPS)}.")] = "",
    balance_ratio: Annotated[float, typer.Option(help="Largest group against smallest.")] = 1.0,
    limit: Annotated[int, typer.Option(help="Training items; 0 for all.")] = 0,
    seed: Annotated[int, typer.Option(help="Of splits, balance and limit.")] = 0,
    license: Annotated[str, typer.Option(help="Of rows that name none.")] = UNKNOWN_LICENSE,  # noqa: A002
    revision: Annotated[str | None, typer.Option(help="Commit of GuardReasonerTrain.")] = None,
) -> None:
    """Look at training data, and prepare it."""
    console = Console()
    try:
        settings = Settings(benchmarks, tuple(trained_on or ()), validation_share, balance, balance_ratio, limit, seed)
        loaded = load_sources(sources, default_license=license, revision=revision)
        prepared = prepare(loaded, settings)
        show(loaded, prepared, console)
        if out is not None:
            write_rows(map(to_row, prepared.items), out)
            record = describe(loaded, prepared, settings, out)
            out.with_suffix(".record.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            console.print(f"{len(prepared.items)} items written to {out}", highlight=False)
    except ModerationError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(2) from exc


def prepare(loaded: Sequence[Loaded], settings: Settings) -> Prepared:
    """Prepares what was read.

    Raises:
        InputError: a benchmark cannot be read, or nothing is left to train on.
    """
    items: list[LabelledInteraction] = []
    for one in loaded:
        own = one.splits_itself
        items += one.items if own else split_by_prompt(one.items, settings.validation_share, settings.seed)
    once: dict[Interaction, LabelledInteraction] = {}
    for item in items:
        known = once.setdefault(item.interaction, item)
        if item.split == VALIDATION and known.split == TRAIN:  # the validation split stays whole
            once[item.interaction] = item
    clean = list(once.values())
    found: list[Found] = []
    if settings.benchmarks is not None:
        clean, found = decontaminate(clean, read_benchmarks(settings.benchmarks), settings.trained_on)
    kept, separated = separate(clean)
    sizes: dict[str, tuple[int, int]] = {}
    if settings.balance:
        kept, sizes = balance(kept, GROUPS[settings.balance], ratio=settings.balance_ratio, seed=settings.seed)
    if settings.limit:
        kept = subset(kept, settings.limit, settings.seed)
    if not kept:
        raise InputError("nothing is left to train on: every item is in a benchmark")
    return Prepared(kept, len(items) - len(once), found, len(once) - len(clean), separated, sizes)


def show(loaded: Sequence[Loaded], prepared: Prepared, console: Console) -> None:
    """Prints what is left, and what was left out and why."""
    for table in inventory_tables(take_inventory(prepared.items)):
        console.print(table)
    if prepared.found:
        shared = Table("benchmark", title="training prompts that are in a benchmark")
        for heading in ("prompts", "same", "near", ""):
            shared.add_column(heading, justify="right", no_wrap=True)
        for one in prepared.found:
            kept = "kept: trained on" if one.kept else ""
            shared.add_row(one.benchmark, str(one.prompts), str(one.exact), str(one.near), kept)
        console.print(shared)
    for name, (before, after) in prepared.balanced.items():
        console.print(f"balance: {after} of {before} {name}", highlight=False)
    for one_file in loaded:
        for reason, count in one_file.left_out.items():
            console.print(f"left out: {count} rows of {one_file.name}: {reason}", highlight=False)
    for count, reason in (
        (prepared.duplicates, "came before"),
        (prepared.contaminated, "ask what a benchmark asks"),
        (prepared.separated, "have a prompt of the validation split"),
    ):
        if count:
            console.print(f"left out: {count} items that {reason}", highlight=False)


def describe(loaded: Sequence[Loaded], prepared: Prepared, settings: Settings, out: Path) -> dict[str, Any]:
    """The record that goes beside the prepared file; it holds no text of an item."""
    return {
        "settings": asdict(settings) | {"benchmarks": settings.benchmarks and settings.benchmarks.name},
        "sources": [
            {
                "name": one.name,
                "rows": len(one.items) + sum(one.left_out.values()),
                "left_out": dict(one.left_out),
                "sha256": one.sha256,
                "revision": one.revision,
            }
            for one in loaded
        ],
        "inventory": take_inventory(prepared.items),
        "decontamination": [asdict(one) for one in prepared.found],
        "left_out": {
            "duplicates": prepared.duplicates,
            "contaminated": prepared.contaminated,
            "prompt in validation": prepared.separated,
        },
        "balance": {name: {"before": before, "after": after} for name, (before, after) in prepared.balanced.items()},
        "sha256": read_sha256(out),
    }
