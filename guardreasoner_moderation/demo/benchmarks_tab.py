"""The tab with the committed results: F1 beside published models, curves, calibration, speed, claims."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import cycle
from typing import TYPE_CHECKING, Any

import gradio as gr

from guardreasoner_moderation.demo.figure_tables import claims_table, f1_table, facts_list, speed_tables
from guardreasoner_moderation.demo.figures import PUBLISHED, Figures, run_name
from guardreasoner_moderation.demo.plain_html import plain_html

if TYPE_CHECKING:
    import pandas as pd

HERE, ELSEWHERE = "Measured here", "Published by others"
CHANCE, IDEAL = "chance", "perfectly calibrated"
# Of middle lightness, so that they stand out from white and from the dark page (3 to 1, WCAG 2.2, 1.4.11).
_RUN_COLOURS = ("#2f86d6", "#d9730d", "#1f9e78", "#c264a8", "#9a7b00", "#8b6fd6")
_REFERENCE_COLOUR = "#7b8698"


def add_benchmarks_tab(page: gr.Blocks, figures: Figures) -> None:
    """Adds the tab's content to the page that is being built."""
    names = figures.benchmarks
    with gr.Row():
        benchmark = gr.Dropdown(names, value=names[0], label="Benchmark", elem_id="benchmark")
        sources = gr.CheckboxGroup([HERE, ELSEWHERE], value=[HERE, ELSEWHERE], label="Figures", elem_id="sources")
    f1 = plain_html(elem_id="f1")
    missing = plain_html(elem_id="no-curves", visible=False)
    plot: dict[str, Any] = {"x_lim": [0, 1], "y_lim": [0, 1], "height": 320, "color_map": _colours(figures)}
    with gr.Row() as curves:
        with gr.Column(min_width=300):
            recall = gr.LinePlot(
                x="recall",
                y="precision",
                color="run",
                title="Precision and recall at every threshold",
                elem_id="recall",
                **plot,
            )
        with gr.Column(min_width=300):
            calibration = gr.LinePlot(
                x="score",
                y="share",
                color="run",
                title="Share of risky items by score",
                elem_id="calibration",
                **plot,
            )
    facts = plain_html(elem_id="facts")
    plain_html(f'<h2 class="gm-title">Speed</h2>{speed_tables(figures.speed)}', elem_id="speed")
    plain_html(f'<h2 class="gm-title">Claims of the papers</h2>{claims_table(figures.claims)}', elem_id="claims")

    def show(name: str, wanted: Sequence[str]) -> tuple[Any, ...]:
        rows = [row for row in figures.f1_of(name) if (ELSEWHERE if row.source == PUBLISHED else HERE) in wanted]
        there = figures.curves_of(name)
        return (
            f1_table(name, rows, figures.published["source"]),
            gr.update(value=f'<p class="gm-note">Curves were not measured on {escape(name)}.</p>', visible=not there),
            gr.update(visible=bool(there)),
            recall_points(figures, name),
            calibration_points(figures, name),
            facts_list(figures, name),
        )

    outputs = [f1, missing, curves, recall, calibration, facts]
    gr.on(
        [page.load, benchmark.change, sources.change],
        show,
        [benchmark, sources],
        outputs,
        show_progress="hidden",
        trigger_mode="always_last",
        api_visibility="private",
    )


def recall_points(figures: Figures, benchmark: str) -> pd.DataFrame:
    """Points of the precision-recall curves on a benchmark, and of chance: always the share of risky items."""
    import pandas as pd

    curves = figures.curves_of(benchmark)
    points = [(*point, name) for name, curve in curves.items() for point in curve["precision_recall"]]
    for curve in list(curves.values())[:1]:
        points += [(0.0, curve["prevalence"], CHANCE), (1.0, curve["prevalence"], CHANCE)]
    return pd.DataFrame(points, columns=["recall", "precision", "run"])


def calibration_points(figures: Figures, benchmark: str) -> pd.DataFrame:
    """Share of risky items against the mean score of ten bins, and the diagonal."""
    import pandas as pd

    curves = figures.curves_of(benchmark)
    points = [(one["score"], one["value"], name) for name, curve in curves.items() for one in curve["calibration"]]
    points += [(0.0, 0.0, IDEAL), (1.0, 1.0, IDEAL)] if curves else []
    return pd.DataFrame(points, columns=["score", "share", "run"])


def _colours(figures: Figures) -> dict[str, str]:
    """A colour for each run with curves, the same on every benchmark, and for the lines that they are compared with."""
    runs = dict.fromkeys(run_name(curve["model"], curve["mode"]) for curve in figures.curves)
    return {**dict(zip(runs, cycle(_RUN_COLOURS))), CHANCE: _REFERENCE_COLOUR, IDEAL: _REFERENCE_COLOUR}
