"""Renders docs/reliability.md from the committed records of all trials, and from the server's load figures.

    python -m reliability.pages

A test renders it and compares. What has no record yet is named as not measured, with its command. ``--commands``
prints these commands in their order, as ``scripts/reliability.sh`` runs them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from guardreasoner_moderation.errors import InputError, ModerationError, nearest
from reliability.record import Record, Value

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
RESULTS = ROOT / "reliability" / "results"
LOADS = ROOT / "evaluation" / "results"


@dataclass(frozen=True, slots=True)
class Section:
    """Where a part of the page comes from.

    Attributes:
        name: of the file with its figures, without ``.json``.
        title: heading, as long as there is no record with one of its own.
        command: what measures it.
    """

    name: str
    title: str
    command: str


def _trial(name: str, title: str) -> Section:
    return Section(name, title, f"python -m reliability.{name} --out reliability/results/{name}.json")


TRIALS = (
    _trial("structure", "Hostile texts: structure"),
    _trial("hostile_text", "Hostile texts: verdicts"),
    _trial("long_inputs", "A payload hidden in a long text"),
    _trial("same_verdict", "Same item, same verdict"),
    _trial("bad_input", "Bad input"),
    _trial("server_faults", "The server: what happens when parts of it fail"),
    _trial("batch_faults", "Files: what happens to a batch job"),
    Section(
        "batch_rate",
        "Files: the rate of long jobs",
        "python -m reliability.batch_rate --out reliability/results/batch_rate.json",
    ),
    Section(
        "batch_rate_stand_in",
        "Files: the rate of long jobs, without the model",
        "python -m reliability.batch_rate --stand-in --out reliability/results/batch_rate_stand_in.json",
    ),
    _trial("training_kills", "Training: runs that are killed"),
)
"""The records in the order of the page. ``NAME_MORE.json`` comes after ``NAME.json``, and all others come last."""

SERVER_LOADS = (
    Section(
        "soak",
        "The server under load for long",
        "python -m evaluation.load --rounds 1 --steady 1200 --factor 3 --overload 120 --recovery 60 --clients 8 "
        "--queue-seconds 6 --out evaluation/results/soak.json",
    ),
    Section("load", "The server under load", "python -m evaluation.load --out evaluation/results/load.json"),
)
"""What ``evaluation.load`` writes, in the order of the page, after the trials."""

_INTRODUCTION = """\
# Hostile input and failure

<!-- Rendered by python -m reliability.pages; not to be edited. -->

What was tried against the guard, how often, and what was lost. Each section is one command, which anyone can run again;
all of them one after the other, for a quiet machine, are `scripts/reliability.sh`. Their short forms are tests
(`tests/reliability/`, `tests/adversarial/`) and run with all others. *Failed* counts the tries in which what the
section promises did not hold; a dash stands where nothing is promised, or nothing was measured.
"""


def main(
    names: Annotated[list[str] | None, typer.Argument(help="With --commands: only these; default: all.")] = None,
    commands: Annotated[bool, typer.Option("--commands", help="Print what measures them; render nothing.")] = False,
) -> None:
    """Render docs/reliability.md."""
    known = {section.name: section for section in (*TRIALS, *SERVER_LOADS)}
    unknown = [name for name in names or () if name not in known]
    try:
        if unknown:
            raise InputError(f"there are no trials {unknown[0]!r}{nearest(unknown[0], known)}")
        if commands:
            for name in names or known:
                typer.echo(known[name].command)
        else:
            PAGE.write_text(render(), encoding="utf-8")
    except ModerationError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(2) from exc


def render(results: Path = RESULTS, loads: Path = LOADS) -> str:
    """The page.

    Args:
        results: folder with records.
        loads: folder with what ``evaluation.load`` wrote.

    Raises:
        ModerationError: a file is not what it should be.
    """
    parts = [_INTRODUCTION]
    parts += [_section(section, results, _record) for section in _sections(results)]
    parts += [_section(section, loads, _load) for section in SERVER_LOADS]
    return "\n".join(parts)


def _sections(results: Path) -> list[Section]:
    """Those of ``TRIALS``, with a section for every other file."""
    others = sorted({file.stem for file in results.glob("*.json")} - {section.name for section in TRIALS})
    sections = []
    for section in TRIALS:
        more = [name for name in others if name.startswith(f"{section.name}_")]
        sections += [section, *(_trial(name, name) for name in more)]
        others = [name for name in others if name not in more]
    return sections + [_trial(name, name) for name in others]


def _section(section: Section, folder: Path, show: Any) -> str:
    file = folder / f"{section.name}.json"
    if not file.exists():
        return f"## {section.title}\n\nNot measured yet. This measures it:\n\n```sh\n{section.command}\n```\n"
    try:
        text: str = show(section, file)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ModerationError(f"{file} cannot be shown ({type(exc).__name__}: {exc}); run: {section.command}") from exc
    return text


def _record(_: Section, file: Path) -> str:
    record = Record.load(file)
    columns = list(dict.fromkeys(name for trial in record.trials for name in trial.figures))
    rows = [
        (trial.name, trial.tried, trial.failed, *(trial.figures.get(name) for name in columns))
        for trial in record.trials
    ]
    judged = [trial for trial in record.trials if trial.failed is not None]
    total = f"**{_cell(sum(one.failed or 0 for one in judged))} of {_cell(sum(one.tried for one in judged))} failed.**"
    return "\n".join(
        [
            f"## {record.title}\n",
            f"{record.promise}\n",
            *([f"{total}\n"] if judged else []),
            _table(("what", "tried", "failed", *columns), rows),
            *(f"\n{note}" for note in record.notes),
            f"\n{_origin(record.command, record.hardware, record.versions, record.weights)}\n",
        ]
    )


def _load(section: Section, file: Path) -> str:
    content = json.loads(file.read_text(encoding="utf-8"))
    throughput, phases = content["throughput"], content["phases"]
    overloads = [name for name, phase in phases.items() if "seconds_until_normal" in phase]
    lines = [
        f"## {section.title}\n",
        f"Real clients on a loopback port, texts of {content['tokens']} tokens, verdict mode. {throughput['clients']} "
        f"clients, each with one request under way, got {_percent(throughput['server_to_batch'])} of the rate of "
        "`classify_batch`. Then requests came by the clock, whether the ones before were answered or not:\n",
        _table(_LOAD_HEADINGS, [_load_row(name, phase) for name, phase in phases.items()]),
        *(
            f"\n{phases[name]['seconds_until_normal']} s after the {name}'s last request, with "
            f"`--queue-seconds {content['queue_seconds']:g}`, a verdict took no longer than the 99th percentile of the "
            "steady phase."
            for name in overloads
        ),
    ]
    lines.append("\nMemory of the server (RSS, MB) over time, from each phase's start to its end:\n")
    lines.append(_table(("phase", *_MOMENTS), [_memory_row(name, phase) for name, phase in phases.items()]))
    lines.append(f"\n{_origin(section.command, content['hardware'], content['versions'])}\n")
    return "\n".join(lines)


_LOAD_HEADINGS = (
    "phase",
    "seconds",
    "load, of the capacity",
    "requests",
    "verdicts",
    "told to come later (429, 503)",
    "of these without Retry-After",
    "failed",
    "p50 seconds",
    "p99 seconds",
    "longest, seconds",
)
_MOMENTS = ("start", "20%", "40%", "60%", "80%", "end", "most")


def _load_row(name: str, phase: Mapping[str, Any]) -> tuple[Value, ...]:
    statuses = {int(status): number for status, number in phase["statuses"].items()}
    refused = statuses.get(429, 0) + statuses.get(503, 0)
    verdicts = statuses.get(200, 0)
    took = phase["verdict_seconds"] or {}
    return (
        name,
        phase["seconds"],
        _percent(phase["share_of_capacity"]),
        phase["requests"],
        verdicts,
        refused,
        phase["refusals_without_retry_after"],
        phase["requests"] - verdicts - refused,
        *(took.get(quantile) for quantile in ("p50", "p99", "max")),
    )


def _memory_row(name: str, phase: Mapping[str, Any]) -> tuple[Value, ...]:
    memory: Sequence[float] = phase["memory_mb"]
    last = len(memory) - 1
    return (name, *(memory[round(last * fifth / 5)] for fifth in range(6)), max(memory))


def _origin(command: str, hardware: str, versions: Mapping[str, str], weights: str | None = None) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    adapter = f", weights {weights[:12]}" if weights else ""
    return f"`{command}`  \n{hardware}, {packages}{adapter}."


def _table(headings: Sequence[str], rows: Sequence[Sequence[Value]]) -> str:
    """Markdown; shares are in percent."""
    shares = [_is_share(name, [row[place] for row in rows]) for place, name in enumerate(headings)]
    lines = [f"| {' | '.join(headings)} |", f"|---|{'--:|' * (len(headings) - 1)}"]
    for row in rows:
        cells = [
            _percent(float(value)) if share and value is not None else _cell(value)
            for value, share in zip(row, shares, strict=True)
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _is_share(column: str, values: Sequence[Value]) -> bool:
    """Whether a column holds shares: numbers from 0 to 1, not all of them counts, that its name gives no unit."""
    numbers = [value for value in values if value is not None]
    between = all(isinstance(value, (int, float)) and 0 <= value <= 1 for value in numbers)
    return between and any(isinstance(value, float) for value in numbers) and not any(one in column for one in _UNITS)


_UNITS = ("second", "MB", "megabyte", "difference", "ratio", "change of")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _cell(value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value.replace("|", "\\|").replace("\n", " ")
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.4g}"


if __name__ == "__main__":
    typer.run(main)
