"""Input that nobody should send, by the ten thousand: each gets a verdict or an error of ours, in time.

    python -m reliability.bad_input --out reliability/results/bad_input.json
    python -m reliability.bad_input --only recipes --inputs 100

All surfaces take about ten minutes. ``--only`` tries those whose name holds a word, and leaves the rows of the others
in the record as they are. The same seed draws the same inputs.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from reliability.call_surfaces import CALLS
from reliability.file_surfaces import FILES
from reliability.record import Record, Trial
from reliability.server_surfaces import SERVER
from reliability.surface import Outcome, try_surface

SURFACES = (*CALLS, *FILES, *SERVER)
MOST_GROWTH = 300.0  # MB from when a surface is warm to its end


def main(
    out: Annotated[Path | None, typer.Option(help="Record to write; without it nothing is written.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Words of surfaces' names; default: all.")] = None,
    inputs: Annotated[int | None, typer.Option(help="Of each surface; default: as many as it has.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed draws the same inputs.")] = 0,
) -> None:
    """Try the surfaces. Exit code 1 if something else than a verdict or an error of ours came out."""
    chosen = [surface for surface in SURFACES if not only or any(word in surface.name for word in only)]
    failed = False
    for surface in chosen:
        with tempfile.TemporaryDirectory() as folder:
            outcome = try_surface(surface, Path(folder), inputs=inputs or surface.inputs, seed=seed)
        trial = outcome.trial(surface.name)
        typer.echo(f"{surface.name}: {json.dumps(trial.figures)}, {len(outcome.failures)} of {outcome.tried} failed")
        for failure in outcome.failures[:20]:
            typer.echo(f"  {failure}")
        if grew := _growth(outcome):
            typer.echo(f"  memory grew by {grew:.0f} MB")
        failed = failed or bool(outcome.failures) or grew > 0
        if out is not None:
            _record(out, trial, seed)
    raise typer.Exit(1 if failed else 0)


def _growth(outcome: Outcome) -> float:
    """MB by which memory grew beyond what is allowed; 0 where it did not."""
    grew = outcome.memory[1] - outcome.memory[0]
    return grew if grew > MOST_GROWTH else 0.0


def _record(out: Path, trial: Trial, seed: int) -> None:
    """Puts a row in its place in the record."""
    record = Record(
        title="Bad input",
        promise="Each input gets a verdict, is accepted, or is refused with an error of this package's own tree (the "
        "server: a documented status of 400 to 499), within the time limit of its surface. What cannot be judged is "
        "flagged. Anything else counts as failed: an exception of a dependency, a status of 500 or above, a hang.",
        command="python -m reliability.bad_input --out reliability/results/bad_input.json",
        trials=[],
        notes=[f"Drawn with the seed {seed}."],
    )
    before = {one.name: one for one in Record.load(out).trials} if out.exists() else {}
    rows = {**before, trial.name: trial}
    order = [surface.name for surface in SURFACES if surface.name in rows]
    total = sum(rows[name].tried for name in order)
    notes = [*record.notes, f"{total:,} inputs in all."]
    replace(record, trials=[rows[name] for name in order], notes=notes).save(out)


if __name__ == "__main__":
    typer.run(main)
