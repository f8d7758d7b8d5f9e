from __future__ import annotations

import io

from labelled import item, refused
from rich.console import Console

from training.inventory import inventory_tables, take_inventory

STEPS = {"request": ["a"], "completion": ["b"], "response": ["c"]}
ITEMS = [
    item("a"),
    item("b", split="validation", request="harmful", flag="wrong"),
    refused(source="other", license="MIT", reasoning=STEPS),
]


def test_each_source_and_licence_is_counted() -> None:
    own, other = take_inventory(ITEMS)
    assert own == {
        "source": "own",
        "license": "CC0-1.0",
        "train": 1,
        "validation": 1,
        "doubtful": 1,
        "harmful": 1,
        "responses": 0,
        "refusals": 0,
        "harmful_responses": 0,
        "reasoned": 0,
    }
    assert (other["source"], other["license"], other["refusals"], other["reasoned"]) == ("other", "MIT", 1, 1)


def test_two_licences_of_one_source_are_two_rows() -> None:
    assert len(take_inventory([item("a"), item("b", license="MIT")])) == 2


def test_the_tables_have_totals_and_fit_a_terminal() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    for table in inventory_tables(take_inventory(ITEMS)):
        console.print(table)
    text = console.export_text()
    assert all(len(line) <= 80 for line in text.splitlines())
    licences, labels = (
        [cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if "all" in line
    )
    assert licences == ["all", "", "2", "1", "1"]
    assert labels == ["all", "2", "1", "1", "0", "1"]
