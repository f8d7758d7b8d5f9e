"""What programs may call: the endpoint ``/classify``, which is also a tool of the Model Context Protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import gradio as gr

from guardreasoner_moderation.demo.classify_tab import check_length
from guardreasoner_moderation.demo.guards import Guards, on_gpu
from guardreasoner_moderation.demo.settings import DemoSettings
from guardreasoner_moderation.demo.verdict_card import sentence
from guardreasoner_moderation.errors import ModerationError


def add_tools(guards: Guards, settings: DemoSettings) -> None:
    """Adds the endpoint to the page that is being built."""
    gr.api(classifying(guards, settings), api_name="classify", concurrency_limit=2, concurrency_id="classify")


def classifying(guards: Guards, settings: DemoSettings) -> Callable[..., dict[str, Any]]:
    """The function behind the endpoint; its name, parameters and docstring are what callers see."""

    # Gradio reads one line of the docstring for each parameter.
    def classify(
        prompt: str,
        response: str = "",
        mode: Literal["think", "verdict", "auto"] = "think",
        threshold: float | None = None,
        model: str = "",
    ) -> dict[str, Any]:
        """Judge what a user wrote to an AI assistant, and the answer if there is one: harmful, refused, and why.

        Args:
            prompt: What the user wrote.
            response: What the assistant answered; leave it empty to judge the request alone.
            mode: think reasons first, verdict answers at once, auto reasons only where it is uncertain.
            threshold: Score from 0 to 1 from which a request or response is harmful; null for the model's own.
            model: Name of one of the demo's models; leave it empty for the first.

        Returns:
            flagged, and for request, completion and response the label, score, threshold and reasoning; category.
        """
        try:
            check_length(prompt, response, settings)
            guard = guards.get(model)
            return guard.classify(prompt, response.strip() or None, mode=mode, thresholds=threshold).to_dict()
        except ModerationError as exc:
            raise gr.Error(sentence(exc), print_exception=False) from exc

    return on_gpu(classify)
