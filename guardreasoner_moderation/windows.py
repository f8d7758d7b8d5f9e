"""Long inputs: overlapping windows, and how their verdicts combine. Nothing is truncated.

A text that is longer than a model's window is judged piece by piece:

- the request (with its history and system message, as one transcript) in windows of its own;
- the response in windows of its own, each beside the beginning of the request.

A request or response is as harmful as its most harmful window. A refusal is said at the beginning of a response, so its
first window decides. Every token is read at most 1 + overlap / size times, so the cost grows linearly with the length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.results import Task, Window
from guardreasoner_moderation.verdicts import tasks_of

Tokenize = Callable[[str], list[tuple[int, int]]]
"""From a text to the (start, end) of its tokens, in characters."""

_OVERLAP = 0.125  # of a window; a phrase that one window cuts stands whole in the next
_REQUEST_SHARE = 0.25  # of a window, for the beginning of the request beside a long response


@dataclass(frozen=True, slots=True)
class Piece:
    """One text to judge, the tasks it is judged for, and where it was cut (None: nothing was cut)."""

    interaction: Interaction
    tasks: tuple[Task, ...]
    window: Window | None = None


def cut(interaction: Interaction, tokenize: Tokenize, size: int) -> list[Piece]:
    """The pieces of an interaction that fit in windows of ``size`` tokens, frame not counted."""
    texts = [interaction.prompt, interaction.response or "", interaction.system or ""]
    texts += [turn.text for turn in interaction.history]
    # A token is at least one byte of text, so a short text needs no counting.
    if sum(len(text.encode()) for text in texts) <= size or sum(len(tokenize(text)) for text in texts) <= size:
        return [Piece(interaction, tasks_of(has_response=interaction.response is not None))]
    request = transcript(interaction)
    field = "prompt" if request == interaction.prompt else "conversation"
    pieces = [
        Piece(Interaction(request[window.start : window.end]), (Task.REQUEST,), window)
        for window in _windows(request, tokenize, size, field)
    ]
    if interaction.response is not None:
        beside = request[: _end_of(request, tokenize, int(size * _REQUEST_SHARE))]
        windows = _windows(interaction.response, tokenize, size - len(tokenize(beside)), "response")
        pieces += [
            Piece(
                Interaction(beside, interaction.response[window.start : window.end]),
                (Task.COMPLETION, Task.RESPONSE) if window.index == 0 else (Task.RESPONSE,),
                window,
            )
            for window in windows
        ]
    return pieces


def transcript(interaction: Interaction) -> str:
    """The request with what came before it, as one text."""
    parts = [] if interaction.system is None else [f"System message:\n{interaction.system}"]
    names = {"user": "Human user", "assistant": "AI assistant"}
    parts += [f"{names[turn.role]}:\n{turn.text}" for turn in interaction.history]
    if not parts:
        return interaction.prompt
    return "\n\n".join([*parts, f"Human user:\n{interaction.prompt}"])


def deciding(task: Task, scores: Mapping[int, float]) -> int:
    """The number of the piece that decides a task, from the pieces judged for it and their scores."""
    if task is Task.COMPLETION:
        return min(scores)
    return max(scores, key=lambda number: (scores[number], -number))


def _windows(text: str, tokenize: Tokenize, size: int, field: str) -> Sequence[Window]:
    offsets = tokenize(text)
    step = max(1, size - int(size * _OVERLAP))
    starts = list(range(0, max(1, len(offsets) - size + step), step))
    places = []
    for number, first in enumerate(starts):
        begin = 0 if number == 0 else offsets[first][0]
        end = len(text) if number == len(starts) - 1 else offsets[first + size - 1][1]
        if text[begin:end].strip():  # a window of white space says nothing
            places.append((begin, end))
    return [Window(index, len(places), field, begin, end) for index, (begin, end) in enumerate(places)]


def _end_of(text: str, tokenize: Tokenize, tokens: int) -> int:
    """Where the first ``tokens`` tokens of a text end, in characters."""
    offsets = tokenize(text)
    return len(text) if len(offsets) <= tokens else offsets[tokens - 1][1]
