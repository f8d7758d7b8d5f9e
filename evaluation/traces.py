"""Reasoning traces: what a guard wrote about an item before it answered, from run folders and from saved outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.finished import FinishedRun, find_texts
from evaluation.generations import read_part
from evaluation.runs import Prediction
from evaluation.scorers import read_generations
from evaluation.upstream import CELLS, SIZES
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.parsing import parse_output
from guardreasoner_moderation.results import Label, Task


@dataclass(frozen=True, slots=True)
class Trace:
    """The reasoning on one item.

    Attributes:
        id: of the item, such as "ToxicChat/17".
        benchmark: its first part.
        digest: of the item's texts, by which the same item is found in another run.
        task: the benchmark's.
        label: the true label of that task.
        answers: what the guard answered, by task.
        steps: its reasoning, by task; a task without any is absent.
        conclusions: where the format has them (``## Conclusion``), by task.
        has_response: whether the item has a response to be judged.
        tokens: that the guard wrote; 0 where it is not known.
        item: the texts, where they are at hand.
    """

    id: str
    benchmark: str
    digest: str
    task: Task
    label: Label
    answers: Mapping[Task, Label]
    steps: Mapping[Task, tuple[str, ...]]
    conclusions: Mapping[Task, str]
    has_response: bool
    tokens: int
    item: Interaction | None = None

    @property
    def reasoned(self) -> bool:
        """Whether there is any reasoning."""
        return bool(self.steps)

    @property
    def right(self) -> bool:
        """Whether the benchmark's task was answered rightly."""
        return self.answers.get(self.task) is self.label


@dataclass(frozen=True, slots=True)
class Source:
    """The traces of one model."""

    name: str
    traces: tuple[Trace, ...]


def read_run_traces(name: str, run: FinishedRun, data_dir: Path | None = None) -> Source:
    """The traces of a run folder.

    Args:
        name: how to call the run.
        run: what was read of it.
        data_dir: folder of benchmark files, for the items' texts.
    """
    texts = find_texts(run, data_dir)
    traces = [
        _of_prediction(prediction, part.name, part.task, texts.get(prediction.id))
        for part in run.parts.values()
        for prediction in part.predictions
    ]
    return Source(name, tuple(traces))


def read_generations_traces(folder: Path, size: str) -> Source:
    """The traces of the authors' own outputs (arXiv 2501.18492), released in the format of ``data/test``.

    Args:
        folder: holds ``1B/*.jsonl`` and ``3B/*.jsonl``.
        size: 1B or 3B.

    Raises:
        InputError: there is none of the files, or one cannot be read.
    """
    traces: list[Trace] = []
    for stem, (benchmark, task) in CELLS.items():
        file = folder / size / f"{stem}.jsonl"
        if not file.exists():
            continue
        part = read_part(file, benchmark)
        rows = zip(part.loaded.items, part.predictions, read_generations(file, task), strict=True)
        for item, prediction, generation in rows:
            # Upstream's conclusions and steps on a missing response are no part of a prediction, so parse again.
            parsed = parse_output(generation.text)
            traces.append(
                Trace(
                    id=prediction.id,
                    benchmark=benchmark,
                    digest=prediction.digest,
                    task=task,
                    label=prediction.label,
                    answers=parsed.answers,
                    steps=parsed.steps,
                    conclusions=parsed.conclusions,
                    has_response=item.interaction.response is not None,
                    tokens=0,
                    item=item.interaction,
                )
            )
    if not traces:
        raise InputError(f"{folder / size} holds none of {', '.join(f'{stem}.jsonl' for stem in CELLS)}")
    return Source(f"GuardReasoner {size} (authors' outputs)", tuple(traces))


def read_all_generations(folder: Path) -> list[Source]:
    """The authors' outputs of every size that the folder has.

    Raises:
        InputError: it has none.
    """
    # The same folder is called DIR by evaluation.upstream when it holds "generations".
    place = folder / "generations" if (folder / "generations").is_dir() else folder
    sources = [read_generations_traces(place, size) for size in SIZES if (place / size).is_dir()]
    if not sources:
        raise InputError(f"{folder} holds no folder {' or '.join(SIZES)} of saved outputs")
    return sources


def shared_items(sources: Sequence[Source]) -> list[Source]:
    """The same sources with only the items that all of them reason about; fair to compare, and often few."""
    keys = [{_key(trace) for trace in source.traces if trace.reasoned} for source in sources]
    common = set.intersection(*keys) if keys else set()
    return [Source(source.name, tuple(trace for trace in source.traces if _key(trace) in common)) for source in sources]


def _key(trace: Trace) -> tuple[str, str, str]:
    return trace.benchmark, trace.id, trace.digest


def _of_prediction(prediction: Prediction, benchmark: str, task: Task, item: Interaction | None) -> Trace:
    verdicts = {one: prediction.result[one.value] for one in Task if prediction.result.get(one.value)}
    return Trace(
        id=prediction.id,
        benchmark=benchmark,
        digest=prediction.digest,
        task=task,
        label=prediction.label,
        answers={one: Label(verdict["label"]) for one, verdict in verdicts.items()},
        steps={one: tuple(verdict["reasoning"]) for one, verdict in verdicts.items() if verdict["reasoning"]},
        conclusions={},
        has_response=prediction.response_characters is not None,
        tokens=int(prediction.result["usage"]["completion_tokens"]),
        item=item,
    )
