from __future__ import annotations

import pytest

from guardreasoner_moderation import Category, InputError, Label, Mode, ModerationResult, Task, TaskVerdict, Usage
from guardreasoner_moderation.demo.verdict_card import announcement, error_card, sentence, verdict_card, waiting_card
from guardreasoner_moderation.results import Window

HARMFUL = TaskVerdict(Label.HARMFUL, 0.92, 0.4, ("It asks for a <b>trick</b>.",))
REFUSED = TaskVerdict(Label.REFUSAL, 0.85, 0.5)
HARMLESS = TaskVerdict(Label.UNHARMFUL, 0.03, 0.5)


def result(**changes: object) -> ModerationResult:
    fields = {
        "flagged": True,
        "request": HARMFUL,
        "completion": REFUSED,
        "response": HARMLESS,
        "category": Category.FRAUD_ILLEGAL,
        "mode": Mode.THINK,
        "model": "embedded",
        "usage": Usage(1222, 59, 6.6),
        **changes,
    }
    return ModerationResult(**fields)  # type: ignore[arg-type]


def test_the_score_and_its_threshold_are_marked_on_the_bar() -> None:
    card = verdict_card(result())
    assert 'style="width:92.0%"' in card
    assert 'style="left:40.0%"' in card
    assert 'role="meter"' in card
    assert 'aria-valuetext="0.92; harmful from 0.40"' in card


def test_category_latency_and_tokens_are_told() -> None:
    card = verdict_card(result())
    assert all(text in card for text in ("Flagged", "fraud illegal", "6.60 s", "1,222", "59", "think", "embedded"))


def test_a_refusal_is_no_alarm() -> None:
    card = verdict_card(result(flagged=False, request=HARMLESS, category=None))
    assert 'gm-bad"' not in card
    assert "Not flagged" in card


def test_reasoning_cannot_bring_markup_into_the_page() -> None:
    assert "&lt;b&gt;trick&lt;/b&gt;" in verdict_card(result())
    assert "<b>trick" not in verdict_card(result()) + waiting_card("It asks for a <b>trick</b>.", "think")


def test_reasoning_stands_under_its_task_where_there_are_several() -> None:
    assert '<h4 class="gm-subtitle">Request</h4>' in verdict_card(result())
    assert "<h4" not in verdict_card(result(completion=None, response=None))


def test_a_long_text_says_which_part_decided() -> None:
    card = verdict_card(result(windows={Task.REQUEST: Window(1, 3, "prompt", 1900, 2285)}))
    assert "part 2 of 3 of the prompt decided (characters 1,900 to 2,285)" in card


def test_an_unjudged_item_says_why() -> None:
    card = verdict_card(result(request=None, completion=None, response=None, category=None, error="the engine failed"))
    assert 'role="alert"' in card
    assert "The engine failed." in card


def test_the_announcement_is_one_line_of_words() -> None:
    assert announcement(result()) == (
        "Flagged, fraud illegal. Request harmful, score 0.92, Completion refusal, score 0.85, "
        "Response unharmful, score 0.03."
    )


@pytest.mark.parametrize(
    ("written", "mode", "shown"),
    [("", "think", "Reading"), ("", "verdict", "Judging"), ("The user asks", "think", "Reasoning")],
)
def test_waiting_says_what_is_being_done(written: str, mode: str, shown: str) -> None:
    assert shown in waiting_card(written, mode)


def test_errors_are_sentences() -> None:
    assert sentence(InputError("the prompt is empty")) == "The prompt is empty."
    assert "The prompt &lt;x&gt; is empty." in error_card(InputError("the prompt <x> is empty"))
