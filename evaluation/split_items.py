"""The labelled items of one split of the training data's files, for measurements that no benchmark may decide."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evaluation.items import Item, read_rows
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.interactions import to_interaction
from guardreasoner_moderation.results import LABELS, Label, Task

COLUMNS = {Task.REQUEST: "request", Task.COMPLETION: "completion", Task.RESPONSE: "response_harm"}


def read_split(files: Sequence[Path], split: str, task: Task) -> list[Item]:
    """The items of a split that have a label of the task; rows with a ``flag`` are left out.

    Of the request's label the items are prompts alone, and each prompt comes once.

    Raises:
        InputError: a file cannot be read, a label is unknown, or not both labels occur.
    """
    items = []
    seen: set[str] = set()
    for file in files:
        for number, row in enumerate(read_rows(file), 1):
            label = row.get(COLUMNS[task])
            if row.get("split") != split or row.get("flag") or label is None:
                continue
            if label not in LABELS[task]:
                raise InputError(f"{file}, row {number}, column {COLUMNS[task]!r}: {label!r} is no label")
            if task is Task.REQUEST and row.get("prompt") in seen:
                continue
            seen.add(str(row.get("prompt")))
            response = None if task is Task.REQUEST else row.get("response")
            items.append(Item(f"{file.name}/{number}", to_interaction((row.get("prompt"), response)), Label(label)))
    if {item.label for item in items} != set(LABELS[task]):
        names = ", ".join(str(file) for file in files)
        labels = " and ".join(LABELS[task])
        raise InputError(f"{names}: the split {split!r} needs {labels} items, found {len(items)}")
    return items
