"""The page as a whole: benchmarks, narrow and dark, names for screen readers, nothing fetched from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from browsing import opened
from sample_figures import FIGURES

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytest_plugins = ["page_fixtures"]

TABS = ("Classify", "Batch", "Benchmarks", "About")

# Contrast of a text with what is behind it, by WCAG 2.2, 1.4.3.
CONTRAST = """
(element) => {
  const read = (colour) => {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 1;
    const pen = canvas.getContext("2d");
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [x, y, z] = [r, g, b].map((v) => linear(v / 255));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  let behind = element, ground = [255, 255, 255, 255];
  while (behind) {
    const colour = read(getComputedStyle(behind).backgroundColor);
    if (colour[3] == 255) { ground = colour; break; }
    behind = behind.parentElement;
  }
  const [a, b] = [luminance(read(getComputedStyle(element).color)), luminance(ground)];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}
"""

# Everything that takes input and can be seen, and has no name that a screen reader could say.
NAMELESS = """
() => [...document.querySelectorAll("input, textarea, select, button, [role=button]")]
  .filter((one) => one.offsetParent && one.type != "file" && !one.closest("[aria-hidden=true]"))
  .filter((one) => !(one.getAttribute("aria-label") || one.getAttribute("aria-labelledby") || one.title
    || [...(one.labels || [])].some((label) => label.innerText.trim()) || one.innerText.trim()
    || one.querySelector("svg title, img[alt]")))
  .map((one) => one.outerHTML.slice(0, 200))
"""


def see_all(page: Page, tab: str) -> None:
    page.get_by_role("tab", name=tab).click()
    page.get_by_role("tabpanel").filter(visible=True).first.wait_for()
    if tab == "Benchmarks":
        page.locator("#f1 caption").wait_for()


def test_benchmarks_show_every_figure_of_the_chosen_one(page: Page) -> None:
    see_all(page, "Benchmarks")
    page.locator("#f1 caption", has_text="ToxicChat").wait_for()
    assert page.locator("#f1 tbody tr").count() == len(FIGURES.f1_of("ToxicChat"))
    page.get_by_label("Benchmark", exact=True).click()
    page.get_by_role("option", name="Mine").click()
    page.locator("#f1", has_text="There is no figure of Mine").wait_for()


def test_curves_are_drawn_where_there_are_some(page: Page) -> None:
    see_all(page, "Benchmarks")
    page.locator("#recall canvas, #recall svg.marks").first.wait_for()
    page.locator("#calibration canvas, #calibration svg.marks").first.wait_for()
    page.get_by_label("Benchmark", exact=True).click()
    page.get_by_role("option", name="XSTest").click()
    page.locator("#no-curves", has_text="Curves were not measured on XSTest.").wait_for()
    page.locator("#recall").wait_for(state="hidden")


def test_speed_and_claims_stand_below(page: Page) -> None:
    see_all(page, "Benchmarks")
    assert "2.50" in page.locator("#speed").inner_text()
    assert "0.40 s" in page.locator("#speed").inner_text()
    assert page.locator("#claims tbody tr").count() == len(FIGURES.claims)


def test_published_figures_can_be_left_out(page: Page) -> None:
    see_all(page, "Benchmarks")
    page.locator("#f1", has_text="published, n").wait_for()
    page.get_by_label("Published by others").uncheck()
    page.locator("#f1", has_text="published, n").wait_for(state="hidden")


def test_about_says_what_it_is_and_what_it_cannot_do(page: Page) -> None:
    see_all(page, "About")
    shown = page.locator(".block.gm-about").inner_text()
    assert "What it cannot do" in shown
    assert "135 million" in shown
    assert page.get_by_role("link", name="GuardReasoner: Towards").get_attribute("href")


@pytest.mark.parametrize("tab", TABS)
def test_a_phone_needs_no_sideways_scrolling(browser: Browser, address: str, tab: str) -> None:
    page = opened(browser, address, width=375)
    see_all(page, tab)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    page.context.close()


def test_on_a_phone_the_verdict_comes_into_view(browser: Browser, address: str) -> None:
    page = opened(browser, address, width=375)
    page.get_by_role("button", name="Harmful request").click()
    page.locator("#verdict .gm-cost").wait_for()
    page.wait_for_function("document.querySelector('#verdict .gm-headline').getBoundingClientRect().top < innerHeight")
    page.context.close()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_texts_of_the_verdict_stand_out_from_their_background(browser: Browser, address: str, dark: bool) -> None:
    page = opened(browser, address, dark=dark)
    assert page.locator("body.dark").count() == int(dark)
    page.get_by_role("button", name="Refusal", exact=True).click()
    page.locator("#verdict .gm-cost").wait_for()
    kinds = ".gm-headline strong, .gm-badge, .gm-scale span, .gm-cost dt, .gm-steps li, .gm-hero p, #judge"
    texts = page.locator(kinds)
    found = {text.inner_text(): text.evaluate(CONTRAST) for text in texts.all()}
    assert len(found) > 8
    assert {text: ratio for text, ratio in found.items() if ratio < 4.5} == {}
    page.context.close()


@pytest.mark.parametrize("tab", TABS)
def test_whatever_takes_input_has_a_name(page: Page, tab: str) -> None:
    see_all(page, tab)
    assert page.evaluate(NAMELESS) == []


def test_nothing_is_fetched_from_elsewhere(browser: Browser, address: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    for tab in TABS:
        see_all(page, tab)
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    context.close()


def test_the_page_says_its_language(page: Page) -> None:
    assert page.evaluate("document.documentElement.lang") == "en"
