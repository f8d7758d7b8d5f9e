"""Long inputs: overlapping windows, and how their verdicts combine. Nothing is truncated.

A text that is longer than a model's window is judged piece by piece:

- the request (with its history and system message, as one transcript) in windows of its own;
- the user's last message passage by passage too, each by itself (:mod:`passages`), where that is asked for;
- the response in windows of its own, each beside the beginning of the request.

A request or response is as harmful as its most harmful piece. A refusal is said at the beginning of a response, so its
first window decides. In windows every token is read at most 1 + overlap / size times, and in passages once more, so the
cost grows linearly with the length.

Windows are cut from what is read in place of a text (:mod:`normalization`), and named by their places in the text
itself. What a text says in code (:mod:`decoding`) is judged in windows of its own, which come after them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from guardreasoner_moderation.decoding import decoded
from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.normalization import Reading, as_it_is, normalized
from guardreasoner_moderation.passages import passages
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


def cut(
    interaction: Interaction, tokenize: Tokenize, size: int, *, passage: int = 0, normalize: bool = False
) -> list[Piece]:
    """The pieces of an interaction that fit in windows of ``size`` tokens, frame not counted.

    Args:
        interaction: what is judged.
        tokenize: tokens of a text.
        size: of a window.
        passage: the longest passage, in tokens, where the last message of a request that does not fit is judged by
            passages too; 0 where it is not.
        normalize: whether texts are read in plain characters, and what they say in code too.
    """
    read = cache(normalized if normalize else as_it_is)  # of a long text both take seconds
    tokenize = cache(tokenize)
    plain = _in_plain_characters(interaction, read) if normalize else interaction
    whole = _fits(plain, tokenize, size)
    pieces = [Piece(plain, tasks_of(has_response=interaction.response is not None))] if whole else []

    def readings(text: str) -> list[Reading]:
        hidden = decoded(text) if normalize else None
        return [*([] if whole else [read(text)]), *([hidden] if hidden else [])]

    request = transcript(interaction)
    field = "prompt" if request == interaction.prompt else "conversation"
    parts = _parts(field, readings(request), tokenize, size)
    if passage and len(tokenize(read(request).text)) > size:
        last = read(interaction.prompt)
        parts += [_Part("prompt", last, *place) for place in passages(last.text, tokenize(last.text), passage)]
    pieces += [Piece(Interaction(text), (Task.REQUEST,), window) for text, window in _windows(parts, len(pieces))]
    if interaction.response is not None and (found := readings(interaction.response)):
        beside = read(request).text
        beside = beside[: _end_of(beside, tokenize, int(size * _REQUEST_SHARE))]
        room = size - len(tokenize(beside))
        parts = _parts("response", found, tokenize, room)
        pieces += [
            Piece(
                Interaction(beside, text),
                (Task.COMPLETION, Task.RESPONSE) if window.index == 0 else (Task.RESPONSE,),
                window,
            )
            for text, window in _windows(parts, int(whole))
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


def _in_plain_characters(interaction: Interaction, read: Callable[[str], Reading]) -> Interaction:
    def plain(text: str | None) -> str | None:
        return None if text is None else read(text).text

    return Interaction(
        read(interaction.prompt).text,
        plain(interaction.response),
        tuple(replace(turn, text=read(turn.text).text) for turn in interaction.history),
        plain(interaction.system),
    )


def _fits(interaction: Interaction, tokenize: Tokenize, size: int) -> bool:
    texts = [interaction.prompt, interaction.response or "", interaction.system or ""]
    texts += [turn.text for turn in interaction.history]
    # A token is at least one byte of text, so a short text needs no counting.
    return sum(len(text.encode()) for text in texts) <= size or sum(len(tokenize(text)) for text in texts) <= size


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of what is read in place of a field's text, from ``begin`` to ``end``."""

    field: str
    reading: Reading
    begin: int
    end: int


def _parts(field: str, readings: Sequence[Reading], tokenize: Tokenize, size: int) -> list[_Part]:
    """The windows of a field's text, in all of its readings."""
    return [_Part(field, reading, *place) for reading in readings for place in _places(reading.text, tokenize, size)]


def _windows(parts: Sequence[_Part], first: int) -> list[tuple[str, Window]]:
    """What is read in each window, and its place in the text of its field; ``first`` is the first one's number."""
    return [
        (
            part.reading.text[part.begin : part.end],
            Window(number, first + len(parts), part.field, *part.reading.place(part.begin, part.end)),
        )
        for number, part in enumerate(parts, first)
    ]


def _places(text: str, tokenize: Tokenize, size: int) -> list[tuple[int, int]]:
    offsets = tokenize(text)
    step = max(1, size - int(size * _OVERLAP))
    starts = list(range(0, max(1, len(offsets) - size + step), step))
    places = []
    for number, first in enumerate(starts):
        begin = 0 if number == 0 else offsets[first][0]
        end = len(text) if number == len(starts) - 1 else offsets[first + size - 1][1]
        if text[begin:end].strip():  # a window of white space says nothing
            places.append((begin, end))
    return places


def _end_of(text: str, tokenize: Tokenize, tokens: int) -> int:
    """Where the first ``tokens`` tokens of a text end, in characters."""
    offsets = tokenize(text)
    return len(text) if len(offsets) <= tokens else offsets[tokens - 1][1]
