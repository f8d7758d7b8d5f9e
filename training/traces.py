"""Reasoning synthesis (arXiv 2501.18492, section 2.1): a teacher writes the reasoning that leads to known labels.

    python -m training.traces DATA --server http://localhost:8000/v1 --model NAME --sentences 1-10 --estimate
    python -m training.traces DATA --server http://localhost:8000/v1 --model NAME --sentences 2 --out traced.jsonl
    python -m training.traces traced.jsonl --shorten --sentences 1 --server ... --model NAME --out short.jsonl

The teacher is any chat model behind an OpenAI-compatible server; it is sent the texts. Its key is read from an
environment variable (``--key-env``). What it writes is filtered (:mod:`training.trace_filters`) and asked for again, up
to ``--attempts`` times; an item that gets no good trace keeps what it has, and is learned in verdict mode if that is
nothing. Answers are kept beside the output as they come, in ``<name>.journal.jsonl``: the same command goes on after a
stop or a kill, and pays for no answer twice. ``--price-read`` and ``--price-written`` (of a million tokens) give the
cost before the start and at the end.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from guardreasoner_moderation.errors import InputError, ModerationError
from training.data import to_row, write_rows
from training.journal import Journal
from training.sources import UNKNOWN_LICENSE, load_sources
from training.synthesis import Question, Synthesis, ask_about
from training.teacher import Price, Teacher, read_tokens, written_tokens
from training.trace_prompts import Budget, read_budget


def main(
    sources: Annotated[list[str], typer.Argument(help="Labelled data, as for training.data.")],
    server: Annotated[str, typer.Option(help="Address of an OpenAI-compatible API.")],
    model: Annotated[str, typer.Option(help="The teacher's name there.")],
    out: Annotated[Path, typer.Option(help="JSONL file for the data with its traces.")] = Path("traced.jsonl"),
    sentences: Annotated[str, typer.Option(help="For each task: 1 to 10, or a range such as 1-3.")] = "2",
    shorten: Annotated[bool, typer.Option("--shorten", help="Shorten the traces that are over the budget.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Write traces also where there are some.")] = False,
    attempts: Annotated[int, typer.Option(help="Answers to ask for until one is good.")] = 3,
    temperature: Annotated[float, typer.Option(help="Of the teacher.")] = 0.7,
    body: Annotated[str, typer.Option(help="JSON object, merged into each request; null takes a member out.")] = "{}",
    key_env: Annotated[str, typer.Option(help="Variable with the server's key.")] = "GUARDREASONER_SERVER_KEY",
    concurrency: Annotated[int, typer.Option(help="Requests under way at once.")] = 8,
    timeout: Annotated[float, typer.Option(help="Seconds without a sign of life.")] = 120.0,
    retries: Annotated[int, typer.Option(help="Of a request that the server is too busy for.")] = 6,
    price_read: Annotated[float | None, typer.Option(help="Price of a million tokens read.")] = None,
    price_written: Annotated[float | None, typer.Option(help="Price of a million tokens written.")] = None,
    max_cost: Annotated[float | None, typer.Option(help="Ask no more when so much is spent.")] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Say what it would cost, and do nothing.")] = False,
    license: Annotated[str, typer.Option(help="Of rows that name none.")] = UNKNOWN_LICENSE,  # noqa: A002
) -> None:
    """Let a teacher write reasoning for labelled data."""
    try:
        budget, price = read_budget(sentences), Price(price_read, price_written)
        teacher = Teacher(server, model, temperature, read_body(body), key_env, concurrency, timeout, retries)
        if max_cost is not None and price.cost(0, 0) is None:
            raise InputError("to stop at a cost, pass --price-read and --price-written")
        loaded = load_sources(sources, default_license=license)
        items = [item for one in loaded for item in one.items]
        questions = ask_about(items, budget, shorten=shorten, again=again)
        typer.echo(describe_cost(questions, budget, price, attempts))
        if estimate:
            return
        with Journal(out.with_suffix(".journal.jsonl"), {"model": model, "temperature": temperature}) as journal:
            synthesis = Synthesis(teacher, budget, journal, attempts)
            synthesis.run(questions, price, max_cost)
            write_rows(map(to_row, synthesis.apply(items, questions)), out)
        found = synthesis.describe(questions)
        record = {
            "teacher": model,
            "sentences": str(budget),
            "shortened": shorten,
            "attempts": attempts,
            "temperature": temperature,
            "sources": {one.name: one.sha256 for one in loaded},
            **found,
            "cost": price.cost(found["tokens_read"], found["tokens_written"]),
        }
        out.with_suffix(".record.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        typer.echo(json.dumps(record, indent=2))
    except ModerationError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(2) from exc


def describe_cost(questions: Sequence[Question], budget: Budget, price: Price, attempts: int) -> str:
    """What the questions cost, in words: tokens, and money where prices are known. A rough guess, rather too high."""
    read = sum(read_tokens(question.messages) for question in questions)
    written = sum(written_tokens(budget, tasks=len(question.item.labels)) for question in questions)
    text = f"{len(questions)} items to ask about, some {read:,} tokens to read and {written:,} to write"
    cost = price.cost(read, written)
    return text if cost is None else f"{text}: {cost:,.2f}, and at most {attempts * cost:,.2f} in {attempts} attempts"


def read_body(text: str) -> dict[str, Any]:
    """The members that are merged into each request.

    Raises:
        InputError: the text is no JSON object.
    """
    try:
        body = json.loads(text)
    except ValueError as exc:
        raise InputError(f"--body is not JSON: {exc}") from exc
    if not isinstance(body, dict):
        raise InputError(f"--body must be a JSON object, found {type(body).__name__}")
    return body


if __name__ == "__main__":
    typer.run(main)
