"""Renders what was measured of speed, training, guarded streams and auto mode into the pages that speak of it.

    python -m evaluation.measured_pages

Between the lines ``<!-- measured: SECTION -->`` and ``<!-- end of measured -->`` of :data:`PAGES` stands what
:data:`SECTIONS` makes of a committed file, which the command named there writes. Where there is no such file the
section says that nothing was measured, and how to. A test renders the committed pages again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import typer

from evaluation.finished import read_object
from evaluation.shares import Share
from guardreasoner_moderation.errors import InputError, ModerationError, nearest
from texts.marked import fill

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "evaluation" / "results"
PAGES = (
    *(ROOT / "docs" / name for name in ("performance.md", "scale.md", "streaming.md", "choosing-a-threshold.md")),
    ROOT / "training" / "README.md",
)

_SIDES = {"ours": "this package", "transformers": "transformers", "llamacpp": "llama.cpp"}

Figures: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Section:
    """What stands between two marks.

    Attributes:
        file: of :data:`RESULTS`.
        command: that writes it.
        show: its Markdown.
    """

    file: str
    command: str
    show: Callable[[Figures], str]


def main() -> None:
    """Render the pages."""
    try:
        for page in PAGES:
            page.write_text(rendered(page.read_text(encoding="utf-8")), encoding="utf-8")
    except ModerationError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(2) from exc


def rendered(text: str, results: Path = RESULTS) -> str:
    """A page with its sections rendered anew.

    Raises:
        InputError: it asks for a section that there is not, or a file cannot be shown.
    """

    def section(name: str) -> str:
        if name not in SECTIONS:
            raise InputError(f"unknown section {name!r} of measured{nearest(name, SECTIONS)}")
        found = SECTIONS[name]
        file = results / found.file
        if not file.exists():
            return f"Not measured; to do so: `{found.command}`."
        figures = read_object(file)
        try:
            return f"{found.show(figures)}\n\n{_origin(file, figures)}"
        except (KeyError, TypeError, ValueError) as exc:
            raise InputError(f"{file} cannot be shown ({type(exc).__name__}: {exc}); run {found.command}") from exc

    return fill(text, "measured", section)


def start(figures: Figures) -> str:
    """Seconds of whole processes."""
    return _table(("process", "seconds"), [(name, f"{seconds:.2f}") for name, seconds in figures["start"].items()])


def latency(figures: Figures) -> str:
    """One text at a time: medians, 95th percentiles and how many times faster ours is."""
    return _race(figures["latency"], "text", lambda row: f"{row['p50']:.3f} / {row['p95']:.3f} s")


def throughput(figures: Figures) -> str:
    """Many texts at a time."""
    return _race(figures["throughput"], "batch", lambda row: f"{row['items_per_second']:.2f} items/s")


def memory(figures: Figures) -> str:
    """Peak memory of each side's process."""
    moments = {"one text at a time": "peak_mb_one_by_one", "with batches of up to 32": "peak_mb_with_batches"}
    sides = [name for name in _SIDES if name in figures["peak_mb_one_by_one"]]
    rows = [
        (name, *(f"{figures[key][side]:,} MB" for side in sides), _ratios(figures[key], sides))
        for name, key in moments.items()
    ]
    return _table(("peak memory", *(_SIDES[side] for side in sides), "ours, of transformers"), rows)


def limits(figures: Figures) -> str:
    """What the machine could do at most, and our share of it."""
    found = figures["limits"]
    peaks, verdict, token = found["peaks"], found["verdict"], found["token"]
    measured = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in peaks.items())
    return (
        f"Measured peaks: {measured}. A verdict of 200 tokens needs {verdict['gop']} billion operations, "
        f"{verdict['least_seconds']:.3f} s at the peak: it reaches {100 * verdict['share_of_peak']:.0f}% of it. A "
        f"written token reads {1000 * token['gigabytes']:.0f} MB of weights, {1000 * token['least_seconds']:.1f} ms at "
        f"the peak of memory; it takes {1000 * token['seconds']:.1f} ms, {100 * token['share_of_peak']:.0f}% of that."
    )


def rates(figures: Figures) -> str:
    """Rows a second and what a million cost, from the speed of batches."""
    rows = []
    for mode in ("verdict", "think"):
        rate = figures["throughput"][f"{mode}, batch 32"]["ours"]["items_per_second"]
        rows.append((f"`{mode}`", f"{rate:.2f}", f"{1e6 / rate / 3600:.1f} h"))
    return _table(("embedded model, texts of 200 tokens, batches of 32", "rows a second", "a million rows"), rows)


def guarding(figures: Figures) -> str:
    """What guarded streams stop, what comes out before, and how long pieces are waited for."""
    rows = []
    for name, row in figures["every"].items():
        harmful, released = row["harmful"], row["harmful"]["released_where_stopped"]
        rows.append(
            (
                name,
                _share(harmful["stopped"]),
                "-" if released is None else f"{100 * released['mean']:.1f}",
                f"{100 * harmful['released']['mean']:.1f}",
                _share(row["unharmful"]["stopped"]),
                *(_seconds(row[key]) for key in ("seconds_to_first_piece", "seconds_per_piece")),
            )
        )
    headings = (
        "judged after each",
        "harmful responses stopped",
        "came out before, of those stopped",
        "came out, of all harmful",
        "others stopped wrongly",
        "first piece, median / 95th",
        "any piece, median / 95th",
    )
    text = f"{figures['responses']} responses of the {figures['split']} split; percent, [95% interval]."
    return f"{_table(headings, rows)}\n\n{text}"


def auto_mode(figures: Figures) -> str:
    """Share reasoned about, F1 and seconds of the modes, and of auto mode with other bounds."""
    low, high = figures["bounds"]
    named = [(f"`{mode}`", row) for mode, row in figures["modes"].items()]
    named += [("`auto`, {} to {}, computed".format(*row["bounds"]), row) for row in figures["computed"]]
    rows = [
        (
            name,
            _share(row["reasoned"]),
            f"{100 * row['f1']:.1f}",
            _share(row["accuracy"]),
            f"{row['seconds']['mean']:.3f}",
            f"{row['seconds']['p95']:.3f}",
        )
        for name, row in named
    ]
    headings = ("mode", "reasoned about", "F1", "accuracy", "mean seconds", "95th percentile")
    return (
        f"{_table(headings, rows)}\n\n{figures['items']} requests of the {figures['split']} split, each judged alone; "
        f"`auto` with the bounds {low} to {high}. Percent, [95% interval]."
    )


def training_speed(figures: Figures) -> str:
    """Tokens a second and peak memory of the packed steps and of trl's."""
    names = {"packed": "packed steps", "trl": "trl's `SFTTrainer`"}
    sides = figures["sides"]
    rows = [
        (names[name], f"{side['tokens_per_second']:.0f}", f"{side['peak_megabytes']:,} MB")
        for name, side in sides.items()
    ]
    text = (
        f"`{figures['recipe']}`, medians of {len(sides['packed']['runs'])} runs of {figures['steps']} steps by turns, "
        f"threads: {figures['threads']}. Packed steps are {figures['ratio']:.2f} times as fast (median of the pairs)."
    )
    return f"{_table(('side', 'real tokens a second', 'peak memory'), rows)}\n\n{text}"


_SPEED = ("speed.json", "python -m evaluation.speed --out evaluation/results/speed.json --gguf guard-q8_0.gguf")
_LABELLED = "interactions.jsonl training/datasets/written.jsonl --split validation"

SECTIONS: Mapping[str, Section] = {
    "start": Section(*_SPEED, start),
    "latency": Section(*_SPEED, latency),
    "throughput": Section(*_SPEED, throughput),
    "memory": Section(*_SPEED, memory),
    "limits": Section(*_SPEED, limits),
    "rates": Section(*_SPEED, rates),
    "guarding": Section(
        "guarding.json",
        f"python -m evaluation.guarding {_LABELLED} --limit 100 --out evaluation/results/guarding.json",
        guarding,
    ),
    "auto mode": Section(
        "auto_mode.json",
        f"python -m evaluation.auto_mode {_LABELLED} --limit 200 --out evaluation/results/auto_mode.json",
        auto_mode,
    ),
    "training speed": Section(
        "training_speed.json",
        "python -m training.compare_trl training/recipes/embedded.yaml --data-dir DATA "
        "--out evaluation/results/training_speed.json",
        training_speed,
    ),
}


def _race(rows: Mapping[str, Figures], heading: str, show: Callable[[Figures], str]) -> str:
    sides = [name for name in _SIDES if name in next(iter(rows.values()))]
    headings = (heading, *(_SIDES[side] for side in sides), *(f"times {_SIDES[side]}" for side in sides[1:]))
    return _table(
        headings,
        [
            (name, *(show(row[side]) for side in sides), *(f"{row['ratio'][side]:.2f}" for side in sides[1:]))
            for name, row in rows.items()
        ],
    )


def _ratios(peaks: Mapping[str, float], sides: Sequence[str]) -> str:
    return f"{peaks['ours'] / peaks['transformers']:.2f}" if "transformers" in sides else "-"


def _share(row: Figures) -> str:
    return Share(row["count"], row["of"]).percent()


def _seconds(row: Figures | None) -> str:
    return "-" if row is None else f"{row['p50']:.3f} / {row['p95']:.3f} s"


def _table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [headings, ["---", *["--:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _origin(file: Path, figures: Figures) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    weights = f"weights {figures['weights_sha256'][:12]}, " if "weights_sha256" in figures else ""
    return f"`evaluation/results/{file.name}`: {weights}{figures['hardware']}, {packages}."


if __name__ == "__main__":
    typer.run(main)
