"""Guarding a response while it is written: text is let through once it was judged, up to the first harm.

The request is judged first, by itself. Each further judgement reads the request and the response so far. Where these
are longer than the model's window it reads the beginning of the user's last message, a quarter of the window at most,
and the end of the response: all that was not judged yet, and as much before it as fits. So a judgement costs one window
at most (more only where more than that waits), and the cost of a response grows linearly with its length.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias

from guardreasoner_moderation.errors import InputError, shown
from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.results import ModerationResult, Task, TaskVerdict, Usage, Window
from guardreasoner_moderation.windows import Tokenize

Every: TypeAlias = Literal["sentence"] | int
"""When a growing response is judged: after each sentence, or whenever so many characters wait."""

JudgeOne: TypeAlias = Callable[[Interaction], ModerationResult]
"""Judges one interaction; where it could not, the result has an ``error``."""

_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]*_]*\s+|\n\s*")
_SHORTEST = 40  # characters; a shorter sentence, such as the number of a list item, waits for the next one
_LONGEST = 400  # characters; as many without the end of a sentence are judged all the same
_REQUEST_SHARE = 0.25  # of a window, for the user's last message beside a long response
_OVERLAP = 200  # characters of what was judged before that are read again at least
_CHARS_PER_TOKEN = 16  # more than any prose has; what is longer is not worth counting
_SLACK = 4  # tokens that two cut texts may have more than they had in one piece


@dataclass(frozen=True, slots=True)
class GuardResult(ModerationResult):
    """How a guarded stream ended.

    The request's verdict is of the request by itself; the verdicts on the response are of the last judgement, its
    completion of the last one that read the beginning. ``windows`` names the part of a long response that was read
    last. ``usage`` is of all judgements together.

    Attributes:
        stopped: text may have been withheld, because something was harmful or could not be judged.
        released: how much of the response was let through, in characters.
        judgements: how many there were.
    """

    stopped: bool = False
    released: int = 0
    judgements: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        counts = {"stopped": self.stopped, "released": self.released, "judgements": self.judgements}
        return {**ModerationResult.to_dict(self), **counts}  # super() does not know classes with slots


class GuardedResponse:
    """One response while it is written: what waits, what was let through, what was found. Reads no stream itself.

    Args:
        request: what the response answers.
        judge: judges.
        every: how often.
        stop_on_request: whether a harmful request ends the stream, before anything of the response is read.
        encode: tokens of a text.
        window_tokens: how many of them are judged at once.

    Raises:
        InputError: ``request`` has a response already, or ``every`` is unknown.
    """

    def __init__(
        self,
        request: Interaction,
        judge: JudgeOne,
        *,
        every: Every,
        stop_on_request: bool,
        encode: Tokenize,
        window_tokens: int,
    ) -> None:
        if request.response is not None:
            raise InputError("the item has a response already; leave it out, the response is what the chunks bring")
        if every != "sentence" and (type(every) is not int or every < 1):
            raise InputError(f"every must be 'sentence' or a whole number of at least 1, found {shown(every)}")
        self._request = request
        self._judge = judge
        self._every = every
        self._stop_on_request = stop_on_request
        self._encode = encode
        self._window_tokens = window_tokens
        self._held = ""
        self._released = ""
        self._results: list[ModerationResult] = []
        self.stopped = False

    def judge_request(self) -> None:
        """The first step: judges the request."""
        result = self._judge(self._request)
        self._results.append(result)
        self.stopped = must_stop(result, result.request if self._stop_on_request else None)

    def add(self, chunk: str) -> bool:
        """Takes the next piece of the response; whether there is something to :meth:`release` now.

        Raises:
            InputError: it is no text.
        """
        if not isinstance(chunk, str):
            raise InputError(
                f"a chunk of the response must be text, found {type(chunk).__name__}; leave out chunks without text"
            )
        try:
            chunk.encode()
        except UnicodeEncodeError as exc:
            message = "a chunk of the response holds half a surrogate pair; decode the whole stream, not each chunk"
            raise InputError(message) from exc
        self._held += chunk
        return due(self._held, self._every) > 0

    def release(self, *, final: bool = False) -> str:
        """Judges what is due (in the end all that waits), and returns it; nothing when that ended the stream."""
        text = self._held[: due(self._held, self._every, final=final)]
        if text and not text.isspace():
            result = self._judge_response(self._released + text)
            self._results.append(result)
            self.stopped = must_stop(result, result.response)
            if self.stopped:
                return ""
        self._released += text
        self._held = self._held[len(text) :]
        return text

    def result(self) -> GuardResult:
        """The end of the stream."""
        first, last = self._results[0], self._results[-1]
        if last is not first and last.error is None:
            last = _joined(first, last)
        usages = [result.usage for result in self._results]
        known = {field.name: getattr(last, field.name) for field in fields(ModerationResult)}
        known["usage"] = Usage(
            sum(usage.prompt_tokens for usage in usages),
            sum(usage.completion_tokens for usage in usages),
            sum(usage.seconds for usage in usages),
        )
        return GuardResult(**known, stopped=self.stopped, released=len(self._released), judgements=len(self._results))

    def _judge_response(self, response: str) -> ModerationResult:
        part, start = part_to_judge(self._request, response, len(self._released), self._encode, self._window_tokens)
        result = placed(self._judge(part), start, len(response))
        if result.completion is None and result.error is None:
            result = replace(result, completion=self._results[-1].completion)
        return result


def guard(guarded: GuardedResponse, chunks: Iterable[str]) -> Iterator[str | GuardResult]:
    """Hands out what of ``chunks`` was let through, and last the result; ``chunks`` is closed by then."""
    source = iter(chunks)
    try:
        guarded.judge_request()
        if not guarded.stopped:
            for chunk in source:
                if guarded.add(chunk) and (text := guarded.release()):
                    yield text
                if guarded.stopped:
                    break
            else:
                if text := guarded.release(final=True):
                    yield text
    finally:
        close = getattr(chunks, "close", None) or getattr(source, "close", None)
        if close is not None:
            close()
    yield guarded.result()


async def aguard(guarded: GuardedResponse, chunks: AsyncIterable[str]) -> AsyncIterator[str | GuardResult]:
    """:func:`guard` for asyncio: the judging is done in worker threads."""
    source = aiter(chunks)
    try:
        await asyncio.to_thread(guarded.judge_request)
        if not guarded.stopped:
            async for chunk in source:
                if guarded.add(chunk) and (text := await asyncio.to_thread(guarded.release)):
                    yield text
                if guarded.stopped:
                    break
            else:
                if text := await asyncio.to_thread(guarded.release, final=True):
                    yield text
    finally:
        # Streams of LLM clients have one or the other, and not all of them are coroutines.
        close = getattr(chunks, "aclose", None) or getattr(chunks, "close", None) or getattr(source, "aclose", None)
        if close is not None and inspect.isawaitable(closing := close()):
            await closing
    yield guarded.result()


def due(held: str, every: Every, *, final: bool = False) -> int:
    """How much of the text that waits is judged next, in characters; 0 while that is too little, or white space alone.

    What is not cut after a sentence is cut after a word, where there is more than one. In the end all of it is due.
    """
    if final:
        return len(held)
    if not held or held.isspace():
        return 0
    if every == "sentence":
        end = max((found.end() for found in _SENTENCE_END.finditer(held)), default=0)
        if end >= _SHORTEST and not held[:end].isspace():
            return end
    if len(held) < (_LONGEST if every == "sentence" else every):
        return 0
    end = len(held) if held[-1].isspace() else len(held) - len(held.rsplit(maxsplit=1)[-1])
    return end if held[:end].strip() else len(held)


def part_to_judge(
    request: Interaction, response: str, judged: int, encode: Tokenize, size: int
) -> tuple[Interaction, int]:
    """What is read to judge the end of a growing response, and where in the response it begins.

    Args:
        request: what the response answers.
        response: as far as it has come.
        judged: how much of it was judged before, in characters.
        encode: tokens of a text.
        size: of a window, in tokens.
    """
    whole = replace(request, response=response)
    if _fits(whole, encode, size):
        return whole, 0
    prompt = request.prompt.lstrip()[: size * _CHARS_PER_TOKEN]
    offsets = encode(prompt)
    share = int(size * _REQUEST_SHARE)
    if len(offsets) > share:
        prompt, offsets = prompt[: offsets[share - 1][1]], offsets[:share]
    room = size - len(offsets) - _SLACK
    start = max(0, len(response) - room * _CHARS_PER_TOKEN)
    tail = encode(response[start:])
    if len(tail) > room:
        start += tail[-room][0]
    start = min(start, max(0, judged - _OVERLAP))
    return Interaction(prompt, response[start:]), start


def placed(result: ModerationResult, start: int, end: int) -> ModerationResult:
    """The judgement of the part of a response from ``start`` to ``end``, with that place told in the whole response.

    A refusal is said at the beginning, so where that was not read there is no verdict on it.
    """
    if start == 0 or result.error is not None:
        return result
    window = result.windows.get(Task.RESPONSE, Window(0, 1, "response", 0, end - start))
    moved = replace(window, start=window.start + start, end=window.end + start)
    return replace(result, completion=None, windows={**result.windows, Task.RESPONSE: moved})


def must_stop(result: ModerationResult, verdict: TaskVerdict | None) -> bool:
    """Whether a judgement ends the stream: its verdict is harmful, or there is none because it failed."""
    return result.error is not None or _risky(verdict)


def _fits(interaction: Interaction, encode: Tokenize, size: int) -> bool:
    texts = [interaction.prompt, interaction.response or "", interaction.system or ""]
    texts += [turn.text for turn in interaction.history]
    if sum(map(len, texts)) > size * _CHARS_PER_TOKEN:
        return False
    return sum(len(encode(text)) for text in texts) <= size


def _joined(first: ModerationResult, last: ModerationResult) -> ModerationResult:
    """The judgement of the request by itself, and what the last one says of the response."""
    harmful = _risky(first.request) or _risky(last.response)
    named_by = first if _risky(first.request) else last
    windows = {
        task: place
        for task in Task
        if (place := (first if task is Task.REQUEST else last).windows.get(task)) is not None
    }
    return replace(
        last,
        flagged=harmful,
        request=first.request,
        category=named_by.category if harmful else None,
        windows=windows,
    )


def _risky(verdict: TaskVerdict | None) -> bool:
    return verdict is not None and verdict.risky
