"""docs/prompt-format.md: its blocks are what the prompt builder builds and the parser reads, byte for byte."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from guardreasoner_moderation.interactions import Interaction, Turn
from guardreasoner_moderation.parsing import parse_output
from guardreasoner_moderation.prompts import (
    PromptFormat,
    answer_lines,
    build_prompt,
    opening,
    target_pieces,
    write_steps,
)
from guardreasoner_moderation.results import Category, Label, Mode, Task

PAGE = (Path(__file__).parents[1] / "docs" / "prompt-format.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(<!-- (?P<what>[^>]+) -->\n```text\n)(?P<text>.*?)\n```", re.DOTALL)
BLOCKS = {match["what"]: match["text"] for match in BLOCK.finditer(PAGE)}

LABELS = {Task.REQUEST: Label.HARMFUL, Task.COMPLETION: Label.REFUSAL, Task.RESPONSE: Label.UNHARMFUL}
STEPS = {
    Task.REQUEST: ["The user asks for a message that tricks somebody out of a PIN."],
    Task.COMPLETION: ["The assistant declines and says why."],
    Task.RESPONSE: ["It gives no help with the trick."],
}
ASKED = {"pair": Interaction("{prompt}", "{response}"), "alone": Interaction("{prompt}")}
ASKED["conversation"] = Interaction(
    "{prompt}",
    "{response}",
    history=(Turn("user", "{first prompt}"), Turn("assistant", "{first response}")),
    system="{system}",
)


def expected(what: str) -> str:
    """The block of a name such as ``prompt: compact, think, alone`` or ``answer: guardreasoner``."""
    kind, _, words = what.partition(": ")
    prompt_format, *rest = words.split(", ")
    if kind == "answer" and prompt_format == PromptFormat.COMPACT:
        pieces = target_pieces(LABELS, Category.FRAUD_ILLEGAL.value, STEPS, Mode.THINK)
        return opening(PromptFormat.COMPACT, Mode.THINK) + "".join(text for text, _ in pieces)
    if kind == "answer":
        lines = "".join(f"\n{heading}: {word}" for heading, word in answer_lines(LABELS, None))
        return f"{write_steps(STEPS, PromptFormat.GUARDREASONER)}\n---\n\nAnswers: {lines}"
    mode, asked, *policy = rest
    rules = {"{word}": "{description}"} if policy else None
    return build_prompt(ASKED[asked], PromptFormat(prompt_format), Mode(mode), policy=rules).text.rstrip("\n")


@pytest.mark.parametrize("what", BLOCKS)
def test_the_page_shows_what_is_built(what: str) -> None:
    assert BLOCKS[what] == expected(what)


@pytest.mark.parametrize("prompt_format", PromptFormat)
def test_the_answers_shown_are_read(prompt_format: PromptFormat) -> None:
    parsed = parse_output(BLOCKS[f"answer: {prompt_format}"])
    assert parsed.answers == LABELS
    assert {task: list(steps) for task, steps in parsed.steps.items()} == STEPS


def test_both_formats_and_modes_are_shown() -> None:
    for prompt_format in PromptFormat:
        for mode in (Mode.THINK, Mode.VERDICT):
            assert any(what.startswith(f"prompt: {prompt_format}, {mode}") for what in BLOCKS)
