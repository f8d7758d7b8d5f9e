"""Benchmark figures as HTML tables with bars, which can be read without seeing the bars."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from guardreasoner_moderation.demo.figures import F1, PUBLISHED, RESCORED, Figures

_ENGINES = {"ours": "this package", "transformers": "transformers, float32", "llamacpp": "llama.cpp"}


def f1_table(benchmark: str, rows: Sequence[F1], published_source: str) -> str:
    """F1 of the models on a benchmark, in the order of ``rows``."""
    if not rows:
        return f'<p class="gm-note">There is no figure of {escape(benchmark)} with these settings.</p>'
    body = "".join(_f1_row(row) for row in rows)
    notes = ["In brackets is the 95% interval; n is the number of items."]
    if any(row.source == PUBLISHED for row in rows):
        notes.append(f"Published figures are not measured here: {published_source}.")
    if any(row.source == RESCORED for row in rows):
        notes.append("Where a model's authors released its outputs, these were scored here, with the strict scorer.")
    if any(row.trained_on for row in rows):
        notes.append("* The model was trained on this benchmark: no test.")
    return (
        f'<table class="gm-table"><caption>F1 on {escape(benchmark)}, in percent</caption><thead><tr>'
        '<th scope="col">model</th><th scope="col" class="gm-number">F1</th><th scope="col" class="gm-plot">'
        '<span aria-hidden="true">0 to 100</span></th><th scope="col">source</th></tr></thead>'
        f"<tbody>{body}</tbody></table>{_note(notes)}"
    )


def speed_tables(speed: Mapping[str, Any]) -> str:
    """Latency and throughput of each engine, as ``evaluation.speed`` measured them."""
    if not speed.get("latency"):
        return '<p class="gm-note">Speed was not measured for this version.</p>'
    latency = _race_table("Seconds for one text; shorter is better", speed["latency"], "p50", "s")
    throughput = _race_table(
        "Texts of about 200 tokens per second; longer is better", speed.get("throughput", {}), "items_per_second", ""
    )
    notes = [
        f"Medians of {speed['rounds']} rounds (a third of them with batches) on {speed['hardware']}; "
        "the engines took turns on the same texts. Each task has a scale of its own."
    ]
    return f"{latency}{throughput}{_note(notes)}"


def claims_table(claims: Sequence[Mapping[str, str | None]]) -> str:
    """What the papers claim, beside what was found here."""
    if not claims:
        return '<p class="gm-note">The claims of the papers were not measured for this version.</p>'
    rows = "".join(
        _claim_row({key: escape(value or "not measured") for key, value in claim.items()}) for claim in claims
    )
    notes = ["Figures there are published by others, of other models and benchmarks."]
    return (
        '<div class="gm-scroll" tabindex="0" role="region" aria-label="Claims"><table class="gm-table gm-wide">'
        '<caption>What the two papers claim, and what was found here</caption><thead><tr><th scope="col">claim</th>'
        '<th scope="col">figure there (published)</th><th scope="col">figure here</th><th scope="col">verdict</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div>{_note(notes)}"
    )


def facts_list(figures: Figures, benchmark: str) -> str:
    """What the figures that were measured here must be read with, for each run on a benchmark."""
    parts = []
    for name, run in figures.runs_of(benchmark).items():
        sample = run.get("sample")
        facts = {
            "weights": f"sha256 {str(run['model'].get('sha256') or 'unknown')[:12]}",
            "engine": run["model"].get("engine"),
            "scorer": run["scorer"],
            "items": f"a sample of {sample['limit']}, seed {sample['seed']}" if sample else "all",
            "intervals": run["intervals"],
            "hardware": run["hardware"],
            "versions": ", ".join(f"{package} {version}" for package, version in run["versions"].items()),
        }
        listed = "; ".join(f"{key} {value}" for key, value in facts.items() if value)
        parts.append(f"<li><b>{escape(name)}</b>: {escape(listed)}</li>")
    if not parts:
        return ""
    return f'<details class="gm-details"><summary>How this was measured</summary><ul>{"".join(parts)}</ul></details>'


def _f1_row(row: F1) -> str:
    interval = ""
    if row.interval:
        low, high = row.interval
        interval = f" <small>[{low:.1f}, {high:.1f}]</small>"
    unjudged = f", {row.unjudged} unjudged" if row.unjudged else ""
    style = "" if row.source == PUBLISHED else ' class="gm-ours"'
    return (
        f'<tr{style}><th scope="row">{escape(row.model)}{"*" if row.trained_on else ""}</th>'
        f'<td class="gm-number">{row.value:.1f}{interval}</td><td class="gm-plot">{_bar(row.value, row.interval)}</td>'
        f"<td>{row.source}, n {row.n:,}{unjudged}</td></tr>"
    )


def _claim_row(claim: Mapping[str, str]) -> str:
    source = f"arXiv {claim['paper']}, {claim['where']}"
    return (
        f'<tr><th scope="row">{claim["claim"]}<br><span class="gm-note">{source}. Reproduced when {claim["condition"]}.'
        f"</span></th><td>{claim['there']}</td><td>{claim['here']}</td><td>{claim['outcome']}</td></tr>"
    )


def _bar(percent: float, interval: tuple[float, float] | None = None) -> str:
    whisker = ""
    if interval:
        low, high = interval
        whisker = f'<i style="left:{low:.1f}%;width:{high - low:.1f}%"></i>'
    return f'<div class="gm-track" aria-hidden="true"><span style="width:{percent:.1f}%"></span>{whisker}</div>'


def _race_table(caption: str, races: Mapping[str, Any], figure: str, unit: str) -> str:
    if not races:
        return ""
    body = []
    for task, race in races.items():
        sides = {name: float(side[figure]) for name, side in race.items() if name != "ratio"}
        for number, (name, value) in enumerate(sides.items()):
            head = f'<th scope="rowgroup" rowspan="{len(sides)}">{escape(task)}</th>' if number == 0 else ""
            style = ' class="gm-ours"' if name == "ours" else ""
            body.append(
                f"<tr{style}>{head}<td>{escape(_ENGINES.get(name, name))}</td>"
                f'<td class="gm-number">{value:.2f} {unit}</td>'
                f'<td class="gm-plot">{_bar(100 * value / max(sides.values()))}</td></tr>'
            )
    return (
        f'<table class="gm-table"><caption>{caption}</caption><thead><tr><th scope="col">task</th>'
        '<th scope="col">engine</th><th scope="col" class="gm-number">median</th><th scope="col" class="gm-plot">'
        f'<span aria-hidden="true">0 to the largest</span></th></tr></thead><tbody>{"".join(body)}</tbody></table>'
    )


def _note(sentences: Iterable[str]) -> str:
    return f'<p class="gm-note">{escape(" ".join(sentences))}</p>'
