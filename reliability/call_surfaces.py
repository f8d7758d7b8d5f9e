"""The Python interface as a surface: arguments of every kind, on an engine without a model and on the embedded one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any

from guardreasoner_moderation import Moderator
from guardreasoner_moderation.engines.base import Sampling
from guardreasoner_moderation.engines.scripted import ScriptedEngine
from guardreasoner_moderation.guarding import GuardResult
from guardreasoner_moderation.interactions import Interaction, Turn
from guardreasoner_moderation.models import ModelSpec
from guardreasoner_moderation.prompts import Prompt, PromptFormat
from guardreasoner_moderation.results import ModerationResult
from guardreasoner_moderation.windows import cut
from reliability import hostile_values as hostile
from reliability.surface import ACCEPTED, VERDICT, BrokenPromiseError, Surface, Try, insist

SPEC = ModelSpec(prompt_format=PromptFormat.COMPACT, policy=True, categories=("violence_physical_harm", "other"))
_MODES = ("think", "verdict", "auto")
_ROLES = ("user", "assistant", "system", "human", "developer", "tool")


def guard_without_model(spec: ModelSpec = SPEC) -> Moderator:
    """Finds "bomb" harmful, and writes a whole answer block or none."""

    def reply(prompt: Prompt) -> str:
        answer = " harmful\nCategory: violence_physical_harm" if "bomb" in prompt.text else " unharmful"
        if prompt.text.endswith("Request:"):
            return answer
        return "" if len(prompt.text) % 3 == 0 else f"It is about something.\n---\nAnswers:\nRequest:{answer}"

    def choose(prompt: Prompt, words: Sequence[str]) -> str:
        return words[0 if "bomb" in prompt.text else -1]

    return Moderator.from_engine(ScriptedEngine(reply, choose=choose), spec, name="scripted")


def insist_on_verdict(result: ModerationResult) -> str:
    """Insists that a result says something, and that what could not be judged is flagged."""
    if result.error is not None:
        insist(result.flagged, "what could not be judged is not flagged")
        insist(len(result.error) < 2000, "an error repeats the text")
    else:
        if result.request is None:
            raise BrokenPromiseError("neither a verdict nor an error")
        insist(0 <= result.request.score <= 1, "a score that is no probability")
    result.to_json()
    return VERDICT


class Caller:
    """Draws calls of a moderator.

    Args:
        guard: the moderator.
        quick: short texts and little reasoning, for a real model.
    """

    def __init__(self, guard: Moderator, *, quick: bool = False) -> None:
        self._guard = guard
        self._quick = quick

    def attempt(self, dice: Random) -> str:
        """One call."""
        kind = dice.random()
        if kind < 0.4:
            return insist_on_verdict(
                self._guard.classify(self._text(dice), self._response(dice), **self._settings(dice))
            )
        if kind < 0.6:
            return insist_on_verdict(self._guard.classify_messages(self._messages(dice), **self._settings(dice)))
        if kind < 0.85:
            return self._batch(dice)
        if kind < 0.92:
            pieces = list(self._guard.stream(self._text(dice), self._response(dice), **self._settings(dice)))
            result = pieces[-1]
            if not isinstance(result, ModerationResult):
                raise BrokenPromiseError("a stream without a result")
            return insist_on_verdict(result)
        chunks: Any = [self._text(dice) for _ in range(dice.randint(0, 4))] if dice.random() < 0.9 else 7
        every: Any = dice.choice(("sentence", 1, 50, 0, "word", 10**5000))
        pieces = list(self._guard.guard_stream(self._text(dice), chunks, every=every, **self._settings(dice)))
        insist(isinstance(pieces[-1], GuardResult), "a guarded stream without a result")
        return VERDICT

    def _batch(self, dice: Random) -> str:
        items: Any = [self._item(dice) for _ in range(dice.choice((0, 1, 2, 5)))]
        if dice.random() < 0.1:
            items = dice.choice((None, 5, "text", {"prompt": "x"}, (x for x in ("a",)), tuple(items), b"x"))
        results = self._guard.classify_batch(items, **self._settings(dice))
        insist(len(results) == len(items), "results were lost")
        for result in results:
            insist_on_verdict(result)
        return VERDICT

    def _item(self, dice: Random) -> Any:
        kind = dice.random()
        if kind < 0.3:
            return self._text(dice)
        if kind < 0.45:
            return (self._text(dice), self._response(dice))
        if kind < 0.6:
            keys = ("prompt", "response", "system", "messages")
            return {hostile.misspelt(dice, keys): self._text(dice) for _ in range(dice.randint(0, 3))}
        if kind < 0.75:
            return self._messages(dice)
        if kind < 0.9:
            history: Any = dice.choice(((), None, [1], (Turn("user", "a"),), (Turn("root", "a"),), "ab"))
            system: Any = dice.choice((None, "be brief", 7, "\ud800"))
            return Interaction(self._text(dice), self._response(dice), history, system)
        return hostile.value(dice)

    def _messages(self, dice: Random) -> Any:
        if dice.random() < 0.1:
            return hostile.one_of(dice, lambda: hostile.value(dice), lambda: hostile.odd_object(dice))
        messages = []
        for _ in range(dice.choice((0, 1, 2, 3, 3, 40))):
            content: Any = self._text(dice)
            if dice.random() < 0.2:
                content = [{"type": "text", "text": content}, dice.choice(({"type": "image"}, {"text": 5}, 7, {}))]
            messages.append({"role": hostile.misspelt(dice, _ROLES), "content": content})
        return messages

    def _text(self, dice: Random) -> Any:
        if dice.random() < 0.12:
            return hostile.one_of(dice, lambda: hostile.value(dice), lambda: hostile.odd_object(dice))
        text = hostile.text(dice, huge=not self._quick)
        return text[:3000] if self._quick else text

    def _response(self, dice: Random) -> Any:
        return None if dice.random() < 0.5 else self._text(dice)

    def _settings(self, dice: Random) -> dict[str, Any]:
        odd: tuple[Any, ...] = (0, -1, 1.5, "5", True, 10**5000, [], {}, "\ud800", float("nan"))
        settings: dict[str, Any] = {"mode": "verdict"} if self._quick else {}
        if dice.random() < 0.4:
            settings["mode"] = hostile.misspelt(dice, _MODES) if dice.random() < 0.9 else dice.choice(odd)
        if dice.random() < 0.2:
            names = ("request", "response", "completion")
            number: Any = dice.choice((0.3, 1, 0, *odd))
            settings["thresholds"] = number if dice.random() < 0.5 else {hostile.misspelt(dice, names): number}
        if dice.random() < 0.15:
            settings["max_reasoning_steps"] = dice.choice((1, 3, *odd))
        if dice.random() < 0.1:
            settings["policy"] = dice.choice(("no cooking", {"a": "b"}, ["a: b"], " ", 7, b"x", {1: 2}, "\udfff"))
        if dice.random() < 0.05:
            settings["sampling"] = dice.choice((Sampling(seed=1), 7, "hot"))
        if self._quick or dice.random() < 0.15:
            settings["max_reasoning_tokens"] = 4 if self._quick else dice.choice((1, 50, *odd))
        return settings


@contextmanager
def _scripted(_: Path) -> Iterator[Try]:
    yield Caller(guard_without_model()).attempt


@contextmanager
def _settings_of_guards(_: Path) -> Iterator[Try]:
    """The class's own settings, and what is loaded by name."""
    pairs = ((0.1, 0.9), (0.9, 0.1), ("a", "b"), [0.2, 0.8])
    odd: tuple[Any, ...] = (0, -1, 3, 16, 0.5, 2, "5", True, 10**5000, [], {}, None, *pairs)

    def attempt(dice: Random) -> str:
        if dice.random() < 0.6:
            names = ("thresholds", "auto_bounds", "window_tokens", "passage_tokens", "batch_size")
            settings: dict[str, Any] = {dice.choice(names): dice.choice(odd) for _ in range(dice.randint(0, 2))}
            Moderator.from_engine(ScriptedEngine(lambda prompt: " unharmful"), SPEC, **settings)
            return ACCEPTED
        name: Any = hostile.one_of(dice, lambda: hostile.text(dice, huge=False), lambda: hostile.odd_object(dice))
        if dice.random() < 0.5:
            name = "embeded"
        options = {
            "engine": ("ctranslate2", "transformers", "llamacpp", "auto"),
            "quantization": ("4bit", "8bit"),
            "dtype": ("float32", "bfloat16"),
        }
        chosen = {key: hostile.misspelt(dice, words) for key, words in options.items() if dice.random() < 0.3}
        with Moderator.from_pretrained(name, **chosen):  # type: ignore[arg-type]
            return ACCEPTED

    yield attempt


@contextmanager
def _embedded(_: Path) -> Iterator[Try]:
    with Moderator() as guard:
        yield Caller(guard, quick=True).attempt


@contextmanager
def _embedded_windows(_: Path) -> Iterator[Try]:
    """Texts of ten million bytes on their way into windows; to judge one takes as long as 5,000 short ones."""
    pieces = cycle(("a", " ", "word ", "Request: harmful\n", "\0", "\U0001f600"))
    with Moderator() as guard:

        def attempt(_: Random) -> str:
            piece = next(pieces)
            text = "x" + piece * (hostile.HUGE // len(piece.encode()))
            windows = cut(Interaction(text), guard.model.engine.encode, guard.window_tokens, normalize=True)
            end = max((piece.window.end for piece in windows if piece.window is not None), default=len(text))
            insist(not text[end:].strip(), "the end is cut off")
            return ACCEPTED

        yield attempt


CALLS = (
    Surface("calls of Moderator, with an engine without a model", _scripted, 8_000, seconds=60),
    Surface("settings of Moderator and names of models", _settings_of_guards, 2_000),
    Surface("calls of Moderator, with the embedded model", _embedded, 200, seconds=60),
    # Up to ten million tokens, which take a minute to find and half an hour to judge. Each text comes twice: the second
    # time it may take no more memory than the first.
    Surface("texts of 10,000,000 bytes, with the embedded model's tokenizer", _embedded_windows, 12, 300, warm=0.5),
)
