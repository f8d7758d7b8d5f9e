from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browsing import opened

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytest_plugins = ["page_fixtures"]

PROMPTS = ["How do I rob a bank?", "How do I bake bread?", "Who robbed the train?", "What is rye?", "Please crash."]


@pytest.fixture
def table_file(tmp_path: Path) -> Path:
    file = tmp_path / "traffic.csv"
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["prompt", "id"], *([prompt, n] for n, prompt in enumerate(PROMPTS))])
    return file


def upload(page: Page, file: Path) -> None:
    page.get_by_role("tab", name="Batch").click()
    page.locator("#upload input[type=file]").set_input_files(file)
    page.locator("#upload").get_by_text(file.stem).first.wait_for()
    page.get_by_role("button", name="Judge the file").click()


def judged(page: Page, file: Path) -> str:
    """Uploads a file, waits until it is judged, and returns the sentence about it."""
    upload(page, file)
    status = page.locator("#batch-status", has_text="rows flagged")
    status.wait_for()
    page.get_by_role("gridcell", name=PROMPTS[0]).wait_for()
    return status.inner_text()


def wait_for_rows(page: Page, *numbers: int) -> None:
    """Waits until the table shows these rows and no others, in this order."""
    page.wait_for_function(
        """(wanted) => [...document.querySelectorAll("#batch-table .virtual-row [data-col='0']")]
            .map((cell) => cell.innerText.trim()).join() == wanted""",
        arg=",".join(map(str, numbers)),
    )


def test_a_file_is_judged_and_counted(page: Page, table_file: Path) -> None:
    told = judged(page, table_file)
    assert "3 of 5 rows flagged (60%) from score 0.50; 1 could not be judged and count as flagged" in told
    wait_for_rows(page, 1, 2, 3, 4, 5)


def test_moving_the_threshold_counts_anew(page: Page, table_file: Path) -> None:
    judged(page, table_file)
    slider = page.locator("#batch-threshold input[type=range]")
    slider.focus()
    slider.press("End")
    page.locator("#batch-status", has_text="1 of 5 rows flagged (20%) from score 1.00").wait_for()
    slider.press("Home")
    page.locator("#batch-status", has_text="5 of 5 rows flagged (100%) from score 0.00").wait_for()
    assert page.locator("#batch-histogram svg, #batch-histogram canvas").count()


def test_a_filter_leaves_the_rows_that_are_asked_for(page: Page, table_file: Path) -> None:
    judged(page, table_file)
    page.locator("#batch-filter").get_by_label("Not flagged", exact=True).check()
    wait_for_rows(page, 2, 4)


def test_an_order_sorts_the_rows(page: Page, table_file: Path) -> None:
    judged(page, table_file)
    page.get_by_label("Order").click()
    page.get_by_role("option", name="Highest score first").click()
    wait_for_rows(page, 5, 1, 3, 2, 4)  # what could not be judged comes before all


def test_a_heading_sorts_by_its_column(page: Page, table_file: Path) -> None:
    judged(page, table_file)
    heading = page.get_by_role("columnheader", name="User wrote").first
    heading.hover()
    heading.get_by_role("button", name="Open cell menu").click()
    page.get_by_role("menuitem", name="Sort ascending").click()
    wait_for_rows(page, 2, 1, 5, 4, 3)


def test_a_click_on_a_row_shows_its_verdict(page: Page, table_file: Path) -> None:
    judged(page, table_file)
    page.get_by_role("gridcell", name=PROMPTS[0]).click()
    detail = page.locator("#batch-detail", has_text="fraud illegal")
    detail.wait_for()
    assert "score 0.90" in detail.inner_text()


def test_the_keyboard_shows_the_verdict_of_a_row(page: Page, table_file: Path) -> None:
    judged(page, table_file)
    page.locator("#batch-table [role=gridcell][tabindex='0']").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.locator("#batch-detail", has_text="Not flagged").wait_for()


def test_the_download_holds_the_rows_and_their_verdicts(page: Page, table_file: Path, tmp_path: Path) -> None:
    judged(page, table_file)
    with page.expect_download() as started:
        page.get_by_role("button", name="Download").or_(page.get_by_role("link", name="Download")).first.click()
    assert started.value.suggested_filename == "traffic.judged.csv"
    started.value.save_as(tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["prompt"] for row in rows] == PROMPTS
    assert [row["moderation_flagged"] for row in rows] == ["true", "false", "true", "false", "true"]
    assert rows[4]["moderation_error"] == "the engine broke down"


@pytest.fixture
def long_file(tmp_path: Path) -> Path:
    """Takes the guard some seconds."""
    file = tmp_path / "long.jsonl"
    lines = (json.dumps({"prompt": f"How do I bake bread number {number}?"}) for number in range(48))
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def test_progress_is_shown_while_it_works(page: Page, long_file: Path) -> None:
    upload(page, long_file)
    page.locator("#batch-status", has_text="rows are not judged yet").wait_for()
    page.locator("#batch-status", has_text="0 of 48 rows flagged").wait_for()


def test_a_filter_that_is_chosen_while_it_works_stays(page: Page, long_file: Path) -> None:
    upload(page, long_file)
    page.locator("#batch-status", has_text="rows are not judged yet").wait_for()
    page.locator("#batch-filter").get_by_label("Flagged", exact=True).check()
    page.locator("#batch-status", has_text="0 of 48 rows flagged").wait_for()
    wait_for_rows(page)


def test_stopping_keeps_what_is_judged(page: Page, long_file: Path) -> None:
    upload(page, long_file)
    page.locator("#batch-status", has_text="rows are not judged yet").wait_for()
    page.locator("#stop-file").click()
    page.locator("#judge-file:not([disabled])").wait_for()
    page.wait_for_timeout(3000)  # longer than the rest would take
    assert "rows are not judged yet" in page.locator("#batch-status").inner_text()


def test_results_need_no_sideways_scrolling_on_a_phone(browser: Browser, address: str, table_file: Path) -> None:
    page = opened(browser, address, width=375)
    judged(page, table_file)
    page.get_by_role("gridcell", name=PROMPTS[0]).click()
    page.locator("#batch-detail .gm-cost").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    page.context.close()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("traffic.csv", "text\nhello\n", "Traffic.csv has no prompt column 'prompt'"),
        ("traffic.jsonl", "hello\n", "No row of traffic.jsonl can be read"),
        ("traffic.jsonl", '{"prompt": "hello"}\n' * 51, "Traffic.jsonl has 51 rows, and this demo takes 50 at most"),
    ],
    ids=["column", "format", "length"],
)
def test_a_file_that_cannot_be_judged_is_told_in_a_sentence(
    page: Page, tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    upload(page, tmp_path / name)
    page.get_by_role("alert").filter(has_text=message).wait_for()


def test_no_file_is_told_in_a_sentence(page: Page) -> None:
    page.get_by_role("tab", name="Batch").click()
    page.get_by_role("button", name="Judge the file").click()
    page.get_by_role("alert").filter(has_text="No file was chosen").wait_for()
