"""The folder of an evaluation run: who made it, its predictions, its results.

    RUN/run.json                               model, mode and settings; they never change
    RUN/revisions.json                         commits of data sets that were fetched without a pinned one
    RUN/predictions/<benchmark>.<mode>.jsonl   one line an item, in the order they were judged
    RUN/results.json                           the metrics of every finished benchmark

A line is whole when it ends in a line break. After a kill the last line may be cut off; it is dropped on the next
start, and its item is judged again. So is an item that was not judged because its engine call failed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from evaluation.items import Item
from evaluation.metrics import Outcomes, collect
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.results import LABELS, Label, ModerationResult, Task


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a guard said of one item.

    Attributes:
        id, digest, group: as of the item.
        label, predicted: the true label, and the guard's; None where it was not judged.
        score: of the risky label, to six places; None where not judged, or where the guard gives none.
        prompt_characters, response_characters: lengths; None without a response.
        result: the whole result, as :meth:`ModerationResult.to_dict` writes it.
        text: prompt and response, where they are kept.
    """

    id: str
    digest: str
    label: Label
    predicted: Label | None
    score: float | None
    group: str | None
    prompt_characters: int
    response_characters: int | None
    result: Mapping[str, Any]
    text: Mapping[str, str | None] | None = None

    @classmethod
    def of(
        cls, item: Item, task: Task, result: ModerationResult, *, scored: bool = True, keep_text: bool = False
    ) -> Prediction:
        """The prediction of one item; ``scored=False`` for results whose score means nothing."""
        verdict = dict(result.verdicts()).get(task)
        prompt, response = item.interaction.prompt, item.interaction.response
        return cls(
            id=item.id,
            digest=item.digest,
            label=item.label,
            predicted=None if verdict is None else verdict.label,
            # Rounded here already, so that results do not depend on which predictions were read back from the file.
            score=None if verdict is None or not scored else round(verdict.score, 6),
            group=item.group,
            prompt_characters=len(prompt),
            response_characters=None if response is None else len(response),
            result=result.to_dict(),
            text={"prompt": prompt, "response": response} if keep_text else None,
        )

    def to_json(self) -> str:
        """One line, without its line break."""
        record: dict[str, Any] = {
            "id": self.id,
            "digest": self.digest,
            "label": self.label.value,
            "predicted": None if self.predicted is None else self.predicted.value,
            "score": self.score,
            "group": self.group,
            "prompt_characters": self.prompt_characters,
            "response_characters": self.response_characters,
            "result": self.result,
        }
        if self.text is not None:
            record["text"] = self.text
        return json.dumps(record, ensure_ascii=False)


def read_prediction(line: str) -> Prediction:
    """Reads what :meth:`Prediction.to_json` wrote.

    Raises:
        ValueError, KeyError, TypeError: it is something else.
    """
    record = json.loads(line)
    predicted = record["predicted"]
    fields = {**record, "label": Label(record["label"]), "predicted": None if predicted is None else Label(predicted)}
    return Prediction(**fields)


def to_outcomes(predictions: Sequence[Prediction], task: Task) -> Outcomes:
    """The outcomes of predictions, with scores if every judged item has one."""
    risky = LABELS[task][0]
    scored = all(prediction.score is not None for prediction in predictions if prediction.predicted is not None)
    return collect(
        [prediction.label is risky for prediction in predictions],
        [None if prediction.predicted is None else prediction.predicted is risky for prediction in predictions],
        [prediction.score for prediction in predictions] if scored else None,
    )


class RunFolder:
    """A run's folder, owned by one process at a time."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Opens a folder for a run; :func:`open_run` does so safely.

        Raises:
            InputError: the folder holds a run with another identity.
        """
        self.path = path
        self.mode = str(identity["mode"])
        (path / "predictions").mkdir(exist_ok=True)
        file = path / "run.json"
        if not file.exists():
            write_json(file, identity)
            return
        earlier = json.loads(file.read_text(encoding="utf-8"))
        for key in dict.fromkeys([*earlier, *identity]):
            if earlier.get(key) != identity.get(key):
                raise InputError(
                    f"{path} holds a run with another {key}: {earlier.get(key)!r} there, {identity.get(key)!r} here. "
                    "Pass another folder, or the same settings to go on with that run"
                )

    def predictions_file(self, benchmark: str) -> Path:
        """Where a benchmark's predictions are."""
        return self.path / "predictions" / f"{benchmark}.{self.mode}.jsonl"

    def read(self, benchmark: str, items: Sequence[Item]) -> dict[str, Prediction]:
        """The predictions so far, by id. Drops a last line that was cut off, and items that were not judged.

        Raises:
            InputError: a line cannot be read, or belongs to an item that is not among these, or is now another.
        """
        file = self.predictions_file(benchmark)
        if not file.exists():
            return {}
        *lines, cut_off = file.read_bytes().split(b"\n")
        digests = {item.id: item.digest for item in items}
        predictions: dict[str, Prediction] = {}
        for number, line in enumerate(lines, 1):
            try:
                prediction = read_prediction(line.decode("utf-8"))
            except (ValueError, KeyError, TypeError) as exc:
                raise InputError(f"{file}, line {number} is damaged ({exc}); remove the file to start over") from exc
            if digests.get(prediction.id) != prediction.digest:
                raise InputError(
                    f"{file}, line {number}: the item {prediction.id} is not the one in the data; has it changed?"
                )
            if prediction.id in predictions:
                raise InputError(f"{file}, line {number}: the item {prediction.id} is there twice")
            predictions[prediction.id] = prediction
        judged = {name: prediction for name, prediction in predictions.items() if "error" not in prediction.result}
        if cut_off or len(judged) < len(predictions):
            kept = (line for line, name in zip(lines, predictions, strict=True) if name in judged)
            write_text(file, b"".join(line + b"\n" for line in kept).decode("utf-8"))
        return judged

    def revision(self, data_set: str) -> str | None:
        """The commit that an earlier start of the run fetched of a data set on the Hub."""
        file = self.path / "revisions.json"
        known: dict[str, str] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        return known.get(data_set)

    def pin(self, data_set: str, revision: str) -> None:
        """Keeps the commit of a data set for later starts of the run."""
        file = self.path / "revisions.json"
        known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        write_json(file, {**known, data_set: revision})

    def append(self, benchmark: str, predictions: Sequence[Prediction]) -> None:
        """Adds predictions, and returns when they are on the disk."""
        with self.predictions_file(benchmark).open("a", encoding="utf-8") as file:
            file.write("".join(prediction.to_json() + "\n" for prediction in predictions))
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def open_run(path: Path, identity: Mapping[str, Any]) -> Iterator[RunFolder]:
    """Opens or creates a run's folder and keeps other processes out of it.

    Args:
        path: of the folder.
        identity: what must be the same in every start of the run, as JSON types; ``mode`` names the files.

    Raises:
        InputError: the folder holds a run with another identity, or another process writes to it.
    """
    path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path / "run.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as exc:
        raise InputError(f"another process writes to {path}") from exc
    try:
        yield RunFolder(path, identity)
    finally:
        lock.release()


def read_json(file: Path) -> Any:
    """Reads a JSON file.

    Raises:
        InputError: the file cannot be read, or is not JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise InputError(f"{file} cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise InputError(f"{file} is not JSON: {exc}") from exc


def write_json(file: Path, content: Any) -> None:
    """Replaces a JSON file in one move, so that a kill leaves the old or the new one, whole."""
    write_text(file, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(file: Path, content: str) -> None:
    """Replaces a file in one move."""
    new = file.with_name(file.name + ".new")
    new.write_text(content, encoding="utf-8")
    os.replace(new, file)
