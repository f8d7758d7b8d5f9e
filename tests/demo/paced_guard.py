"""A guard without a model for the tests of the demo, and a process that serves the page with it.

``python tests/demo/paced_guard.py SECONDS`` takes so many seconds for a word.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from guardreasoner_moderation import EngineError, Moderator
from guardreasoner_moderation.engines.base import Generation
from guardreasoner_moderation.engines.scripted import ScriptedEngine
from guardreasoner_moderation.models import ModelSpec
from guardreasoner_moderation.prompts import Prompt, PromptFormat

STEPS = ("The user asks for one thing or another.", "Nobody would be surprised by it.")


class PacedEngine(ScriptedEngine):
    """Takes its time for each word, as a model does."""

    def __init__(self, *arguments: Any, pace: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._pace = pace

    def generate(self, prompts: Sequence[Prompt], **options: Any) -> list[Generation]:
        aloud = options.pop("on_text", None)

        def on_text(number: int, piece: str) -> None:
            time.sleep(self._pace)
            if aloud is not None:
                aloud(number, piece)

        return super().generate(prompts, on_text=on_text, **options)


def paced_guard(pace: float = 0.0) -> Moderator:
    """Finds texts with "rob" harmful, answers with "cannot" refusals, and fails on texts with "crash"."""

    def reply(prompt: Prompt) -> str:
        if "crash" in prompt.text:
            raise EngineError("the engine broke down")
        texts = prompt.spans[-1].text if len(prompt.spans) == 1 else prompt.text
        harmful = "rob" in texts
        answers = " harmful\nCategory: fraud_illegal" if harmful else " unharmful"
        paired = "AI assistant" in texts
        if paired:
            answers += f"\nCompletion: {'refusal' if 'cannot' in texts else 'compliance'}\nResponse: unharmful"
        if "/verdict" in texts:
            return answers
        second = "\n# Task 2\nIt answers.\n# Task 3\nThe answer does no harm." if paired else ""
        return f"{STEPS[0]}\n{STEPS[1]}{second}\n---\nAnswers:\nRequest:{answers}"

    spec = ModelSpec(prompt_format=PromptFormat.COMPACT, categories=("fraud_illegal", "other"))
    return Moderator.from_engine(PacedEngine(reply, pace=pace), spec, name="paced")


if __name__ == "__main__":
    from sample_figures import FIGURES

    from guardreasoner_moderation.demo import DemoSettings, require_extra

    require_extra()
    from guardreasoner_moderation.demo.app import build_app, launch
    from guardreasoner_moderation.demo.guards import Guards

    limits = DemoSettings(max_rows=50, max_text_chars=2_000)
    guards = Guards({"paced": paced_guard(float(sys.argv[1])), "quick": paced_guard()})
    app = build_app(guards, limits, FIGURES)
    print(launch(app, limits), flush=True)
    app.block_thread()
