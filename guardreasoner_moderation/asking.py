"""What a model says of texts: asks it, reads its answers, and forces those that it does not give by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from guardreasoner_moderation.engines.base import Engine, Generation, OnText, Sampling
from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.models import ModelSpec
from guardreasoner_moderation.parsing import parse_output
from guardreasoner_moderation.prompts import (
    CATEGORY_HEADING,
    HEADINGS,
    Policy,
    Prompt,
    ask_for_answers,
    build_prompt,
    opening,
    policy_categories,
    write_steps,
)
from guardreasoner_moderation.results import LABELS, Label, Mode, Task
from guardreasoner_moderation.verdicts import SLOTS, RawJudgement, chosen, last_words, log_odds, read_slots, tasks_of
from guardreasoner_moderation.windows import Piece

_ANSWER_TOKENS = 40  # the longest answer block, with room to spare


@dataclass(frozen=True, slots=True)
class Settings:
    """How one call judges; its maker has checked every field."""

    mode: Mode
    thresholds: Mapping[Task, float]
    reasoning_tokens: int
    reasoning_steps: int | None
    policy: Policy | None
    sampling: Sampling | None


class Asker:
    """Asks one model about pieces of texts."""

    def __init__(self, engine: Engine, spec: ModelSpec) -> None:
        self._engine = engine
        self._spec = spec

    def judge(self, asked: Sequence[tuple[Piece, Settings]], on_text: OnText | None) -> list[RawJudgement]:
        """Lets the model write, takes its answers where it wrote a whole block, and asks for them where not.

        All pieces are given to the engine together; their settings differ in the mode alone.

        Raises:
            EngineError: the model failed.
        """
        prompts = [self._prompt(piece.interaction, how) for piece, how in asked]
        thinking = [how for _, how in asked if how.mode is Mode.THINK]
        generations = self._engine.generate(
            prompts,
            max_new_tokens=_ANSWER_TOKENS + (thinking[0].reasoning_tokens if thinking else 0),
            slots=SLOTS,
            last_words=[last_words(has_response=piece.interaction.response is not None) for piece, _ in asked],
            sampling=thinking[0].sampling if thinking else None,
            on_text=on_text if thinking else None,
        )
        judgements = [
            self._read(piece, generation, how) for (piece, how), generation in zip(asked, generations, strict=True)
        ]
        for mode in (Mode.THINK, Mode.VERDICT):
            missing = [
                number for number, (_, how) in enumerate(asked) if how.mode is mode and judgements[number] is None
            ]
            if missing:
                answers = self._ask(
                    [asked[number][0] for number in missing],
                    [prompts[number] for number in missing],
                    [generations[number] for number in missing],
                    asked[missing[0]][1],
                )
                for number, judgement in zip(missing, answers, strict=True):
                    judgements[number] = judgement
        return [judgement for judgement in judgements if judgement is not None]

    def categories(self, how: Settings) -> tuple[str, ...]:
        """The words that may name a harm: the policy's, or the model's own; empty where none are known."""
        return policy_categories(how.policy) or self._spec.categories

    def name_harms(self, pieces: Sequence[Piece], how: Settings) -> list[str]:
        """The category word of each piece, which is harmful, though the model named none; there must be some to name.

        Raises:
            EngineError: the model failed.
        """
        words = self.categories(how)
        asking = []
        for piece in pieces:
            prompt = self._prompt(piece.interaction, how)
            if how.mode is Mode.THINK:
                prompt = ask_for_answers(prompt, self._spec.prompt_format, "")
            asking.append(prompt.extended(f" {Label.HARMFUL}\n{CATEGORY_HEADING}:"))
        return [max(words, key=reading.__getitem__) for reading in self._engine.score(asking, [words] * len(asking))]

    def _prompt(self, interaction: Interaction, how: Settings) -> Prompt:
        return build_prompt(
            interaction,
            self._spec.prompt_format,
            how.mode,
            policy=how.policy,
            chat_template=self._engine.chat_template if self._spec.chat else None,
        )

    def _read(self, piece: Piece, generation: Generation, how: Settings) -> RawJudgement | None:
        written = opening(self._spec.prompt_format, how.mode) + generation.text
        answered = tasks_of(has_response=piece.interaction.response is not None)
        odds = read_slots(written, generation.slots, answered)
        parsed = parse_output(written)
        over_budget = how.reasoning_steps is not None and any(
            len(steps) > how.reasoning_steps for steps in parsed.steps.values()
        )
        if odds is None or over_budget:
            return None
        return RawJudgement(
            log_odds=odds,
            steps=parsed.steps,
            category=parsed.category,
            prompt_tokens=generation.prompt_tokens,
            completion_tokens=generation.completion_tokens,
        )

    def _ask(
        self, pieces: Sequence[Piece], prompts: Sequence[Prompt], generations: Sequence[Generation], how: Settings
    ) -> list[RawJudgement]:
        """Asks for each answer in turn, after the reasoning as far as it goes."""
        begun = opening(self._spec.prompt_format, how.mode)
        steps: list[dict[Task, tuple[str, ...]]] = []
        asking: list[Prompt] = []
        for piece, prompt, generation in zip(pieces, prompts, generations, strict=True):
            tasks = tasks_of(has_response=piece.interaction.response is not None)
            parsed = parse_output(begun + generation.text).steps if how.mode is Mode.THINK else {}
            steps.append({task: parsed[task][: how.reasoning_steps] for task in tasks if parsed.get(task)})
            if how.mode is Mode.THINK:
                reasoning = write_steps(steps[-1], self._spec.prompt_format).removeprefix(begun)
                asking.append(ask_for_answers(prompt, self._spec.prompt_format, reasoning))
            else:
                asking.append(prompt)
        odds: list[dict[Task, float]] = [{} for _ in pieces]
        for task in Task:
            waiting = [
                n for n, piece in enumerate(pieces) if task is Task.REQUEST or piece.interaction.response is not None
            ]
            if task is not Task.REQUEST:
                for number in waiting:
                    asking[number] = asking[number].extended(f"\n{HEADINGS[task]}:")
            words = [label.value for label in LABELS[task]]
            readings = self._engine.score([asking[number] for number in waiting], [words] * len(waiting))
            for number, reading in zip(waiting, readings, strict=True):
                odds[number][task] = log_odds(task, reading)
                asking[number] = asking[number].extended(f" {chosen(task, odds[number][task])}")
        return [
            RawJudgement(
                log_odds=odds[number],
                steps=steps[number],
                prompt_tokens=generation.prompt_tokens,
                completion_tokens=generation.completion_tokens,
            )
            for number, generation in enumerate(generations)
        ]
