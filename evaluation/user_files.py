"""A labelled file of the user's own as a benchmark, as the command line describes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evaluation.items import Columns, read_items, read_rows
from evaluation.loading import Benchmark, HubSource, Loaded, LocalFile, whole
from guardreasoner_moderation.errors import InputError, nearest
from guardreasoner_moderation.results import LABELS, Label, Task

_COLUMNS = ("prompt", "response", "label", "group")


def user_benchmark(file: Path, task: str, columns: str = "", labels: str = "") -> Loaded:
    """Reads a JSON, JSONL, CSV or Parquet file of labelled interactions.

    Args:
        file: what to read; its name without ending names the benchmark.
        task: what the labels are about: request, completion or response.
        columns: which column holds what, as in ``prompt=text,response=answer,label=y,group=source``; default: the
            columns ``prompt``, ``label`` and, unless the task is the request, ``response``.
        labels: which values mean which label, as in ``harmful=bad,harmful=worse,unharmful=ok``.

    Raises:
        InputError: an option or the file cannot be read, a column is missing, or a label cannot be mapped.
    """
    if task not in set(Task):
        raise InputError(f"unknown task {task!r}{nearest(task, Task)}")
    which = Task(task)
    mapping = read_mapping(columns, labels, which)
    items = read_items(read_rows(file), mapping, which, name=file.stem, where=str(file))
    benchmark = Benchmark(
        file.stem,
        which,
        len(items),
        license="the user's own",
        adversarial=False,
        hub=HubSource(""),
        local=LocalFile(file.name, mapping),
        table3=False,
    )
    return whole(benchmark, items, file.name)


def read_mapping(columns: str, labels: str, task: Task) -> Columns:
    """Columns and labels from the texts of :func:`user_benchmark`.

    Raises:
        InputError: an unknown column or label, or a part without ``=``.
    """
    named: dict[str, Any] = {"response": None if task is Task.REQUEST else "response"}
    for name, value in _pairs(columns, "columns"):
        if name not in _COLUMNS:
            raise InputError(f"unknown column {name!r} in columns{nearest(name, _COLUMNS)}")
        named[name] = value
    mapped = {}
    for name, value in _pairs(labels, "labels"):
        if name not in LABELS[task]:
            raise InputError(f"unknown label {name!r} in labels{nearest(name, LABELS[task])}")
        mapped[value.lower()] = Label(name)
    return Columns(**named, labels=mapped)


def _pairs(text: str, option: str) -> list[tuple[str, str]]:
    pairs = []
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if not value.strip():
            raise InputError(f"{option}: expected NAME=VALUE with commas between, found {part!r}")
        pairs.append((name.strip(), value.strip()))
    return pairs
