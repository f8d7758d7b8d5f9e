from __future__ import annotations

import json
from dataclasses import FrozenInstanceError

import pytest
from rich.console import Console

from guardreasoner_moderation import Category, Label, Mode, ModerationResult, Task, TaskVerdict, Usage, Window

PAIR = ModerationResult(
    flagged=True,
    request=TaskVerdict(Label.HARMFUL, 0.912, 0.5, ("The user wants to spy on a neighbour.", "That is illegal.")),
    completion=TaskVerdict(Label.REFUSAL, 0.99, 0.5, ("The assistant declines.",)),
    response=TaskVerdict(Label.UNHARMFUL, 0.02, 0.5),
    category=Category.PRIVACY_INDIVIDUAL,
    mode=Mode.THINK,
    model="embedded",
    usage=Usage(90, 41, 0.5),
    windows={Task.REQUEST: Window(1, 3, "prompt", 100, 180)},
)
UNJUDGED = ModerationResult(flagged=True, request=None, error="the prompt is empty")


def shown(result: ModerationResult) -> str:
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(result)
    return capture.get()


def test_to_dict_holds_every_field_in_plain_types() -> None:
    record = json.loads(PAIR.to_json())
    assert list(record) == [
        "flagged", "request", "completion", "response", "category", "mode", "model", "usage", "windows",
    ]  # fmt: skip
    assert record["request"] == {
        "label": "harmful",
        "score": 0.912,
        "threshold": 0.5,
        "reasoning": ["The user wants to spy on a neighbour.", "That is illegal."],
    }
    assert record["category"] == "privacy_individual"
    assert record["windows"]["request"] == {"index": 1, "count": 3, "field": "prompt", "start": 100, "end": 180}


def test_an_error_is_in_the_record_and_the_flag_stands() -> None:
    record = UNJUDGED.to_dict()
    assert record["error"] == "the prompt is empty"
    assert record["flagged"] is True
    assert record["request"] is None


def test_reasoning_runs_over_the_tasks_in_order() -> None:
    assert PAIR.reasoning[-1] == "The assistant declines."
    assert [task for task, _ in PAIR.verdicts()] == list(Task)


def test_results_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        PAIR.flagged = False  # type: ignore[misc]


def test_str_is_readable() -> None:
    text = str(PAIR)
    assert text.startswith("FLAGGED (privacy_individual)\nrequest: harmful (score 0.91)\n  - The user wants")
    assert str(UNJUDGED) == "FLAGGED: not judged: the prompt is empty"


def test_rich_shows_verdicts_scores_thresholds_and_the_window() -> None:
    text = shown(PAIR)
    assert "FLAGGED  privacy_individual" in text
    assert "0.91" in text
    assert "█████████|" in text  # half of the bar, the threshold of 0.5
    assert "Request    - The user wants to spy on a neighbour.\n           - That is illegal." in text
    assert "Completion - The assistant declines." in text
    assert "part 2 of 3 decided (characters 100 to 180 of the prompt)" in text
    assert "90 tokens read, 41 written" in text


def test_rich_shows_an_error() -> None:
    assert "FLAGGED, not judged: the prompt is empty" in shown(UNJUDGED)
