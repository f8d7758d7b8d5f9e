"""One cell of the ablations: its data, its training, and its measurement by the engine that users run.

    RUNS/CELL/plan.json                       written first: the settings and the data, which never change
    RUNS/CELL/data/items.jsonl, recipe.yaml   what it learns from, and how
    RUNS/CELL/run/                            the trainer's run folder, with the adapter
    RUNS/CELL/verdict.jsonl, think.jsonl      log-odds of every validation item, without calibration
    RUNS/CELL/samples.jsonl                   answers of this cell's model, where another goes on from its hard samples
    RUNS/CELL/cell.json                       written last: the cell is finished

Each part goes on where a kill has stopped it. ``plan.json``, ``cell.json`` and the log-odds are enough for the report,
and for a cell not to be trained again: git keeps these of ``evaluation/results/ablations``, so that a grid can be
finished on several machines, one after the other.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import typer
import yaml

from guardreasoner_moderation.engines.base import Sampling
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.models import SPEC_FILE, find_folder, read_spec, weights_sha256
from guardreasoner_moderation.moderator import Moderator
from guardreasoner_moderation.results import Mode
from guardreasoner_moderation.verdicts import DEFAULT_THRESHOLDS
from training import export, hard_samples, hs_dpo, rsft
from training.ablation_grid import Cell, Grid
from training.calibrate import judge_all
from training.data import TRAIN, VALIDATION, LabelledInteraction, to_row, write_rows
from training.journal import Journal, read_journal
from training.nf4 import round_to_nf4
from training.pairs import pair_row
from training.recipe import DataSource, Recipe
from training.run_folder import RECORD_FILE
from training.sampling import Samples, draw_samples, read_samples
from training.splits import draw, subset
from training.trl_recipe import DpoRecipe

CELL_FILE = "cell.json"
_PLAN_FILE = "plan.json"
ITEMS_FILE = "items.jsonl"
_LOOK_ITEMS = 100  # of the trainer's own look, which chooses nothing: there is one, at the end
_AT_THE_END = 10**9  # steps between two looks
_SECOND_ROUND = ("draws", "times", "dpo_learning_rate", "dpo_epochs", "dpo_batch_size")


def run_cell(cell: Cell, grid: Grid, pool: Sequence[LabelledInteraction], runs: Path) -> bool:
    """Trains and measures a cell, unless that was done.

    Args:
        cell: which.
        grid: whose; the cell's start is finished.
        pool: the items of the grid's data file.
        runs: folder of the cells.

    Returns:
        Whether there was anything to do.

    Raises:
        InputError: the folder holds a cell of other settings or data, the adapter that it goes on from is not there, or
            no sampled item is hard.
    """
    folder = runs / cell.name
    identity = identify(cell, grid, pool)
    if is_finished(folder, identity):
        return False
    first = runs / cell.start if cell.start else None
    if first is not None and not (first / "run" / "adapter").is_dir():
        raise InputError(
            f"{cell.name} goes on from the adapter of {cell.start}, which is not in {first / 'run'}: it was trained "
            f"elsewhere; remove {first} to train it here"
        )
    typer.echo(f"\n== {cell.name}")
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / _PLAN_FILE, identity)
    train(cell, grid, pool, runs)
    adapter = folder / "run" / "adapter"
    with running(adapter, cell.on_4_bits) as guard:
        for mode in grid.modes(cell):
            judge_all(guard, validation_items(grid, pool, mode), mode, folder / f"{mode}.jsonl")
    record = json.loads((folder / "run" / RECORD_FILE).read_text(encoding="utf-8"))
    kept = ("steps", "tokens", "hours", "versions", "hardware", "commit")
    found = {"weights_sha256": weights_sha256(adapter), **{key: record[key] for key in kept}}
    _write(folder / CELL_FILE, {**identity, **found})
    return True


def identify(cell: Cell, grid: Grid, pool: Sequence[LabelledInteraction]) -> dict[str, Any]:
    """What a cell is made with; in a folder it never changes."""
    rows = json.dumps([to_row(item) for item in pool])
    settings = dataclasses.asdict(grid)
    decisive = ["recipe", "verdict_items", "think_items", *(_SECOND_ROUND if cell.start else ())]
    identity: dict[str, Any] = {
        "cell": dataclasses.asdict(cell),
        "start": dataclasses.asdict(grid.cell(cell.start)) if cell.start else None,
        "grid": {key: settings[key] for key in decisive},
        "data_sha256": sha256(rows.encode()).hexdigest(),
    }
    read_back: dict[str, Any] = json.loads(json.dumps(identity))
    return read_back


def is_finished(folder: Path, identity: dict[str, Any]) -> bool:
    """Whether the cell was trained and measured.

    Raises:
        InputError: it was begun with other settings or data.
    """
    plan = folder / _PLAN_FILE
    known = json.loads(plan.read_text(encoding="utf-8")) if plan.exists() else identity
    for key, value in identity.items():
        if known.get(key) != value:
            raise InputError(f"{folder} holds a cell with another {key}; choose another --out, or remove it")
    return (folder / CELL_FILE).exists()


def training_items(cell: Cell, grid: Grid, pool: Sequence[LabelledInteraction]) -> list[LabelledInteraction]:
    """What a cell learns from, with a few items for the trainer's look at the end."""
    sure = [item for item in pool if not item.doubtful]
    chosen = subset(sure, cell.items or len(sure), grid.recipe.seed)
    look = {item.id for item in validation_items(grid, pool, Mode.VERDICT)[:_LOOK_ITEMS]}
    return [shorten(item, cell.sentences) for item in chosen if item.split == TRAIN or item.id in look]


def validation_items(grid: Grid, pool: Sequence[LabelledInteraction], mode: Mode) -> list[LabelledInteraction]:
    """What a mode is measured on: the same in all cells, and those of the smaller number among those of the larger."""
    count = grid.think_items if mode is Mode.THINK else grid.verdict_items
    held_out = [item for item in pool if item.split == VALIDATION and not item.doubtful]
    ordered = sorted(held_out, key=lambda item: draw(grid.recipe.seed, "measured", item.id))
    return ordered[: count or None]


def shorten(item: LabelledInteraction, sentences: int) -> LabelledInteraction:
    """An item with the first so many sentences of its reasoning on each task; 0 for all."""
    if not sentences:
        return item
    return replace(item, reasoning={task: steps[:sentences] for task, steps in item.reasoning.items()})


def recipe_of(cell: Cell, grid: Grid) -> Recipe:
    """The recipe of a cell's reasoning SFT; its one look at the validation split, at the end, chooses nothing."""
    share = grid.cell(cell.start).think_share if cell.start else cell.think_share
    data = (DataSource(ITEMS_FILE, share),)
    return replace(
        grid.recipe,
        data=data,
        epochs=cell.epochs,
        learning_rate=cell.learning_rate or grid.recipe.learning_rate,
        precision="nf4" if cell.on_4_bits else grid.recipe.precision,
        eval_steps=_AT_THE_END,
        eval_items=_LOOK_ITEMS,
    )


def train(cell: Cell, grid: Grid, pool: Sequence[LabelledInteraction], runs: Path) -> None:
    """Trains a cell's adapter and writes how it is asked, unless that was done."""
    folder = runs / cell.name
    run, data = folder / "run", folder / "data"
    start = runs / cell.start / "run" / "adapter" if cell.start else None
    if not (run / RECORD_FILE).exists():
        data.mkdir(parents=True, exist_ok=True)
        items = training_items(cell, grid, pool)
        if cell.kind == "hs_dpo":
            pairs = hard_samples.mine(sample(cell, grid, items, runs), cell.start)
            if not pairs:
                raise InputError(f"{cell.name}: no item is hard for {cell.start}; sample more items")
            write_rows(map(pair_row, pairs), data / "pairs.jsonl")
            recipe = _write_recipe(dpo_recipe(grid), data)
            hs_dpo.main(recipe, data / "pairs.jsonl", start or Path(), run)
        else:
            if cell.kind == "difficult":
                hard = {one.item.id for one in sample(cell, grid, items, runs) if one.wrong}
                items = list(hard_samples.repeat_difficult(items, hard, grid.times))
            write_rows(map(to_row, items), data / ITEMS_FILE)
            rsft.main(_write_recipe(recipe_of(cell, grid), data), data, run, start)
    asked = read_spec(find_folder("embedded") / SPEC_FILE)
    spec = replace(asked, base=grid.recipe.base, calibration={}, thresholds=dict(DEFAULT_THRESHOLDS))
    (run / "adapter" / SPEC_FILE).write_text(spec.to_json(), encoding="utf-8")


def dpo_recipe(grid: Grid) -> DpoRecipe:
    """The recipe of hard-sample DPO; beta and the SFT term are the paper's."""
    return DpoRecipe(
        base=grid.recipe.base,
        prompt_format="compact",
        precision="fp32",
        max_tokens=grid.recipe.max_tokens,
        epochs=grid.dpo_epochs,
        batch_size=grid.dpo_batch_size,
        learning_rate=grid.dpo_learning_rate,
        gradient_checkpointing=False,
        save_steps=5,
        seed=grid.recipe.seed,
    )


def sample(cell: Cell, grid: Grid, items: Sequence[LabelledInteraction], runs: Path) -> list[Samples]:
    """Answers of the cell's start to the training items, drawn once for all cells that go on from it."""
    adapter = runs / cell.start / "run" / "adapter"
    asked = [item for item in items if item.split == TRAIN]
    sampling = Sampling(0.7, 0.95, grid.recipe.seed)
    job = {"weights_sha256": weights_sha256(adapter), "temperature": 0.7, "top_p": 0.95, "seed": grid.recipe.seed}
    file = runs / cell.start / "samples.jsonl"
    with Journal(file, job) as journal, running(adapter) as guard:
        draw_samples(guard, asked, grid.draws, sampling, journal)
    known = {item.id for item in asked}
    return read_samples([row for row in read_journal(file)[1] if row["id"] in known], asked)


@contextmanager
def running(adapter: Path, on_4_bits: bool = False) -> Iterator[Moderator]:
    """A moderator of an adapter, uncalibrated, on the engine that users run; its int8 weights are gone afterwards.

    ``on_4_bits`` merges it with the base as ``qlora`` has seen it.
    """
    from guardreasoner_moderation.engines.ctranslate2 import CTranslate2Engine, convert

    checkpoint, spec, _ = export.merge(str(adapter), round_to_nf4 if on_4_bits else None)
    with tempfile.TemporaryDirectory() as folder:
        convert(checkpoint, Path(folder))
        with Moderator.from_engine(CTranslate2Engine(Path(folder)), spec) as guard:
            yield guard


def _write(file: Path, content: dict[str, Any]) -> None:
    """Writes JSON, whole or not at all."""
    new = file.with_suffix(".new")
    new.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(new, file)


def _write_recipe(recipe: Recipe | DpoRecipe, data: Path) -> Path:
    file = data / "recipe.yaml"
    file.write_text(yaml.safe_dump(dataclasses.asdict(recipe), sort_keys=False), encoding="utf-8")
    return file
