"""Hard samples (arXiv 2501.18492, section 2.3): items that a model judges now rightly, now wrongly.

    python -m training.hard_samples sample DATA --model embedded --out self.jsonl
    python -m training.hard_samples sample DATA --model runs/subset/adapter --spec moderation.json --out subset.jsonl
    python -m training.hard_samples pairs self.jsonl subset.jsonl --data DATA --out pairs.jsonl
    python -m training.hard_samples difficult self.jsonl --data DATA --out second-round.jsonl

``sample`` draws k answers to every training item; it goes on after a stop or a kill. ``pairs`` makes preference pairs
for HS-DPO: of the model itself, named first, and of models that were trained on other subsets of the data. An item is
taken once, from the first model that finds it hard. ``difficult`` is the variant of arXiv 2505.20087, which trains once
more on the items that turned out difficult: it writes them several times, among the rest or alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from guardreasoner_moderation.engines.base import Sampling
from guardreasoner_moderation.errors import InputError, ModerationError
from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.models import load_model
from training.data import TRAIN, LabelledInteraction, to_row, write_rows
from training.journal import Journal, read_journal
from training.pairs import PreferencePair, pair_row
from training.sampling import Samples, draw_samples, read_samples, unbiased
from training.sources import Loaded, load_sources

GAMMA = 0.2
"""Of the authors' train/hard_sample_mining.py, as are 4 answers at temperature 0.7 and top-p 0.95 (n_generate.py)."""

app = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False)


def mine(samples: Sequence[Samples], model: str, gamma: float = GAMMA) -> list[PreferencePair]:
    """The preference pairs of one model, weighted by equation (3): alpha = 1 + Norm(k_incorrect - k_correct, gamma).

    Of several right answers the longest is chosen, of several wrong ones the longest is rejected, as the authors do.
    Unlike theirs, an answer is right if all its labels are; they look at one task at a time.
    """
    hard = [one for one in samples if one.ambiguous]
    weights = weigh([len(one.wrong) - len(one.right) for one in hard], gamma)
    return [
        PreferencePair(
            one.item, _longest(one.right), _longest(one.wrong), weight, len(one.right), len(one.wrong), model
        )
        for one, weight in zip(hard, weights, strict=True)
    ]


def weigh(differences: Sequence[int], gamma: float) -> list[float]:
    """1 + Norm(difference, gamma) of each: Norm maps the smallest difference to -gamma, the largest to gamma, linearly.

    Where all are the same the weights are 1; the authors' code divides by zero there.

    Raises:
        InputError: gamma is not from 0 to 1, so that a weight would be negative.
    """
    if not 0 <= gamma <= 1:
        raise InputError(f"gamma must be from 0 to 1, found {gamma}")
    low, high = min(differences, default=0), max(differences, default=0)
    if low == high:
        return [1.0] * len(differences)
    return [1 + gamma * (2 * (difference - low) / (high - low) - 1) for difference in differences]


def merge(mined: Sequence[Sequence[PreferencePair]]) -> list[PreferencePair]:
    """The pairs of several models, one for each interaction: of the first model that has one."""
    first: dict[Interaction, PreferencePair] = {}
    for pairs in mined:
        for pair in pairs:
            first.setdefault(pair.item.interaction, pair)
    return list(first.values())


def repeat_difficult(
    items: Sequence[LabelledInteraction], difficult: set[str], times: int, *, alone: bool = False
) -> Iterator[LabelledInteraction]:
    """The items, with those of the training split that are difficult ``times`` times, each time with an id of its own.

    Args:
        items: of both splits; the validation split stays as it is.
        difficult: ids.
        times: at least 1.
        alone: leave the other training items out.

    Raises:
        InputError: ``times`` is below 1.
    """
    if times < 1:
        raise InputError(f"difficult items must be there at least once, found {times} times")
    for item in items:
        if item.split == TRAIN and item.id in difficult:
            yield from (
                item if number == 1 else replace(item, id=f"{item.id}#{number}") for number in range(1, times + 1)
            )
        elif item.split != TRAIN or not alone:
            yield item


@app.command()
def sample(
    data: Annotated[list[str], typer.Argument(help="Labelled data, as for training.data.")],
    out: Annotated[Path, typer.Option(help="JSONL file for the answers.")],
    model: Annotated[str, typer.Option(help="Short name, folder or repository of the model.")] = "embedded",
    base: Annotated[str | None, typer.Option(help="Base of an adapter, if not the one that it names.")] = None,
    engine: Annotated[str, typer.Option(help="Of the model.")] = "auto",
    spec: Annotated[Path | None, typer.Option(help="Its moderation.json, if none is beside its weights.")] = None,
    count: Annotated[int, typer.Option("--k", help="Answers to each item.")] = 4,
    temperature: Annotated[float, typer.Option(help="Of the reasoning.")] = 0.7,
    top_p: Annotated[float, typer.Option(help="Of the reasoning.")] = 0.95,
    seed: Annotated[int, typer.Option(help="Of the first answers.")] = 0,
) -> None:
    """Draw several answers of a model to every training item."""
    loaded = load_sources(data)
    items = training_items(loaded)
    loaded_model = load_model(model, base=base, engine=engine, spec=spec)
    job = {
        "model": model,
        "weights_sha256": loaded_model.sha256,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
        "data": {one.name: one.sha256 for one in loaded},
    }
    with unbiased(loaded_model) as guard, Journal(out, job) as journal:
        draw_samples(guard, items, count, Sampling(temperature, top_p, seed), journal)
    console = Console()
    console.print(count_table({model: read_samples(read_journal(out)[1], items)}))


@app.command()
def pairs(
    samples: Annotated[list[Path], typer.Argument(help="Files of answers, the model's own first.")],
    data: Annotated[list[str], typer.Option(help="The data that was sampled; may be repeated.")],
    out: Annotated[Path, typer.Option(help="JSONL file for the preference pairs.")],
    gamma: Annotated[float, typer.Option(help="Largest distance of a weight from 1.")] = GAMMA,
) -> None:
    """Make preference pairs of the items that are hard for one of the models."""
    found = read_all(samples, training_items(load_sources(data)))
    merged = merge([mine(answers, model, gamma) for model, answers in found.items()])
    if not merged:
        raise InputError("no item is hard: no model gave both right and wrong answers to one; draw more, or hotter")
    write_rows(map(pair_row, merged), out)
    console = Console()
    console.print(count_table(found))
    for (model, source), count in Counter((pair.model, pair.item.source) for pair in merged).items():
        console.print(f"{count} pairs of {source} by {model}", highlight=False)
    console.print(f"{len(merged)} pairs written to {out}", highlight=False)


@app.command()
def difficult(
    samples: Annotated[list[Path], typer.Argument(help="Files of answers.")],
    data: Annotated[list[str], typer.Option(help="The data that was sampled; may be repeated.")],
    out: Annotated[Path, typer.Option(help="JSONL file for the second round.")],
    times: Annotated[int, typer.Option(help="How often a difficult item is there.")] = 2,
    least_wrong: Annotated[int, typer.Option(help="Wrong answers that make an item difficult.")] = 1,
    alone: Annotated[bool, typer.Option("--alone", help="Leave the other training items out.")] = False,
) -> None:
    """Write data for a second round in which difficult items come several times."""
    loaded = load_sources(data)
    found = read_all(samples, training_items(loaded))
    hard = {one.item.id for answers in found.values() for one in answers if len(one.wrong) >= max(1, least_wrong)}
    if not hard:
        raise InputError(f"no item is difficult: none was judged wrongly {least_wrong} times")
    items = [item for one in loaded for item in one.items]
    rows = [to_row(item) for item in repeat_difficult(items, hard, times, alone=alone)]
    write_rows(rows, out)
    console = Console()
    console.print(count_table(found))
    console.print(
        f"{len(hard)} difficult items, {times} times each; {len(rows)} items written to {out}", highlight=False
    )


def training_items(loaded: Sequence[Loaded]) -> list[LabelledInteraction]:
    """What is sampled: the training split without doubtful labels."""
    return [item for one in loaded for item in one.items if item.split == TRAIN and not item.doubtful]


def read_all(files: Sequence[Path], items: Sequence[LabelledInteraction]) -> dict[str, list[Samples]]:
    """The answers of several files, by the name of the model.

    Raises:
        InputError: a file cannot be read, or two are of one model.
    """
    found: dict[str, list[Samples]] = {}
    for file in files:
        job, rows = read_journal(file)
        model = str(job["model"])
        if model in found:
            raise InputError(f"{file} holds answers of {model}, of which there are some already")
        found[model] = read_samples(rows, items)
    return found


def count_table(found: dict[str, list[Samples]]) -> Table:
    """How hard the items of each source are for each model."""
    table = Table("model", "source")
    headings = ("items", "always right", "ambiguous", "always wrong", "unusable answers")
    for heading in headings:
        table.add_column(heading, justify="right")
    for model, answers in found.items():
        counts: dict[str, Counter[str]] = {}
        for one in answers:
            row = counts.setdefault(one.item.source, Counter())
            row["items"] += 1
            row["ambiguous"] += one.ambiguous
            row["always right"] += bool(one.right) and not one.wrong
            row["always wrong"] += bool(one.wrong) and not one.right
            row["unusable answers"] += one.unusable
        for source, row in counts.items():
            table.add_row(model, source, *(str(row[heading]) for heading in headings))
    return table


def _longest(answers: Sequence[LabelledInteraction]) -> LabelledInteraction:
    return max(answers, key=lambda answer: sum(len(step) for steps in answer.reasoning.values() for step in steps))


def main() -> None:
    """Runs the command, with errors as one line."""
    try:
        app()
    except ModerationError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise SystemExit(2) from exc


if __name__ == "__main__":
    main()
