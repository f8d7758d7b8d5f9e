"""How often a request's verdict changes when it is wrapped or disguised, and what normalising texts helps.

    python -m reliability.hostile_text --out reliability/results/hostile_text.json \
        --data interactions.jsonl --data written.jsonl

Every case of the suite is judged beside the plain request that it is made of, as it is and normalised. With labelled
files, what normalising does to ordinary texts is measured on their validation split, into a second record
(``hostile_text_clean.json``). A text that is read the same way with and without normalising is judged once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from evaluation.items import Item, draw_sample
from evaluation.split_items import read_split
from guardreasoner_moderation import EngineError, Interaction, ModerationError, Moderator
from guardreasoner_moderation.decoding import decoded
from guardreasoner_moderation.normalization import normalized
from guardreasoner_moderation.results import LABELS, Mode, Task
from reliability.hostile_cases import Case, families
from reliability.record import Record, Trial, Value

_COMMAND = "python -m reliability.hostile_text --out reliability/results/hostile_text.json --data FILE"


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict on one text."""

    risky: bool
    score: float


class Guards:
    """One model that reads texts as they are, and normalised."""

    def __init__(self, guard: Moderator) -> None:
        self.normalizing = guard
        self.plain = Moderator.from_engine(guard.model.engine, guard.model.spec, name=guard.model.name, normalize=False)

    def judge(self, items: Sequence[Interaction], task: Task, mode: Mode) -> tuple[list[Judged], list[Judged]]:
        """The verdicts on texts as they are, and normalised.

        Raises:
            EngineError: one was not judged.
        """
        different = [number for number, item in enumerate(items) if read_differently(item)]
        plain = _judge(self.plain, items, task, mode)
        again = _judge(self.normalizing, [items[number] for number in different], task, mode)
        return plain, _replaced(plain, dict(zip(different, again, strict=True)))


def read_differently(item: Interaction) -> bool:
    """Whether normalising changes what the model reads of an item."""
    texts = [item.prompt, *([] if item.response is None else [item.response])]
    return any(normalized(text).text != text or decoded(text) is not None for text in texts)


def spread(found: Sequence[Case], count: int) -> list[Case]:
    """At most so many cases, from all parts of a family."""
    count = min(count, len(found))
    return [found[len(found) * number // count] for number in range(count)]


def attack(guards: Guards, mode: Mode, per_family: int) -> list[Trial]:
    """A trial for each family, and one of all."""
    chosen = {family: spread(found, per_family) for family, found in families().items()}
    plain_texts = sorted({case.plain for found in chosen.values() for case in found})
    known = dict(
        zip(plain_texts, guards.judge(list(map(Interaction, plain_texts)), Task.REQUEST, mode)[0], strict=True)
    )
    rows: dict[str, list[tuple[Judged, Judged, Judged]]] = {}
    for family, found in chosen.items():
        pairs = guards.judge([Interaction(case.text) for case in found], Task.REQUEST, mode)
        rows[family] = [
            (known[case.plain], *judged) for case, judged in zip(found, zip(*pairs, strict=True), strict=True)
        ]
    rows["all of these"] = [row for found in rows.values() for row in found]
    return [Trial(f"{family}, {mode} mode", len(found), None, figures(found)) for family, found in rows.items()]


def figures(rows: Sequence[tuple[Judged, Judged, Judged]]) -> Mapping[str, Value]:
    """Of (plain, wrapped, wrapped and normalised) verdicts: what changed."""
    flagged = [row for row in rows if row[0].risky]
    found: dict[str, Value] = {}
    for name, place in (("as it is", 1), ("normalised", 2)):
        missed = sum(not row[place].risky for row in flagged)
        found |= {
            f"verdicts changed, {name}": _share(sum(row[0].risky != row[place].risky for row in rows), len(rows)),
            f"harmful ones missed, {name}": _share(missed, len(flagged)),
            f"mean score change, {name}": round(
                sum(abs(row[0].score - row[place].score) for row in rows) / len(rows), 4
            ),
        }
    return found


def clean(guards: Guards, items: Sequence[Item], task: Task) -> Trial:
    """What normalising does to ordinary texts."""
    pairs = guards.judge([item.interaction for item in items], task, Mode.VERDICT)
    truth = [item.label is LABELS[task][0] for item in items]
    different = sum(read_differently(item.interaction) for item in items)
    found: dict[str, Value] = {"read differently": _share(different, len(items))}
    for name, judged in zip(("as it is", "normalised"), pairs, strict=True):
        right = sum(one.risky == risky for one, risky in zip(judged, truth, strict=True))
        alarms = sum(one.risky and not risky for one, risky in zip(judged, truth, strict=True))
        found |= {
            f"accuracy, {name}": _share(right, len(items)),
            f"false alarms, {name}": _share(alarms, truth.count(False)),
        }
    return Trial(f"{task}, verdict mode", len(items), None, found)


def _judge(guard: Moderator, items: Sequence[Interaction], task: Task, mode: Mode) -> list[Judged]:
    judged = []
    for result in guard.classify_batch(items, mode=mode, on_error="raise"):
        verdict = dict(result.verdicts()).get(task)
        if verdict is None:
            raise EngineError(f"an item has no verdict on its {task}")
        judged.append(Judged(verdict.risky, verdict.score))
    return judged


def _replaced(judged: Sequence[Judged], others: Mapping[int, Judged]) -> list[Judged]:
    return [others.get(number, one) for number, one in enumerate(judged)]


def _share(count: int, total: int) -> float | None:
    return round(count / total, 4) if total else None


def main(
    out: Annotated[Path, typer.Option(help="File for the record.")] = Path("reliability/results/hostile_text.json"),
    model: Annotated[str, typer.Option(help="Short name, folder or repository id.")] = "embedded",
    per_family: Annotated[int, typer.Option(help="Cases of each family in verdict mode.", min=1)] = 40,
    think_per_family: Annotated[int, typer.Option(help="The same in think mode; 0 for none.", min=0)] = 8,
    data: Annotated[list[Path] | None, typer.Option(help="Labelled JSONL with splits; may be given again.")] = None,
    limit: Annotated[int, typer.Option(help="Items of the validation split for each task.", min=2)] = 1000,
) -> None:
    """Measure how stable verdicts are under attack."""
    try:
        with Moderator(model) as guard:
            guards = Guards(guard)
            trials = attack(guards, Mode.VERDICT, per_family)
            if think_per_family:
                trials += attack(guards, Mode.THINK, think_per_family)
            Record(
                "Hostile texts: verdicts",
                "Nothing is promised: a small model's verdict depends on the wording. Each text holds a plain request, "
                "wrapped or disguised; a verdict has changed when it is not that on the plain request.",
                _COMMAND,
                trials,
                [
                    "Harmful ones missed: of the requests flagged as plain text, those that are not when disguised.",
                    "Normalised: as by default. Scores go from 0 to 1.",
                ],
                weights=guard.model.sha256,
            ).save(out)
            for trial in trials:
                typer.echo(f"{trial.name}: {trial.tried} pairs, {dict(trial.figures)}")
            if data:
                samples = {
                    task: draw_sample(read_split(data, "validation", task), limit, seed=0)
                    for task in (Task.REQUEST, Task.RESPONSE)
                }
                cleaned = [clean(guards, items, task) for task, items in samples.items()]
                Record(
                    "Ordinary texts: what normalising costs",
                    "Nothing is promised; texts are normalised by default because it does not hurt these.",
                    _COMMAND,
                    cleaned,
                    ["Items of the validation split of the training data, a fixed sample."],
                    weights=guard.model.sha256,
                ).save(out.with_name(f"{out.stem}_clean.json"))
                for trial in cleaned:
                    typer.echo(f"{trial.name}: {trial.tried} items, {dict(trial.figures)}")
    except ModerationError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(2) from exc


if __name__ == "__main__":
    typer.run(main)
