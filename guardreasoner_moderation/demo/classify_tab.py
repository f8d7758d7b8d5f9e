"""The tab for one interaction: write it or take an example, and watch the model reason and decide."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from guardreasoner_moderation.demo.examples import EXAMPLES, Example
from guardreasoner_moderation.demo.guards import Guards, on_gpu
from guardreasoner_moderation.demo.plain_html import plain_html
from guardreasoner_moderation.demo.settings import DemoSettings
from guardreasoner_moderation.demo.verdict_card import (
    announcement,
    empty_card,
    error_card,
    sentence,
    verdict_card,
    waiting_card,
)
from guardreasoner_moderation.errors import InputError, ModerationError
from guardreasoner_moderation.results import Mode, Task

MODES = [(mode.capitalize(), mode.value) for mode in Mode]
MODES_INFO = "Think reasons first, Verdict decides at once, Auto reasons only where it is uncertain."
THRESHOLDS = {
    Task.REQUEST: "Request is harmful from",
    Task.COMPLETION: "Completion is a refusal from",
    Task.RESPONSE: "Response is harmful from",
}
# On a phone the verdict is below what was written; where most of it can be seen already this does nothing.
_SHOW_VERDICT = """
() => {
  const verdict = document.getElementById("verdict");
  if (verdict.getBoundingClientRect().top > innerHeight / 2) verdict.scrollIntoView();
}
"""
_SECONDS_BETWEEN_UPDATES = 0.05  # a page that is drawn anew for each token of a fast model stutters


def add_classify_tab(guards: Guards, settings: DemoSettings) -> None:
    """Adds the tab's content to the page that is being built."""
    with gr.Row():
        with gr.Column(min_width=300):
            plain_html('<h2 class="gm-title">Try an example</h2>', elem_classes="gm-first")
            with gr.Row():
                buttons = [gr.Button(example.name, size="sm", min_width=130) for example in EXAMPLES]
            prompt = gr.Textbox(
                label="Request",
                info="What a user wrote to an AI assistant. Shift + Enter judges it.",
                lines=4,
                max_lines=12,
                elem_id="prompt",
            )
            response = gr.Textbox(
                label="Response (optional)",
                info="What the assistant answered. Without it the request alone is judged.",
                lines=2,
                max_lines=12,
                elem_id="response",
            )
            mode = gr.Radio(MODES, value=Mode.THINK.value, label="Mode", info=MODES_INFO, elem_id="mode")
            with gr.Row():
                judge_button = gr.Button("Judge", variant="primary", elem_id="judge", min_width=120)
                stop_button = gr.Button("Stop", elem_id="stop", min_width=80, interactive=False)
            with gr.Accordion("Model and thresholds", open=False):
                model = gr.Dropdown(list(guards.names), value=guards.names[0], label="Model", elem_id="model")
                thresholds = [
                    gr.Slider(0, 1, guards.thresholds(guards.names[0])[task], step=0.01, label=label)
                    for task, label in THRESHOLDS.items()
                ]
        with gr.Column(min_width=300):
            card = plain_html(empty_card(), elem_id="verdict")
            # Screen readers are told of the verdict alone, and not of every token on the way.
            announcer = plain_html("", elem_id="announcer", elem_classes="gm-announcer")

    judging: dict[str, Any] = {
        "fn": judging_aloud(guards, settings),
        "inputs": [model, prompt, response, mode, *thresholds],
        "outputs": [card, announcer, judge_button, stop_button],
        "show_progress": "hidden",
        "trigger_mode": "once",
        "concurrency_limit": 2,
        "concurrency_id": "classify",
        "api_visibility": "private",
    }
    quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    typed = [judge_button.click, prompt.submit, response.submit]
    runs = [(typed, gr.on(typed, **judging))]
    for button, example in zip(buttons, EXAMPLES, strict=True):
        taken = button.click(_taking(example), None, [prompt, response], **quick)
        runs.append(([button.click], taken.then(**judging)))
    for triggers, run in runs:
        # The last one that is asked for is shown, so it ends the others.
        gr.on(triggers, None, cancels=[other for _, other in runs if other is not run], **quick)
        gr.on(triggers, None, js=_SHOW_VERDICT, **quick)
    # Two listeners, as the page cancels after a function has answered, and what it cancels could write until then.
    stop_button.click(None, cancels=[run for _, run in runs], **quick)
    stop_button.click(_stopped, None, judging["outputs"], **quick)
    model.change(lambda name: [guards.thresholds(name)[task] for task in THRESHOLDS], model, thresholds, **quick)


def judging_aloud(guards: Guards, settings: DemoSettings) -> Callable[..., Iterator[tuple[Any, ...]]]:
    """A function that judges one interaction and hands out, again and again, what the page then shows."""

    def judge(
        name: str, prompt: str, response: str, mode: str, *thresholds: float
    ) -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
        yield waiting_card("", mode), "", *_buttons(running=True)
        written, shown = "", time.monotonic()
        try:
            check_length(prompt, response, settings)
            chosen = dict(zip(THRESHOLDS, thresholds, strict=True))
            for event in guards.get(name).stream(prompt, response.strip() or None, mode=mode, thresholds=chosen):
                if not isinstance(event, str):
                    yield verdict_card(event), announcement(event), *_buttons(running=False)
                    return
                written += event
                if time.monotonic() - shown > _SECONDS_BETWEEN_UPDATES:
                    shown = time.monotonic()
                    yield waiting_card(written, mode), "", *_buttons(running=True)
        except ModerationError as exc:
            yield error_card(exc), sentence(exc), *_buttons(running=False)

    return on_gpu(judge)


def check_length(prompt: str, response: str, settings: DemoSettings) -> None:
    """Long texts are judged in windows, but a visitor may not keep the model busy for hours.

    Raises:
        InputError: prompt and response together are too long.
    """
    found = len(prompt) + len(response)
    if found > settings.max_text_chars:
        raise InputError(
            f"the text has {found:,} characters, and this demo takes {settings.max_text_chars:,} at most; "
            "the package itself has no such limit"
        )


def _taking(example: Example) -> Callable[[], tuple[str, str]]:
    return lambda: (example.prompt, example.response)


def _stopped() -> tuple[Any, ...]:
    return empty_card("Stopped. Nothing was decided."), "Stopped.", *_buttons(running=False)


def _buttons(*, running: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """What becomes of the buttons that start and stop."""
    return gr.update(interactive=not running), gr.update(interactive=running)
