"""Which label a reasoning speaks for, told from its last sentences alone.

    python -m evaluation.polarity DATA.jsonl ... [-o FILE]    how well that works, on reasoning whose label is known

This reads words, not meaning: each cue of ``word_lists.yaml`` speaks for one label of its task, or for the other one
where a negation comes shortly before it. Where the cues are few or divided the answer is None, "unclear". What is
measured with it is only as good as its own reading, so state that beside every figure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from evaluation.items import read_rows
from evaluation.runs import write_json
from evaluation.shares import Share
from evaluation.wording import word_list
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.results import LABELS, Label, Task
from texts.sentences import sentences, words

MEASURED_READING = Path(__file__).with_name("results") / "polarity.json"
"""How well this works, committed; rendered beside every figure that rests on it."""

LAST_SENTENCES = 3
DECIDED = 1.0
"""A reasoning is read when the cues for one label outweigh the others by so much."""

_WINDOW = 5  # words before a cue, in its clause, in which a negation counts
_CLAUSE_ENDS = re.compile(r"[;:,()]|\s(?:but|although|though|while|yet)\s")
_EARLIER = {Task.REQUEST: 0.5, Task.COMPLETION: 0.7, Task.RESPONSE: 0.5}  # weight of the sentences before the last
_BARE_NEGATIONS = frozenset(("no", "not", "nothing", "nobody", "neither", "nor", "without", "cannot"))
_FIELDS = {Task.REQUEST: "request", Task.COMPLETION: "completion", Task.RESPONSE: "response_harm"}

PolarityReader: TypeAlias = Callable[[Sequence[str], Task], Label | None]
"""From the steps of a task to the label they speak for; None when unclear."""


@dataclass(frozen=True, slots=True)
class Cues:
    """Patterns of whole words; ``risky`` and ``other`` by task."""

    risky: Mapping[Task, re.Pattern[str]]
    other: Mapping[Task, re.Pattern[str]]
    negations: re.Pattern[str]
    weighty: re.Pattern[str]


def read_polarity(steps: Sequence[str], task: Task) -> Label | None:
    """The label that the last sentences of a task's steps speak for; None when unclear or when there are none.

    Example:
        >>> read_polarity(["The user asks for a cake recipe.", "Nothing about it is dangerous."], Task.REQUEST)
        <Label.UNHARMFUL: 'unharmful'>
    """
    last = [sentence for step in steps for sentence in sentences(step)][-LAST_SENTENCES:]
    weights = [_EARLIER[task]] * (len(last) - 1) + [1.0]
    balance = sum(
        weight * _balance(words(clause), task)
        for weight, sentence in zip(weights, last, strict=False)
        for clause in _CLAUSE_ENDS.split(sentence)
    )
    if abs(balance) < DECIDED:
        return None
    return LABELS[task][0 if balance > 0 else 1]


@cache
def read_cues() -> Cues:
    """The words of ``word_lists.yaml``."""
    harmful, harmless = _pattern("harmful"), _pattern("harmless")
    return Cues(
        risky={Task.REQUEST: harmful, Task.COMPLETION: _pattern("refusal"), Task.RESPONSE: harmful},
        other={Task.REQUEST: harmless, Task.COMPLETION: _pattern("compliance"), Task.RESPONSE: harmless},
        negations=_pattern("negations"),
        weighty=_pattern("weighty"),
    )


def measure_reading(
    files: Sequence[Path], read: PolarityReader = read_polarity, split: str = "validation"
) -> dict[str, Any]:
    """How often reasoning with a known label is read, and read rightly.

    Args:
        files: JSONL of interactions with ``request``, ``completion`` and ``response_harm`` labels, ``reasoning`` by
            task, and ``split``; those with a ``flag`` are left out.
        read: what is measured.
        split: which part of the files.

    Returns:
        For each task the number of reasonings, the share that could be read, and the share of these read rightly.

    Raises:
        InputError: a file cannot be read, or has no reasoning in the split.
    """
    counts = {task: [0, 0, 0] for task in Task}
    for task, steps, label in labelled_reasoning(files, split):
        found = read(steps, task)
        counts[task][0] += 1
        counts[task][1] += found is not None
        counts[task][2] += found is label
    return {
        task.value: {"n": n, "read": Share(decided, n).to_json(), "right": Share(right, decided).to_json()}
        for task, (n, decided, right) in counts.items()
        if n
    }


def labelled_reasoning(files: Sequence[Path], split: str) -> list[tuple[Task, list[str], Label]]:
    """Task, steps and true label of every reasoning in a split of training files.

    Raises:
        InputError: as :func:`measure_reading`.
    """
    found = []
    for file in files:
        for number, row in enumerate(read_rows(file), 1):
            reasoning = row.get("reasoning") or {}
            if row.get("split") != split or row.get("flag"):
                continue
            for task, field in _FIELDS.items():
                if row.get(field) and reasoning.get(task.value):
                    if row[field] not in LABELS[task]:
                        raise InputError(f"{file}, row {number}, column {field!r}: {row[field]!r} is no label")
                    found.append((task, list(reasoning[task.value]), Label(row[field])))
    if not found:
        names = ", ".join(str(file) for file in files)
        raise InputError(f"{names}: no labelled reasoning in the split {split!r}")
    return found


def main(
    files: Annotated[list[Path], typer.Argument(help="JSONL files of labelled interactions with reasoning.")],
    split: Annotated[str, typer.Option(help="Which part of them.")] = "validation",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="JSON file for the figures.")] = None,
) -> None:
    """Measure how well the polarity of reasoning is read."""
    try:
        measured = measure_reading(files, split=split)
    except InputError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(2) from exc
    for task, row in measured.items():
        shares = [Share(row[name]["count"], row[name]["of"]).percent() for name in ("read", "right")]
        typer.echo(f"{task:<11} {row['n']:>5} reasonings, read {shares[0]}%, of these rightly {shares[1]}%")
    if output is not None:
        write_json(output, {"split": split, "files": [file.name for file in files], "tasks": measured})


def _balance(clause: Sequence[str], task: Task) -> float:
    """Cues for the risky label minus cues for the other one."""
    cues, balance = read_cues(), 0.0
    refusing = task is Task.COMPLETION
    for place, word in enumerate(clause):
        before = clause[max(0, place - _WINDOW) : place]
        # "declines to explain" is one refusal, not a refusal and a negated compliance.
        negated = any(_negates(one, cues) and not (refusing and cues.risky[task].match(one)) for one in before)
        weight = 3.0 if cues.weighty.match(word) else 1.0
        if cues.risky[task].match(word):
            balance += -weight if negated else (2.0 if refusing else weight)
        elif cues.other[task].match(word):
            # A good word that is denied is weaker evidence than a bad one: "not a simple question".
            balance += (weight if refusing else weight / 2) if negated else -weight
        if word in _BARE_NEGATIONS:
            balance += 0.5 if refusing else -0.5
    return balance


def _negates(word: str, cues: Cues) -> bool:
    return word.endswith("n't") or cues.negations.match(word) is not None


def _pattern(name: str) -> re.Pattern[str]:
    endings = "|".join(re.escape(entry).replace(r"\*", r"[\w'-]*") for entry in sorted(word_list(name)))
    return re.compile(rf"(?:{endings})$")


if __name__ == "__main__":
    typer.run(main)
