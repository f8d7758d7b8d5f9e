"""How interactions are judged: cut into windows, asked about in a mode, and put together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from guardreasoner_moderation.asking import Asker, Settings
from guardreasoner_moderation.engines.base import Engine, OnText
from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.models import LoadedModel, ModelSpec
from guardreasoner_moderation.results import (
    LABELS,
    Category,
    Mode,
    ModerationResult,
    Task,
    TaskVerdict,
    Usage,
    Window,
)
from guardreasoner_moderation.verdicts import RawJudgement
from guardreasoner_moderation.windows import Piece, cut, deciding


class Judge:
    """Judges interactions with one model."""

    def __init__(
        self,
        model: LoadedModel,
        *,
        auto_bounds: tuple[float, float],
        window_tokens: int,
        passage_tokens: int,
        normalize: bool,
    ) -> None:
        self._name = model.name
        self._engine: Engine = model.engine
        self._spec: ModelSpec = model.spec
        self._asker = Asker(model.engine, model.spec)
        self._auto_bounds = auto_bounds
        self._window_tokens = window_tokens
        self._passage_tokens = passage_tokens
        self._normalize = normalize

    def judge(
        self, interactions: Sequence[Interaction], how: Settings, on_text: OnText | None = None
    ) -> list[ModerationResult]:
        """One result for each interaction, in order.

        Raises:
            EngineError: the model failed.
        """
        if not interactions:
            return []
        cuts = [
            cut(
                interaction,
                self._engine.encode,
                self._window_tokens,
                passage=self._passage_tokens,
                normalize=self._normalize,
            )
            for interaction in interactions
        ]
        if how.mode is not Mode.AUTO:
            return self._judge_in_mode(cuts, how, on_text)[0]
        low, high = self._auto_bounds
        results, firsts = self._judge_in_mode(cuts, replace(how, mode=Mode.VERDICT), None)
        unsure = [
            number
            for number, result in enumerate(results)
            if any(low <= verdict.score <= high for task, verdict in result.verdicts() if task is not Task.COMPLETION)
        ]
        if unsure:
            again, _ = self._judge_in_mode(
                [cuts[number] for number in unsure],
                replace(how, mode=Mode.THINK),
                on_text,
                [firsts[number] for number in unsure],
            )
            for number, thought in zip(unsure, again, strict=True):
                seconds = results[number].usage.seconds + thought.usage.seconds
                results[number] = replace(thought, usage=replace(thought.usage, seconds=seconds))
        return results

    def _judge_in_mode(
        self,
        cuts: Sequence[Sequence[Piece]],
        how: Settings,
        on_text: OnText | None,
        firsts: Sequence[Sequence[RawJudgement]] | None = None,
    ) -> tuple[list[ModerationResult], list[list[RawJudgement]]]:
        """Judges the pieces of all items together, and puts each item's verdicts together again.

        Args:
            cuts: the pieces of each item.
            how: with a mode that is not auto.
            on_text: for the reasoning as it is written.
            firsts: judgements of the pieces without reasoning, where there are some already.

        Returns:
            The results, and the judgements of each item's pieces.
        """
        started = time.perf_counter()
        before: list[list[RawJudgement]] = [[] for _ in cuts]
        without = replace(how, mode=Mode.VERDICT)
        if how.mode is not Mode.THINK or (firsts is None and not self._spec.weighs_first_answers):
            judgements = self._judge_cuts(cuts, how, on_text)
        elif firsts is None and on_text is None and how.sampling is None and all(len(item) == 1 for item in cuts):
            # With nothing to decide first, an engine may run both ways of asking side by side.
            asked = [(item[0], manner) for manner in (how, without) for item in cuts]
            both = self._asker.judge(asked, None)
            before = [[first] for first in both[len(cuts) :]]
            judgements = [
                [replace(judgement, first=first.log_odds)]
                for judgement, first in zip(both, both[len(cuts) :], strict=False)
            ]
        else:
            before = [list(judged) for judged in firsts or self._judge_cuts(cuts, without, None)]
            # Of a long text, only the windows that decide it are worth reasoning about.
            kept = [self._deciding(item, judged, without) for item, judged in zip(cuts, before, strict=True)]
            cuts = [[item[number] for number in numbers] for item, numbers in zip(cuts, kept, strict=True)]
            judgements = [
                [
                    replace(judgement, first=first[number].log_odds)
                    for judgement, number in zip(thought, numbers, strict=True)
                ]
                for thought, first, numbers in zip(self._judge_cuts(cuts, how, on_text), before, kept, strict=True)
            ]
        results: list[ModerationResult] = []
        unnamed: list[tuple[int, Piece]] = []
        for number, (item, judged) in enumerate(zip(cuts, judgements, strict=True)):
            result, named_by = self._combine(item, judged, how)
            if named_by is not None and result.category is None:
                unnamed.append((number, item[named_by]))
            results.append(result)
        if unnamed and self._asker.categories(how):
            words = self._asker.name_harms([piece for _, piece in unnamed], how)
            for (number, _), word in zip(unnamed, words, strict=True):
                results[number] = replace(results[number], category=_category(word))
        seconds = (time.perf_counter() - started) / len(results)
        for number, judged in enumerate(judgements):
            spent = [*before[number], *judged]
            usage = Usage(
                sum(judgement.prompt_tokens for judgement in spent),
                sum(judgement.completion_tokens for judgement in spent),
                seconds,
            )
            results[number] = replace(results[number], usage=usage)
        return results, judgements

    def _judge_cuts(
        self, cuts: Sequence[Sequence[Piece]], how: Settings, on_text: OnText | None
    ) -> list[list[RawJudgement]]:
        """The judgements of each item's pieces, all pieces judged together."""
        judged = iter(self._asker.judge([(piece, how) for item in cuts for piece in item], on_text))
        return [list(islice(judged, len(item))) for item in cuts]

    def _deciding(self, pieces: Sequence[Piece], judged: Sequence[RawJudgement], how: Settings) -> list[int]:
        """The numbers of the pieces that decide some task."""
        scores = [self._scores(task, pieces, judged, how) for task in Task]
        return sorted({deciding(task, found) for task, found in zip(Task, scores, strict=True) if found})

    def _scores(
        self, task: Task, pieces: Sequence[Piece], judged: Sequence[RawJudgement], how: Settings
    ) -> dict[int, float]:
        """The score of each piece that is judged for a task."""
        calibration = self._spec.calibration_of(how.mode, task)
        return {
            number: calibration.score(judgement.log_odds[task], judgement.first.get(task, 0.0))
            for number, (piece, judgement) in enumerate(zip(pieces, judged, strict=True))
            if task in piece.tasks
        }

    def _combine(
        self, pieces: Sequence[Piece], judged: Sequence[RawJudgement], how: Settings
    ) -> tuple[ModerationResult, int | None]:
        """One result from the judgements of an item's pieces, and the piece that shows the harm, if any."""
        verdicts: dict[Task, TaskVerdict] = {}
        windows: dict[Task, Window] = {}
        by: dict[Task, int] = {}
        for task in Task:
            scores = self._scores(task, pieces, judged, how)
            if not scores:
                continue
            by[task] = deciding(task, scores)
            window, judgement = pieces[by[task]].window, judged[by[task]]
            risky, other = LABELS[task]
            score = scores[by[task]]
            verdicts[task] = TaskVerdict(
                label=risky if score >= how.thresholds[task] else other,
                score=score,
                threshold=how.thresholds[task],
                reasoning=judgement.steps.get(task, ()),
            )
            if window is not None:
                windows[task] = window
        harmful = [task for task in (Task.REQUEST, Task.RESPONSE) if task in verdicts and verdicts[task].risky]
        named_by = by[harmful[0]] if harmful else None
        word = judged[named_by].category if named_by is not None else None
        result = ModerationResult(
            flagged=bool(harmful),
            request=verdicts[Task.REQUEST],
            completion=verdicts.get(Task.COMPLETION),
            response=verdicts.get(Task.RESPONSE),
            category=_category(word) if word in self._asker.categories(how) else None,
            mode=how.mode,
            model=self._name,
            windows=windows,
        )
        return result, named_by


def _category(word: str | None) -> Category | str | None:
    return Category(word) if word in set(Category) else word
