"""Saved outputs of any model in the authors' format, as the predictions of a benchmark."""

from __future__ import annotations

from pathlib import Path

from evaluation.benchmarks import BENCHMARKS, find
from evaluation.items import Item
from evaluation.loading import Loaded
from evaluation.runs import Prediction
from evaluation.scorers import Scorer, read_generations, score
from evaluation.summary import Part
from evaluation.upstream import CELLS
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.parsing import parse_output
from guardreasoner_moderation.results import LABELS, Mode, ModerationResult, Task, TaskVerdict
from texts.release_rows import split_input


def read_part(file: Path, name: str | None = None, *, keep_text: bool = False) -> Part:
    """Scores a file of saved outputs.

    Args:
        file: one JSON object a line with ``prompt``, ``label`` and ``predict``; the prompt ends in ``Human user:`` and
            ``AI assistant:`` blocks, as upstream's do.
        name: of the benchmark; default: told by the file's name.
        keep_text: whether the predictions hold prompts and responses.

    Raises:
        InputError: an unknown benchmark, or a row that cannot be read.
    """
    if name is None:
        if file.stem not in CELLS and file.stem not in BENCHMARKS:
            raise InputError(f"{file}: its name is no benchmark's; say with --benchmarks which one it is")
        name = CELLS[file.stem][0] if file.stem in CELLS else file.stem
    benchmark = find(name)
    generations = read_generations(file, benchmark.task)
    items = tuple(
        Item(f"{name}/{number}", _interaction(generation.prompt), generation.label)
        for number, generation in enumerate(generations)
    )
    predictions = [
        Prediction.of(item, benchmark.task, to_result(generation.text), scored=False, keep_text=keep_text)
        for item, generation in zip(items, generations, strict=True)
    ]
    return Part(
        Loaded(benchmark, items, file.name),
        predictions,
        upstream=score(Scorer.UPSTREAM, generations, benchmark.task),
    )


def to_result(text: str) -> ModerationResult:
    """What a model's output says, as a result without scores: 1 stands for the risky label, 0 for the other."""
    parsed = parse_output(text)
    verdicts = {
        task: TaskVerdict(label, float(label is LABELS[task][0]), 0.5, parsed.steps.get(task, ()))
        for task, label in parsed.answers.items()
    }
    request, completion, response = (verdicts.get(task) for task in Task)
    harmful = any(verdict is not None and verdict.risky for verdict in (request, response))
    unread = None if verdicts else "no answer could be read"
    return ModerationResult(
        flagged=harmful or not verdicts,
        request=request,
        completion=completion,
        response=response,
        category=parsed.category,
        mode=Mode.THINK,
        error=unread,
    )


def _interaction(prompt: str) -> Interaction:
    """What was judged, as far as the saved prompt tells."""
    _, heading, rest = prompt.partition("Human user:\n")
    try:
        return split_input(heading + rest)
    except InputError:
        return Interaction(prompt)
