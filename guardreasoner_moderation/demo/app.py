"""Puts the page together and serves it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import gradio as gr
import typer

from guardreasoner_moderation.demo.about_tab import add_about_tab
from guardreasoner_moderation.demo.batch_tab import add_batch_tab
from guardreasoner_moderation.demo.benchmarks_tab import add_benchmarks_tab
from guardreasoner_moderation.demo.classify_tab import add_classify_tab
from guardreasoner_moderation.demo.figures import Figures, read_figures
from guardreasoner_moderation.demo.guards import Guards
from guardreasoner_moderation.demo.plain_html import plain_html
from guardreasoner_moderation.demo.settings import DemoSettings
from guardreasoner_moderation.demo.tools import add_tools
from guardreasoner_moderation.errors import InputError

TITLE = "guardreasoner-moderation"
_HOUR = 60 * 60
_HERO = f"""\
<div class="gm-hero"><h1>{TITLE}</h1>
<p>Is a request harmful, did the assistant refuse, is its response harmful, and why?</p></div>"""
# Containers of HTML that change while the page is open; the attribute must be there before the text is.
_LIVE = """
() => {
  document.getElementById("announcer")?.setAttribute("aria-live", "polite");
  document.documentElement.lang = "en";
}
"""


def build_app(guards: Guards, settings: DemoSettings, figures: Figures) -> gr.Blocks:
    """The page, for :func:`launch`.

    Args:
        guards: the models to choose from; the caller closes them.
        settings: limits.
        figures: what the tab of benchmarks shows.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(_HOUR, _HOUR)) as app:
        plain_html(_HERO)
        with gr.Tabs():
            with gr.Tab("Classify", id="classify"):
                add_classify_tab(guards, settings)
            with gr.Tab("Batch", id="batch"):
                add_batch_tab(app, guards, settings)
            with gr.Tab("Benchmarks", id="benchmarks"):
                add_benchmarks_tab(app, figures)
            with gr.Tab("About", id="about"):
                add_about_tab()
        add_tools(guards, settings)
    return app


def launch(app: gr.Blocks, settings: DemoSettings) -> str:
    """Serves the page, and ``/classify`` as a tool of the Model Context Protocol.

    Args:
        app: of :func:`build_app`.
        settings: address and limits.

    Returns:
        Its address.

    Raises:
        InputError: the address cannot be used.
    """
    try:
        _, address, _ = app.launch(
            server_name=settings.host,
            server_port=settings.port,
            inbrowser=settings.open_browser,
            prevent_thread_lock=True,
            quiet=True,
            max_file_size=f"{settings.max_upload_mb}mb",
            footer_links=["api"],
            mcp_server=True,
            run_history=False,  # what visitors write is not kept, in their browser either
            ssr_mode=False,
            share=False,
            theme=_theme(),
            # As CSS it would be rewritten by Gradio, which drops what a media query says of the page's frame.
            head=f"<style>{Path(__file__).with_name('style.css').read_text(encoding='utf-8')}</style>",
            js=_LIVE,
        )
    except OSError as exc:
        where = f"{settings.host or 'this machine'}, port {settings.port}"
        raise InputError(
            f"the demo cannot listen on {where}: it is in use, or not of this machine; pass another --port or --host"
        ) from exc
    return str(address)


def run_app(settings: DemoSettings) -> None:
    """Loads the models and serves the page until the process is stopped."""
    with suppress(ImportError):
        import spaces  # type: ignore[import-not-found, unused-ignore]  # noqa: F401 - must be there before torch is
    guards = Guards.load(settings.models)
    try:
        app = build_app(guards, settings, read_figures())
        typer.echo(f"The demo is at {launch(app, settings)} (Ctrl-C ends it).")
        app.block_thread()
    finally:
        guards.close()


def _theme() -> gr.themes.Base:
    # Fonts of the visitor's system: nothing is fetched. The colours have a contrast of 4.5 to 1, which Gradio's lack.
    return gr.themes.Default(
        primary_hue="blue",
        neutral_hue="slate",
        font=["ui-sans-serif", "system-ui", "sans-serif"],
        font_mono=["ui-monospace", "Consolas", "monospace"],
    ).set(
        color_accent="*primary_600",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_800",
        block_title_text_color_dark="*neutral_100",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
    )
