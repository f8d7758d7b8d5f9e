"""The tab for a file: upload, progress, a histogram with a threshold to move, a table with filters, a download."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from guardreasoner_moderation.batch.pending import HowToJudge
from guardreasoner_moderation.demo.classify_tab import MODES, MODES_INFO
from guardreasoner_moderation.demo.guards import Guards, on_gpu
from guardreasoner_moderation.demo.judged_file import JudgedFile, judge_rows, read_file
from guardreasoner_moderation.demo.judged_table import (
    ALL,
    AS_IN_FILE,
    COLUMNS,
    FILTERS,
    ORDERS,
    find_result,
    histogram,
    summary,
    table,
)
from guardreasoner_moderation.demo.plain_html import plain_html
from guardreasoner_moderation.demo.settings import DemoSettings
from guardreasoner_moderation.demo.verdict_card import empty_card, error_card, verdict_card
from guardreasoner_moderation.errors import InputError, ModerationError
from guardreasoner_moderation.results import Mode, Task

_FORMATS = """\
A **CSV** file with a line of column names, or **JSONL** with an object a line. `prompt` holds what users wrote, \
`response` (optional) what the assistant answered; or `messages` holds chat messages."""


def add_batch_tab(page: gr.Blocks, guards: Guards, settings: DemoSettings) -> None:
    """Adds the tab's content to the page that is being built."""
    judged = gr.State()
    with gr.Row():
        with gr.Column(min_width=300):
            gr.Markdown(f"{_FORMATS} At most {settings.max_rows:,} rows and {settings.max_upload_mb} MB.")
            upload = gr.File(label="File to judge", file_types=[".csv", ".jsonl", ".gz"], elem_id="upload", height=150)
        with gr.Column(min_width=300):
            mode = gr.Radio(MODES, value=Mode.VERDICT.value, label="Mode", info=MODES_INFO, elem_id="batch-mode")
            model = gr.Dropdown(list(guards.names), value=guards.names[0], label="Model", elem_id="batch-model")
            with gr.Row():
                judge_button = gr.Button("Judge the file", variant="primary", elem_id="judge-file", min_width=120)
                stop_button = gr.Button("Stop", elem_id="stop-file", min_width=80, interactive=False)
    status = plain_html(empty_card("The verdicts of a file appear here."), elem_id="batch-status")
    with gr.Column(visible=False) as shown:
        threshold = gr.Slider(
            0,
            1,
            guards.thresholds(guards.names[0])[Task.REQUEST],
            step=0.01,
            label="Flag from this score",
            info="The higher one of request and response. Counts, table and download follow; nothing is judged again.",
            elem_id="batch-threshold",
        )
        chart = gr.BarPlot(
            x="score",
            y="rows",
            color="verdict",
            x_bin=0.05,
            x_lim=[0, 1],
            color_map={"flagged": "#d8473b", "not flagged": "#2f8f57"},
            height=230,
            label="Rows by score",
            show_label=False,
            elem_id="batch-histogram",
        )
        with gr.Row():
            wanted = gr.Radio(FILTERS, value=ALL, label="Show", elem_id="batch-filter", scale=4, min_width=280)
            order = gr.Dropdown(ORDERS, value=AS_IN_FILE, label="Order", elem_id="batch-order", scale=2, min_width=180)
            download = gr.DownloadButton("Download", elem_id="batch-download", scale=1, min_width=140)
        rows = gr.Dataframe(
            headers=list(COLUMNS),
            datatype=[kind for kind, _ in COLUMNS.values()],
            column_widths=[width for _, width in COLUMNS.values()],
            max_chars=160,
            interactive=False,
            wrap=True,
            max_height=430,
            show_search="search",
            label="Rows (a click or Enter on one shows its reasoning below)",
            elem_id="batch-table",
        )
        detail = plain_html("", elem_id="batch-detail")

    downloads = Downloads()

    def views(found: JudgedFile | None, at: float, which: str, sorting: str, request: gr.Request) -> tuple[Any, ...]:
        return _views(found, at, which, sorting, downloads.folder(request))

    quick: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    run = judge_button.click(
        judging_file(guards, settings),
        [upload, model, mode, threshold],
        [judged, shown, status, detail, judge_button, stop_button],
        show_progress="full",
        show_progress_on=[status],
        trigger_mode="once",
        concurrency_limit=1,
        api_visibility="private",
    )
    # In this order: a group that is judged before the run is cancelled sets the buttons too.
    stop_button.click(None, cancels=[run], **quick)
    stop_button.click(lambda: _buttons(running=False), None, [judge_button, stop_button], **quick)
    # After each group of rows too, so that threshold, filter and order can be changed meanwhile.
    gr.on(
        [judged.change, threshold.change, wanted.change, order.change],
        views,
        [judged, threshold, wanted, order],
        [status, chart, rows, download],
        trigger_mode="always_last",
        **quick,
    )
    rows.select(_detail, [judged, threshold], detail, **quick)
    model.change(lambda name: guards.thresholds(name)[Task.REQUEST], model, threshold, **quick)
    page.unload(downloads.forget)


class Downloads:
    """A folder for each visitor, for the file that can be downloaded; it goes when the page is closed."""

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="guardreasoner-demo-"))
        weakref.finalize(self, shutil.rmtree, self._root, ignore_errors=True)

    def folder(self, request: gr.Request) -> Path:
        """The folder of the visitor who asks."""
        folder = self._root / str(request.session_hash)
        folder.mkdir(exist_ok=True)
        return folder

    def forget(self, request: gr.Request) -> None:
        """Deletes the folder of the visitor who leaves."""
        shutil.rmtree(self.folder(request), ignore_errors=True)


def judging_file(guards: Guards, settings: DemoSettings) -> Callable[..., Iterator[tuple[Any, ...]]]:
    """A function that judges a file and hands out, after each group of rows, what there is."""

    @on_gpu
    def judged_groups(file: JudgedFile, name: str, how: HowToJudge) -> Iterator[JudgedFile]:
        yield from judge_rows(file, guards.get(name), how)

    def judge(
        upload: str | None,
        name: str,
        mode: str,
        threshold: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio finds out that a function reports progress
    ) -> Iterator[tuple[Any, ...]]:
        yield None, gr.update(visible=False), empty_card("Reading the file."), "", *_buttons(running=True)
        try:
            if upload is None:
                raise InputError("no file was chosen: put a CSV or JSONL file into the box above")
            file = read_file(Path(upload), settings.max_rows)
            progress((0, len(file.rows)), unit="rows")
            for found in judged_groups(file, name, HowToJudge(mode, threshold)):
                progress((len(found.results), len(found.rows)), unit="rows")
                yield found, gr.update(visible=True), gr.skip(), gr.skip(), *_buttons(running=not found.done)
        except ModerationError as exc:
            yield None, gr.update(visible=False), error_card(exc), "", *_buttons(running=False)

    return judge


def _views(judged: JudgedFile | None, threshold: float, wanted: str, order: str, folder: Path) -> tuple[Any, ...]:
    """Sentence, histogram, table and download of what is judged, flagged from ``threshold``."""
    if judged is None:
        return (gr.skip(),) * 4
    flagged = judged.flagged_from(threshold)
    return (
        summary(flagged, threshold),
        histogram(flagged, threshold),
        table(flagged, wanted, order),
        str(flagged.write(folder)),
    )


def _detail(judged: JudgedFile | None, threshold: float, event: gr.SelectData) -> str:
    """The verdict of the row that was clicked; sorting changes its place, so its own number tells which it is."""
    result = None if judged is None else find_result(judged.flagged_from(threshold), int(event.row_value[0]))
    return "" if result is None else verdict_card(result)


def _buttons(*, running: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """What becomes of the buttons that start and stop."""
    return gr.update(interactive=not running), gr.update(interactive=running)
