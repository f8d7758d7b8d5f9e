"""HTML on the page without Gradio's styles for texts, whose selectors would win over those of ``style.css``."""

from __future__ import annotations

from functools import partial

import gradio as gr

plain_html = partial(gr.HTML, apply_default_css=False, js_on_load=None)
