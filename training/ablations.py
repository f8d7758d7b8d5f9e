"""Ablations: small adapters, one for each question, measured on the same validation items.

    python -m training.ablations training/ablations.yaml --data-dir training/datasets --out runs/ablations --estimate
    python -m training.ablations training/ablations.yaml --data-dir training/datasets --out runs/ablations
    python -m training.ablations training/ablations.yaml --data-dir training/datasets --out runs/ablations \
        --report evaluation/results/ablations.json

What it will cost is told before anything starts: tokens, and hours by a rate that is measured first. Run the same
command again to go on after a stop or a kill; a finished cell is skipped. ``--report`` trains nothing: it writes the
figures of the finished cells, of which ``make pages`` renders ``docs/ablations.md``.

All cells have the same recipe, the same validation items and the same seed; no checkpoint is chosen. Each is run once,
so an interval tells the chance in the items, not the chance in training.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from guardreasoner_moderation import weights
from guardreasoner_moderation.checkpoint import Checkpoint, read_gguf
from guardreasoner_moderation.engines.encoding import SpanEncoder
from guardreasoner_moderation.errors import ModerationError
from guardreasoner_moderation.results import Mode
from training import rsft
from training.ablation_cells import identify, is_finished, recipe_of, run_cell, training_items, validation_items
from training.ablation_grid import Cell, Grid, read_grid
from training.ablation_report import write_report
from training.data import TRAIN, Example, LabelledInteraction, read_interactions

SECONDS_AN_ITEM: Mapping[Mode, float] = {Mode.VERDICT: 0.4, Mode.THINK: 1.2}
"""About what judging a short item takes on a slow core; conversion and loading take half a minute for each cell."""

_HARD_SHARE = 0.2  # of sampled items, to be expected; the cost of HS-DPO depends on it
_DPO_SLOWNESS = 3.0  # padded pairs in float32 and the reference's pass, against packed sequences
_MEASURE_SECONDS = 15.0


def main(
    grid_file: Annotated[Path, typer.Argument(help="A grid, such as training/ablations.yaml.")],
    data_dir: Annotated[Path, typer.Option(help="Folder with the grid's data file.")],
    out: Annotated[Path, typer.Option(help="Folder of the cells' run folders; finished ones are skipped.")],
    report: Annotated[Path | None, typer.Option(help="Train nothing; write the figures of the finished cells.")] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Tell the cost and stop.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="A cell to run; repeat for several. Default: all.")] = None,
    rate: Annotated[float | None, typer.Option(help="Tokens of training a second; default: measured first.")] = None,
) -> None:
    """Train and measure the cells of a grid."""
    try:
        grid = read_grid(grid_file)
        pool = read_interactions(data_dir / grid.recipe.data[0].file)
        if report is not None:
            write_report(grid, pool, out, report)
            typer.echo(f"written: {report}")
            return
        named = [grid.cell(name) for name in only or [cell.name for cell in grid.cells]]
        waiting = [cell for cell in named if not is_finished(out / cell.name, identify(cell, grid, pool))]
        tell_cost(waiting, grid, pool, rate)
        if not estimate:
            for cell in waiting:
                run_cell(cell, grid, pool, out)
    except ModerationError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(2) from exc


def tell_cost(cells: Sequence[Cell], grid: Grid, pool: Sequence[LabelledInteraction], rate: float | None) -> None:
    """Prints tokens and hours of the cells that are still to do."""
    if not cells:
        typer.echo("every cell is finished")
        return
    checkpoint = read_gguf(weights.base_file(grid.recipe.base))
    rate = rate or measure_rate(grid, pool, checkpoint)
    hours = 0.0
    whole = 0
    for cell in cells:
        tokens = count_tokens(cell, grid, pool, checkpoint)
        seconds = tokens / rate + measuring_seconds(cell, grid, pool)
        typer.echo(f"{cell.name:<24}{tokens:>10,} tokens{seconds / 3600:>7.2f} h")
        whole += tokens
        hours += seconds / 3600
    typer.echo(
        f"{len(cells)} of {len(grid.cells)} cells to train: {whole:,} tokens, about {hours:.1f} hours with all "
        f"measurements, at {rate:.0f} tokens of training a second"
    )


def count_tokens(cell: Cell, grid: Grid, pool: Sequence[LabelledInteraction], checkpoint: Checkpoint) -> int:
    """Tokens that a cell trains on; of ``hs_dpo`` and ``difficult``, what is to be expected."""
    items = training_items(cell, grid, pool)
    plain = sum(map(len, (one for batch in batches_of(cell, grid, items, checkpoint) for one in batch)))
    if cell.kind == "hs_dpo":  # of each hard item two answers with reasoning, about a showing in both ways
        return round(plain / cell.epochs * _HARD_SHARE * 2 * grid.dpo_epochs * _DPO_SLOWNESS)
    if cell.kind == "difficult":
        return round(plain * (1 + _HARD_SHARE * (grid.times - 1)))
    return plain


def measuring_seconds(cell: Cell, grid: Grid, pool: Sequence[LabelledInteraction]) -> float:
    """About how long a cell's measurement takes, and drawing answers for the first that goes on from another."""
    seconds = 30.0
    for mode in grid.modes(cell):
        seconds += SECONDS_AN_ITEM[mode] * len(validation_items(grid, pool, mode))
    if cell.kind == "hs_dpo":
        asked = sum(item.split == TRAIN for item in training_items(cell, grid, pool))
        seconds += SECONDS_AN_ITEM[Mode.THINK] * grid.draws * asked
    return seconds


def batches_of(cell: Cell, grid: Grid, items: list[LabelledInteraction], checkpoint: Checkpoint) -> list[list[Example]]:
    """The steps of a cell's reasoning SFT."""
    recipe = recipe_of(cell, grid)
    eos_id = checkpoint.tokens.index(checkpoint.eos_token)
    batches, _ = rsft.make_batches(recipe, [(recipe.data[0], items)], SpanEncoder(checkpoint.tokenizer), eos_id)
    return batches


def measure_rate(grid: Grid, pool: Sequence[LabelledInteraction], checkpoint: Checkpoint) -> float:
    """Tokens of training a second on this machine, now: some steps of the first cell, whose gradients are dropped."""
    from training.packed import PassWorkers

    first = replace(grid.cells[0], epochs=1, items=grid.recipe.batch_size * 40)
    batches = batches_of(first, grid, training_items(first, grid, pool), checkpoint)
    model = rsft.add_adapter(checkpoint, grid.recipe)
    base: Any = model.get_base_model()
    with PassWorkers() as workers:
        rsft.gradients(workers, base, batches[0], grid.recipe.token_budget, grid.recipe.precision)  # the first is slow
        tokens = 0
        started = time.monotonic()
        for batch in batches[1:] or batches:
            rsft.gradients(workers, base, batch, grid.recipe.token_budget, grid.recipe.precision)
            tokens += sum(map(len, batch))
            if time.monotonic() - started > _MEASURE_SECONDS:
                break
        return tokens / (time.monotonic() - started)


if __name__ == "__main__":
    typer.run(main)
