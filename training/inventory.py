"""What is in training data: sources, licences, splits and labels, as a table for people and for run records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from guardreasoner_moderation.results import Label, Task
from training.data import TRAIN, LabelledInteraction

_COUNTS = ("train", "validation", "doubtful", "harmful", "responses", "refusals", "harmful_responses", "reasoned")


def take_inventory(items: Sequence[LabelledInteraction]) -> list[dict[str, Any]]:
    """One row for each source and licence: how many items each split has, and how many of both have each label.

    This is the licence table of a run record: whoever publishes a model finds in it whose data is in the model.
    """
    counts: dict[tuple[str, str], Counter[str]] = {}
    for item in items:
        row = counts.setdefault((item.source, item.license), Counter())
        row["train" if item.split == TRAIN else "validation"] += 1
        row["harmful"] += item.labels[Task.REQUEST] is Label.HARMFUL
        row["responses"] += item.interaction.response is not None
        row["refusals"] += item.labels.get(Task.COMPLETION) is Label.REFUSAL
        row["harmful_responses"] += item.labels.get(Task.RESPONSE) is Label.HARMFUL
        row["reasoned"] += item.can_think
        row["doubtful"] += item.doubtful
    return [
        {"source": source, "license": license_, **{name: row[name] for name in _COUNTS}}
        for (source, license_), row in counts.items()
    ]


def inventory_tables(inventory: Sequence[dict[str, Any]]) -> list[Table]:
    """The inventory for a terminal of 80 columns: licences and splits, then labels, each with a line of totals."""
    tables = []
    for title, texts, counts in (
        ("what is in the data", ("source", "license"), _COUNTS[:3]),
        ("its labels", ("source",), _COUNTS[3:]),
    ):
        table = Table(title=title, show_footer=True)
        for name in texts:
            table.add_column(name, footer="all" if name == "source" else "", overflow="fold")
        for name in counts:
            total = sum(row[name] for row in inventory)
            table.add_column(name.replace("_", " "), footer=str(total), justify="right")
        for row in inventory:
            table.add_row(*(str(row[name]) for name in (*texts, *counts)))
        tables.append(table)
    return tables
