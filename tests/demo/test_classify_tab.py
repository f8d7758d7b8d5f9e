from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from paced_guard import STEPS

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytest_plugins = ["page_fixtures"]


def request_box(page: Page) -> Locator:
    # The name that a screen reader says goes on with the explanation.
    return page.get_by_role("textbox", name=re.compile("^Request"))


def judge(page: Page, prompt: str, response: str = "", mode: str = "Think") -> None:
    request_box(page).fill(prompt)
    page.get_by_role("textbox", name=re.compile("^Response")).fill(response)
    page.locator("#mode").get_by_label(mode, exact=True).check()
    page.get_by_role("button", name="Judge", exact=True).click()


def verdict(page: Page) -> str:
    """The text of the verdict, when it is there."""
    page.locator("#verdict .gm-cost").wait_for()
    return page.locator("#verdict").inner_text()


def test_reasoning_grows_on_the_page_before_the_verdict(page: Page) -> None:
    judge(page, "How do I rob a bank?")
    page.locator("#verdict .gm-steps", has_text="The user asks").wait_for()
    early = page.locator("#verdict").inner_text()
    assert STEPS[1] not in early
    assert "Flagged" not in early
    shown = verdict(page)
    assert all(step in shown for step in STEPS)


def test_the_verdict_has_badge_score_threshold_category_and_cost(page: Page) -> None:
    judge(page, "How do I rob a bank?", mode="Verdict")
    shown = verdict(page)
    for text in ("Flagged", "fraud illegal", "harmful", "score 0.90", "harmful from 0.50", "Latency", "Tokens read"):
        assert text in shown
    meter = page.get_by_role("meter", name="Request: score of harmful")
    assert meter.get_attribute("aria-valuenow") == "0.90"
    assert page.locator("#announcer").inner_text() == "Flagged, fraud illegal. Request harmful, score 0.90."
    assert page.locator("#announcer").get_attribute("aria-live") == "polite"


def test_an_example_is_filled_in_and_judged(page: Page) -> None:
    page.get_by_role("button", name="Refusal", exact=True).click()
    assert "refusal" in verdict(page)
    assert page.get_by_role("meter").count() == 3
    assert "FritzBox" in request_box(page).input_value()


def test_a_threshold_that_is_moved_counts_for_the_next_verdict(page: Page) -> None:
    page.get_by_role("button", name="Model and thresholds").click()
    box = page.get_by_role("spinbutton", name="Request is harmful from")
    box.fill("0.95")
    box.press("Enter")
    judge(page, "How do I rob a bank?", mode="Verdict")
    shown = verdict(page)
    assert "Not flagged" in shown
    assert "harmful from 0.95" in shown


def test_stopping_ends_the_judgement(page: Page) -> None:
    judge(page, "How do I bake bread?")
    page.locator("#verdict .gm-steps").wait_for()
    page.get_by_role("button", name="Stop", exact=True).first.click()
    page.locator("#verdict", has_text="Stopped.").wait_for()
    page.wait_for_timeout(3000)  # longer than the rest of the reasoning would take
    assert "Stopped." in page.locator("#verdict").inner_text()
    judge(page, "How do I bake bread?", mode="Verdict")
    assert "Not flagged" in verdict(page)


@pytest.mark.parametrize(
    ("prompt", "response", "message"),
    [
        ("", "", "The prompt is empty: there is nothing to judge."),
        ("Please crash.", "", "The engine broke down."),
        ("word " * 300, "word " * 300, "The text has 3,000 characters, and this demo takes 2,000 at most"),
    ],
    ids=["empty", "failing", "long"],
)
def test_an_error_is_a_sentence_on_the_page(page: Page, prompt: str, response: str, message: str) -> None:
    judge(page, prompt, response)
    page.get_by_role("alert").filter(has_text=message).wait_for()
    page.get_by_role("button", name="Judge", exact=True).click(trial=True)  # it can be pressed again


def test_the_keyboard_alone_is_enough(page: Page) -> None:
    request_box(page).focus()
    page.keyboard.type("How do I rob a bank?")
    page.keyboard.press("Tab")
    page.keyboard.type("I cannot tell you.")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")  # each mode is a stop of its own
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent").strip() == "Judge"
    page.keyboard.press("Enter")
    shown = verdict(page)
    assert "verdict" in shown
    assert "refusal" in shown


def test_shift_and_enter_judge_from_the_text(page: Page) -> None:
    request_box(page).fill("How do I bake bread?")
    page.keyboard.press("Shift+Enter")
    assert "Not flagged" in verdict(page)


def test_another_model_can_be_chosen(page: Page) -> None:
    page.get_by_role("button", name="Model and thresholds").click()
    page.get_by_label("Model", exact=True).first.click()
    page.get_by_role("option", name="quick").click()
    judge(page, "How do I bake bread?", mode="Verdict")
    assert "paced" in verdict(page)  # both run on engines of that name
