"""Where labelled interactions come from: files of several kinds, and GuardReasonerTrain on the Hub.

A file (JSONL, JSON, CSV or Parquet, the first and the last two also gzipped) holds rows of one of these kinds, told by
its columns:

* the format of :mod:`training.data`; ``id``, ``source``, ``license`` and ``split`` may be missing here,
* chat exports: ``messages`` as OpenAI's API has them, with the labels as columns of that format or in an object
  ``labels`` with ``request``, ``completion`` and ``response``,
* ``instruction, input, output``, as in GuardReasonerTrain.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

from guardreasoner_moderation.batch.reading import read_rows
from guardreasoner_moderation.errors import InputError, nearest
from guardreasoner_moderation.parsing import parse_output
from guardreasoner_moderation.results import Task
from guardreasoner_moderation.verdicts import tasks_of
from texts.release_rows import split_input
from training.data import TRAIN, LabelledInteraction, read_row

HUB_NAME = "GuardReasonerTrain"
HUB_ID = "yueliu1999/GuardReasonerTrain"

UNKNOWN_LICENSE = "not stated"
ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".csv", ".csv.gz", ".parquet")
_BESIDE_DATA = (".record.json", ".journal.jsonl")  # what this package's commands write beside their output
_RELEASE_COLUMNS = ("instruction", "input", "output")


@dataclass(frozen=True, slots=True)
class HubSplit:
    """One split of GuardReasonerTrain.

    Attributes:
        file: its file in the repository.
        rows: how many were published.
        license: of the texts; the reasoning, written by GPT-4o, is published under MIT.
        sha256: of the file as published in February 2025, where the Hub's page tells it.
    """

    file: str
    rows: int
    license: str
    sha256: str | None = None


HUB_SPLITS: Mapping[str, HubSplit] = MappingProxyType(
    {
        "WildGuardTrainR": HubSplit(
            "WildGuardTrain-R.json",
            86_759,
            "ODC-BY-1.0",
            "36f3b6593142c6ef295d209f5c1e96d3eca8e6d5788bf206fec03e133c9f521a",
        ),
        "AegisTrainR": HubSplit("AegisTrain-R.json", 10_798, "CC-BY-4.0"),
        "BeaverTailsTrainR": HubSplit("BeaverTailsTrain-R.json", 27_186, "CC-BY-NC-4.0"),
        "ToxicChatTrainR": HubSplit("ToxicChatTrain-R.json", 2_801, "CC-BY-NC-4.0"),
    }
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """One file of labelled interactions.

    Attributes:
        name: of the file, or of the Hub's split.
        items: in the order of the file.
        sha256: of the file.
        splits_itself: the file says what belongs to the validation split.
        left_out: rows that cannot be learned from, by reason.
        revision: the Hub's commit; None for a file.
    """

    name: str
    items: list[LabelledInteraction]
    sha256: str
    splits_itself: bool
    left_out: Mapping[str, int] = field(default_factory=dict)
    revision: str | None = None


def load_sources(
    sources: Iterable[str], *, default_license: str = UNKNOWN_LICENSE, revision: str | None = None
) -> list[Loaded]:
    """Reads several sources.

    Args:
        sources: files; folders, of which all files with a known ending are read; ``GuardReasonerTrain`` for what is on
            the Hub, or one split of it, as in ``GuardReasonerTrain/AegisTrainR``.
        default_license: of rows that name none.
        revision: commit of GuardReasonerTrain, such as an earlier record names; default: the newest.

    Raises:
        InputError: a file or row cannot be read, a label is missing, or two items have one id; the message says where.
        MissingDependencyError: Parquet needs pyarrow.
    """
    loaded: list[Loaded] = []
    for source in sources:
        name, _, split = source.partition("/")
        if name == HUB_NAME and not Path(source).exists():
            loaded += _load_from_hub(split, revision)
            continue
        path = Path(source)
        files = [path]
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if _is_data(file) and not file.name.endswith(_BESIDE_DATA))
        if not files:
            raise InputError(f"{path} holds no file of labelled interactions ({', '.join(ENDINGS)})")
        loaded += [load_file(file, default_license=default_license) for file in files]
    where: dict[str, str] = {}
    for one in loaded:
        for item in one.items:
            if item.id in where:
                raise InputError(
                    f"the id {item.id!r} stands in {where[item.id]} and again in {one.name}; ids must differ"
                )
            where[item.id] = one.name
    return loaded


def load_file(file: Path, *, default_license: str = UNKNOWN_LICENSE) -> Loaded:
    """Reads one file.

    Raises:
        InputError, MissingDependencyError: as for :func:`load_sources`.
    """
    stem = file.name.split(".")[0]
    hub = HUB_SPLITS.get(stem.replace("-", ""))
    name = stem.replace("-", "") if hub else stem
    items: list[LabelledInteraction] = []
    left_out: Counter[str] = Counter()
    splits_itself = False
    for number, (where, row) in enumerate(_table(file)):
        known = {
            "id": f"{name}/{number}",
            "source": name,
            "license": hub.license if hub else default_license,
            "split": TRAIN,
        }
        try:
            if all(column in row for column in _RELEASE_COLUMNS):
                item = _read_release_row({**row, **known})
                if isinstance(item, str):
                    left_out[item] += 1
                    continue
            elif "messages" in row or "prompt" in row:
                item = read_row({**known, **_flat(row)})
                splits_itself = splits_itself or item.split != TRAIN
            else:
                raise InputError(f"there is no column 'prompt' or 'messages'; found {', '.join(map(str, row))}")
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            reason = f"the key {exc} is missing" if isinstance(exc, KeyError) else str(exc)
            raise InputError(f"{file}, {where}: {reason}") from exc
        items.append(item)
    if not items:
        reasons = "".join(f"; {count} rows: {reason}" for reason, count in left_out.items())
        raise InputError(f"{file} holds no labelled interactions{reasons}")
    return Loaded(name, items, _digest(file), splits_itself, left_out)


def read_prompts(file: Path) -> list[str]:
    """The prompts of a benchmark's file: of its column ``prompt`` or ``text``, or of rows as in GuardReasonerTrain.

    Raises:
        InputError: the file cannot be read, or a row has no prompt.
        MissingDependencyError: Parquet needs pyarrow.
    """
    prompts = []
    for where, row in _table(file):
        try:
            column = next(name for name in ("prompt", "text", "input") if isinstance(row.get(name), str))
            prompts.append(split_input(row["input"]).prompt if column == "input" else row[column])
        except StopIteration:
            raise InputError(f"{file}, {where}: there is no text in a column 'prompt', 'text' or 'input'") from None
        except InputError as exc:
            raise InputError(f"{file}, {where}: {exc}") from exc
    return prompts


def _read_release_row(row: Mapping[str, Any]) -> LabelledInteraction | str:
    """The item, or why it is left out; in so many rows that a model wrote, some cannot be read."""
    try:
        interaction = split_input(row["input"])
    except InputError:
        return "the input is not divided into a prompt and a response, or one of them is empty"
    parsed = parse_output(row["output"])
    tasks = tasks_of(has_response=interaction.response is not None)
    if Task.REQUEST not in parsed.answers:
        return "no request label in the output"
    return LabelledInteraction(
        id=row["id"],
        source=row["source"],
        license=row["license"],
        split=row["split"],
        interaction=interaction,
        labels={task: parsed.answers[task] for task in tasks if task in parsed.answers},
        category=None,
        reasoning={task: parsed.steps[task] for task in tasks if task in parsed.answers and task in parsed.steps},
        doubtful=False,
    )


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with the members of ``labels`` as columns, and without columns that hold nothing (in CSV: no text)."""
    flat = {key: value for key, value in row.items() if value not in (None, "") and key != "labels"}
    labels = row.get("labels") or {}
    for task in labels:
        if task not in set(Task):
            raise InputError(f"unknown task {task!r} in labels{nearest(str(task), Task)}")
    return flat | {"response_harm" if task == Task.RESPONSE else task: label for task, label in labels.items()}


def _load_from_hub(split: str, revision: str | None) -> list[Loaded]:
    """Splits of GuardReasonerTrain, by way of the Hub client's cache."""
    from huggingface_hub import errors, snapshot_download

    if split and split not in HUB_SPLITS:
        raise InputError(f"{HUB_NAME} has no split {split!r}{nearest(split, HUB_SPLITS)}")
    names = [split] if split else list(HUB_SPLITS)
    patterns = [HUB_SPLITS[name].file for name in names]
    try:
        folder = Path(snapshot_download(HUB_ID, repo_type="dataset", revision=revision, allow_patterns=patterns))
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, OSError) as exc:
        line = str(exc).strip().split("\n", 1)[0]
        raise InputError(
            f"{HUB_ID} could not be fetched from the Hub ({line}). Connect to a network, or pass copies of "
            f"{', '.join(patterns)}"
        ) from exc
    loaded = []
    for name in names:
        published = HUB_SPLITS[name]
        one = load_file(folder / published.file)
        rows = len(one.items) + sum(one.left_out.values())
        if revision is None and (rows != published.rows or published.sha256 not in (None, one.sha256)):
            raise InputError(
                f"{HUB_ID}: {published.file} is no longer what was published: it has {rows} rows for "
                f"{published.rows}, and the SHA-256 {one.sha256}. To take it as it is, pass --revision {folder.name}"
            )
        loaded.append(Loaded(name, one.items, one.sha256, False, one.left_out, folder.name))
    return loaded


def _table(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Place and columns of each row."""
    if not file.is_file():
        raise InputError(f"there is no file {file}")
    if not _is_data(file):
        raise InputError(f"{file} has no known ending ({', '.join(ENDINGS)})")
    if not file.name.lower().endswith(".json"):
        for row in read_rows(file):
            if row.error is not None:
                raise InputError(f"{file}, {row.error}")
            yield row.where, row.values
        return
    try:
        text = file.read_text(encoding="utf-8")
        listed = text.lstrip().startswith("[")  # else one object a line, as the datasets library writes .json files
        rows = json.loads(text) if listed else [json.loads(line) for line in text.split("\n") if line.strip()]
    except OSError as exc:
        raise InputError(f"{file} cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise InputError(f"{file} is not JSON: {exc}") from exc
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise InputError(f"{file}, row {number}: expected an object, found {type(row).__name__}")
        yield f"row {number}", row


def _is_data(file: Path) -> bool:
    return file.is_file() and file.name.lower().endswith(ENDINGS)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        digest = sha256()
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
