"""Asking a teacher for traces: many requests at once, bad answers again, and every answer kept as it comes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import typer

from guardreasoner_moderation.engines.openai_client import RefusedError, ServerClient
from guardreasoner_moderation.errors import EngineError, InputError
from guardreasoner_moderation.results import Category, Task
from training.data import LabelledInteraction
from training.journal import Journal
from training.teacher import Price, Reply, Teacher
from training.trace_filters import Fault, read_trace
from training.trace_prompts import Budget, ChatMessages, shortening_messages, synthesis_messages

_HOPELESS = 10  # requests that fail one after the other: the server is gone
_REJECTED = (400, 413, 422)  # statuses that are about one request, such as a text that is too long; others end the run


@dataclass(frozen=True, slots=True)
class Question:
    """One item and what the teacher is asked about it; ``key`` changes with every word of that."""

    item: LabelledInteraction
    messages: ChatMessages
    key: str


def ask_about(
    items: Sequence[LabelledInteraction], budget: Budget, *, shorten: bool = False, again: bool = False
) -> list[Question]:
    """The questions to a teacher.

    Args:
        items: labelled data.
        budget: of the traces.
        shorten: ask for shorter traces where there are some over the budget; else for traces where there are none.
        again: ask for traces also where there are some.
    """
    questions = []
    for item in items:
        if shorten:
            wanted = item.can_think and any(len(item.reasoning[task]) > budget.most for task in item.labels)
        else:
            wanted = again or not item.can_think
        if wanted:
            messages = (shortening_messages if shorten else synthesis_messages)(item, budget)
            questions.append(Question(item, messages, sha256(json.dumps(messages).encode()).hexdigest()[:24]))
    return questions


class Synthesis:
    """A teacher's answers to questions, those of earlier runs among them."""

    def __init__(self, teacher: Teacher, budget: Budget, journal: Journal, attempts: int) -> None:
        """Takes the answers that the journal has.

        Raises:
            InputError: there are no attempts.
        """
        if attempts < 1:
            raise InputError(f"attempts must be at least 1, found {attempts}")
        self._teacher = teacher
        self._budget = budget
        self._journal = journal
        self._attempts = attempts
        self._answers: dict[str, list[dict[str, Any]]] = {}
        self._read = self._written = 0  # tokens
        for row in journal.rows:
            self._count(row)

    def run(self, questions: Sequence[Question], price: Price | None = None, max_cost: float | None = None) -> None:
        """Asks until every question has a good answer, or none after all attempts, or the money is spent.

        A question that the server does not answer stays open, for the next run.

        Raises:
            EngineError: the server refuses, or does not answer any more. What was answered is kept.
        """
        wanted = [question for question in questions if self._is_open(question)]
        waiting = iter(wanted)
        failures = 0  # in a row
        client = self._teacher.connect()
        running: dict[Future[Reply | None], Question] = {}
        bar = typer.progressbar(length=len(questions), label="traces")
        with ThreadPoolExecutor(self._teacher.concurrency) as threads, bar:
            bar.update(len(questions) - len(wanted))

            def begin(question: Question | None) -> None:
                spent = None if price is None else price.cost(self._read, self._written)
                if question is not None and (max_cost is None or spent is None or spent < max_cost):
                    running[threads.submit(self._reply, client, question)] = question

            try:
                for _ in range(self._teacher.concurrency):
                    begin(next(waiting, None))
                while running:
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        question = running.pop(future)
                        try:
                            self._keep(question, future.result())
                        except EngineError as exc:
                            failures += 1
                            if isinstance(exc, RefusedError) or failures == min(_HOPELESS, len(wanted)):
                                raise EngineError(f"{exc}. What was answered is kept: run again to go on") from exc
                            begin(next(waiting, None))
                            continue
                        failures = 0
                        if self._is_open(question):
                            begin(question)
                        else:
                            bar.update(1)
                            begin(next(waiting, None))
            finally:
                client.close()  # nothing is asked again; what is answered meanwhile is paid for, so it is kept
                for future in wait(running).done:
                    if future.exception() is None:
                        self._keep(running[future], future.result())

    def apply(
        self, items: Sequence[LabelledInteraction], questions: Sequence[Question]
    ) -> Iterator[LabelledInteraction]:
        """The items in their order; those with a good answer have its reasoning, and its category if they had none."""
        answers = {question.item.id: self._good(question) for question in questions}
        for item in items:
            answer = answers.get(item.id)
            if answer is None:
                yield item
                continue
            reasoning = {Task(task): tuple(steps) for task, steps in answer["reasoning"].items()}
            category = None if answer["category"] is None else Category(answer["category"])
            yield replace(item, reasoning=reasoning, category=category)

    def describe(self, questions: Sequence[Question]) -> dict[str, Any]:
        """Counts for a record.

        Returns:
            How many questions got a good answer, how many none after all attempts, how many are still open; the faults
            of all answers, and the tokens that the answers cost.
        """
        good = sum(self._good(question) is not None for question in questions)
        still_open = sum(self._is_open(question) for question in questions)
        rows = [row for question in questions for row in self._answers.get(question.key, ())]
        return {
            "asked_about": len(questions),
            "good": good,
            "given_up": len(questions) - good - still_open,
            "open": still_open,
            "faults": dict(Counter(row["fault"] for row in rows if row["fault"] is not None)),
            "tokens_read": sum(row["read"] for row in rows),
            "tokens_written": sum(row["written"] for row in rows),
        }

    def _reply(self, client: ServerClient, question: Question) -> Reply | None:
        """The teacher's answer; None when the server rejects this one request."""
        try:
            return self._teacher.ask(client, question.messages, self._budget)
        except RefusedError as exc:
            if exc.status in _REJECTED:
                return None
            raise

    def _keep(self, question: Question, reply: Reply | None) -> None:
        row: dict[str, Any] = {"key": question.key, "id": question.item.id, "fault": None, "read": 0, "written": 0}
        if reply is None:
            row["fault"] = Fault.REJECTED
        else:
            row |= {"read": reply.read, "written": reply.written}
            found = read_trace(reply.text, question.item, self._budget, cut_off=reply.cut_off)
            if reply.refused:
                found = Fault.REFUSAL
            if isinstance(found, Fault):
                row |= {"fault": found, "text": reply.text}
            else:
                row |= {"reasoning": found.reasoning, "category": found.category}
        self._journal.append([row])
        self._count(row)

    def _count(self, row: dict[str, Any]) -> None:
        self._answers.setdefault(row["key"], []).append(row)
        self._read += row["read"]
        self._written += row["written"]

    def _good(self, question: Question) -> dict[str, Any] | None:
        return next((row for row in self._answers.get(question.key, ()) if row["fault"] is None), None)

    def _is_open(self, question: Question) -> bool:
        """Whether an answer is still wanted. A rejected request is not sent again."""
        faults = [row["fault"] for row in self._answers.get(question.key, ())]
        return None not in faults and Fault.REJECTED not in faults and len(faults) < self._attempts
