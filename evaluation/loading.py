"""Where a benchmark's items come from: a file of the data folder, the Hub, or a file of the user's own.

The authors of arXiv 2501.18492 released their benchmark files in the repository ``yueliu1999/GuardReasoner`` on GitHub,
as JSON lists of ``instruction, input, output`` (:mod:`texts.release_rows`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from types import MappingProxyType

from evaluation.items import Columns, Item, Row, read_items, read_rows
from evaluation.scorers import read_label
from guardreasoner_moderation.errors import InputError, nearest
from guardreasoner_moderation.results import LABELS, Label, Task
from texts.release_rows import split_input

OWN = Path(__file__).with_name("own")
"""The folder of the benchmarks that this repository ships."""

RELEASE = "yueliu1999/GuardReasoner on GitHub, data/benchmark at commit bb7e686dc0535884d6994de5f950a072772e7fe2"


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of the data folder, or of this repository.

    Attributes:
        name: of the file.
        columns: which column holds what; None for the release's ``instruction, input, output`` rows.
        label: of a release's rows, the column of the label.
        shipped: whether it lies in :data:`OWN`.
    """

    name: str
    columns: Columns | None = None
    label: str = "output"
    shipped: bool = False


@dataclass(frozen=True, slots=True)
class HubSource:
    """A data set on the Hub.

    Attributes:
        id: of the repository.
        revision: the pinned commit; None where it is pinned when first fetched.
        files: from a path or pattern in the repository to the label of all rows in it, or None where a column tells.
            Empty where the Hub's rows are not the benchmark's, which is then a selection of its authors.
        columns: which column holds what.
        gated: whether its terms must be accepted on the Hub first.
    """

    id: str
    revision: str | None = None
    files: Mapping[str, Label | None] = field(default_factory=lambda: MappingProxyType({}))
    columns: Columns = field(default_factory=Columns)
    gated: bool = False


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One labelled set and the question it asks.

    Attributes:
        name: as in the paper; the three tasks of WildGuardTest are told apart by a suffix.
        task: what the labels are about; the task's risky label is the positive class.
        items: the published number of items.
        license: of the data set.
        adversarial: whether its prompts include jailbreaks.
        hub: the original on the Hub; without an id where it is not there.
        local: its file in the data folder; None where it is loaded from the Hub only.
        table3: whether it is one of the 13 cells of arXiv 2501.18492, table 3.
    """

    name: str
    task: Task
    items: int
    license: str
    adversarial: bool
    hub: HubSource
    local: LocalFile | None = None
    table3: bool = True

    @property
    def shipped(self) -> bool:
        """Whether its file comes with this repository."""
        return self.local is not None and self.local.shipped

    @property
    def positive(self) -> Label:
        """The positive class."""
        return LABELS[self.task][0]


@dataclass(frozen=True, slots=True)
class Loaded:
    """The items of a benchmark.

    Attributes:
        benchmark: whose items.
        items: in the order of the file.
        source: the file's name, or the Hub's id.
        revision: the Hub's commit; None for a file.
    """

    benchmark: Benchmark
    items: tuple[Item, ...]
    source: str
    revision: str | None = None

    @property
    def size_note(self) -> str | None:
        """What to say when the number of items is not the published one."""
        if len(self.items) == self.benchmark.items:
            return None
        return (
            f"{self.benchmark.name} has {len(self.items)} items in {self.source}, {self.benchmark.items} were published"
        )


def find_file(benchmark: Benchmark, data_dir: Path | None) -> Path | None:
    """The benchmark's file in a data folder, in its subfolder ``benchmarks``, or shipped; None when it is not there."""
    if benchmark.local is None:
        return None
    folders = [OWN] if benchmark.shipped else [data_dir / "benchmarks", data_dir] if data_dir else []
    return next((file for folder in folders if (file := folder / benchmark.local.name).is_file()), None)


def load(benchmark: Benchmark, data_dir: Path | None = None, *, revision: str | None = None) -> Loaded:
    """Loads a benchmark from the data folder if it is there, else from the Hub.

    Args:
        benchmark: what to load.
        data_dir: folder of benchmark files.
        revision: commit on the Hub, such as the one a run recorded; default: the pinned one.

    Raises:
        InputError: it is in neither place, or a row cannot be read; the message names file, row and column.
    """
    file = find_file(benchmark, data_dir)
    if file is None:
        return load_from_hub(benchmark, revision=revision)
    return load_file(benchmark, file)


def load_file(benchmark: Benchmark, file: Path) -> Loaded:
    """Loads a benchmark from one file of the data folder.

    Raises:
        InputError: the file or a row cannot be read, or the file holds no item of the task.
    """
    local = benchmark.local or LocalFile(file.name, Columns())
    rows = read_rows(file)
    if local.columns is None:
        items = _read_release(rows, local.label, benchmark, file)
    else:
        items = read_items(rows, local.columns, benchmark.task, name=benchmark.name, where=str(file))
    return whole(benchmark, items, file.name)


def load_from_hub(benchmark: Benchmark, *, revision: str | None = None) -> Loaded:
    """Loads a benchmark from the Hub, by way of the Hub client's cache.

    Raises:
        InputError: its rows are not there, or cannot be fetched or read.
    """
    hub = benchmark.hub
    if not hub.files:
        file = f"; take {benchmark.local.name} from {RELEASE}, and pass its folder" if benchmark.local else ""
        raise InputError(f"{benchmark.name} is a selection of {hub.id} that the Hub does not have{file}")
    folder = _fetch(benchmark, revision or hub.revision)
    items: list[Item] = []
    for pattern, label in hub.files.items():
        paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        matching = [path for path in paths if fnmatch(path, pattern)]
        if not matching:
            raise InputError(f"{hub.id} has no file {pattern} at commit {folder.name}")
        for path in matching:
            columns = hub.columns if label is None else replace(hub.columns, constant=label)
            items += read_items(
                read_rows(folder / path),
                columns,
                benchmark.task,
                name=benchmark.name,
                where=f"{hub.id}/{path}",
                first=len(items),
            )
    return whole(benchmark, items, hub.id, folder.name)


def whole(benchmark: Benchmark, items: Sequence[Item], source: str, revision: str | None = None) -> Loaded:
    """All items of a benchmark.

    Raises:
        InputError: there are none.
    """
    if not items:
        raise InputError(f"{source} holds no item that is labelled for {benchmark.name}")
    return Loaded(benchmark, tuple(items), source, revision)


def _read_release(rows: Sequence[Row], label: str, benchmark: Benchmark, file: Path) -> list[Item]:
    items = []
    for number, row in enumerate(rows, 1):
        place = f"{file}, row {number}"
        for column in ("input", label):
            if column not in row:
                raise InputError(f"{place}: there is no column {column!r}{nearest(column, row)}")
        if row[label] is None:  # WildGuardTest's annotators did not agree on every item
            continue
        try:
            interaction = split_input(str(row["input"]))
        except InputError as exc:
            raise InputError(f"{place}, column 'input': {exc}") from exc
        if interaction.response is None and benchmark.task is not Task.REQUEST:
            raise InputError(f"{place}, column 'input': there is no response, which the {benchmark.task} task is about")
        true_label = read_label(str(row[label]), benchmark.task, place, column=label)
        items.append(Item(f"{benchmark.name}/{number - 1}", interaction, true_label))
    return items


def _fetch(benchmark: Benchmark, revision: str | None) -> Path:
    """The folder of a commit in the Hub client's cache, named by the commit."""
    from huggingface_hub import errors, snapshot_download

    hub = benchmark.hub
    try:
        return Path(snapshot_download(hub.id, repo_type="dataset", revision=revision, allow_patterns=list(hub.files)))
    except errors.GatedRepoError as exc:
        reason = f"{hub.id} is gated: accept its terms on its page of the Hub, then log in with `hf auth login`"
        raise InputError(f"{benchmark.name} cannot be loaded: {reason}") from exc
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, OSError) as exc:
        line = str(exc).strip().split("\n", 1)[0]
        file = f", or put {benchmark.local.name} into the data folder" if benchmark.local else ""
        raise InputError(
            f"{benchmark.name} cannot be loaded: {hub.id} could not be fetched from the Hub ({line}). "
            f"Connect to a network{file}"
        ) from exc
