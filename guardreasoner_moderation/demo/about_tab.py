"""The tab that says what this is, what it cannot do, and where more is."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from guardreasoner_moderation import __version__


def add_about_tab() -> None:
    """Adds the tab's content to the page that is being built."""
    text = Path(__file__).with_name("about.md").read_text(encoding="utf-8")
    gr.Markdown(text.replace("{version}", __version__), elem_classes="gm-about")
