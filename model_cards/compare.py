"""Sets a run beside the committed one that it reproduces: cost, validation figures, benchmark figures.

    python -m model_cards.compare COMMITTED
    python -m model_cards.compare COMMITTED RUN --results FILE...

The first form prints what to expect. COMMITTED and RUN are run folders; the committed figures are those of the results
files that the card in COMMITTED names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from guardreasoner_moderation.errors import ModerationError
from guardreasoner_moderation.results import Task
from model_cards.reading import NOT_MEASURED, NOT_RECORDED
from model_cards.record import RunRecord, read_record
from model_cards.request import last_request
from model_cards.results import Evidence, read_evidence


def main(
    committed: Annotated[Path, typer.Argument(help="Run folder of the committed adapter.")],
    run: Annotated[Path | None, typer.Argument(help="Run folder of the reproduction.")] = None,
    more: Annotated[list[Path] | None, typer.Argument(metavar="[FILE]...", help="More files of --results.")] = None,
    results: Annotated[list[Path] | None, typer.Option(help="Results files of the reproduction.")] = None,
) -> None:
    """Compare a reproduction with what it reproduces."""
    try:
        expected = read_record(committed)
        columns = [figures(expected, read_evidence(last_request(committed).results, expected.sha256))]
        if run is not None:
            found = read_record(run)
            columns.append(figures(found, read_evidence((*(results or ()), *(more or ())), found.sha256)))
    except ModerationError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(2) from exc
    for name in dict.fromkeys(name for column in columns for name in column):
        cells = [column.get(name, NOT_MEASURED) for column in columns]
        typer.echo(f"{name:<58}" + "".join(f"{one:>24}" for one in cells))


def figures(record: RunRecord, evidence: Evidence) -> Mapping[str, str]:
    """What can be compared, by name."""
    found = {"": "committed" if record.is_shipped else "reproduction"}
    for key in ("hours", "steps", "tokens"):
        found[f"training, {key}"] = str(record.run.get(key, NOT_RECORDED))
    looks: Sequence[Mapping[str, Any]] = record.run.get("validation") or []
    for task in Task:
        if values := (looks[-1] if looks else {}).get(task.value):
            found[f"last look at validation, {task.value}, AUPRC"] = f"{values['auprc']} of {values['n']}"
    for row in evidence.rows:
        for metric in ("accuracy", "f1"):
            name = f"{row.benchmark}, {row.run.mode}, {row.items} items, {metric}, %"
            found[name] = row.shown(metric)
    for run in evidence.runs:
        found[f"{run.mode} mode, minutes of judging"] = f"{run.seconds / 60:.0f}"
    return found


if __name__ == "__main__":
    typer.run(main)
