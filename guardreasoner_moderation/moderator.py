"""The public class: judges interactions with one model."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from guardreasoner_moderation.asking import Settings
from guardreasoner_moderation.checks import known_word, of_type, rising_shares, whole_number
from guardreasoner_moderation.engines.base import Engine, Sampling
from guardreasoner_moderation.errors import InputError, ModerationError
from guardreasoner_moderation.guarding import Every, GuardedResponse, GuardResult, aguard, guard
from guardreasoner_moderation.interactions import Interaction, Item, Message, from_messages, to_interaction
from guardreasoner_moderation.judge import Judge
from guardreasoner_moderation.models import SPEC_FILE, LoadedModel, ModelSpec, load_in_worker, load_model
from guardreasoner_moderation.prompts import Policy, refuse_bad_policy
from guardreasoner_moderation.results import Mode, ModerationResult
from guardreasoner_moderation.streaming import ReasoningStream, stream_from_thread
from guardreasoner_moderation.verdicts import read_thresholds

OnError = Literal["raise", "block", "allow"]


class Moderator:
    """A guard: judges requests and responses, and says why.

    The embedded model needs no account, no GPU and no torch:

        guard = Moderator()
        result = guard.classify("How do I pick a lock?")
        result.flagged, result.request.score

    One moderator may be used from several threads. It is a context manager; :meth:`close` frees the model.
    """

    def __init__(
        self,
        model: str | Path = "embedded",
        *,
        thresholds: Mapping[str, float] | float | None = None,
        auto_bounds: tuple[float, float] | None = None,
        window_tokens: int | None = None,
        passage_tokens: int | None = None,
        normalize: bool = True,
        batch_size: int = 64,
        engine: str = "auto",
    ) -> None:
        """Loads a model; see :meth:`from_pretrained` for its names and errors.

        Args:
            model: short name, folder or repository id.
            thresholds: the scores from which a verdict is harmful (or a refusal): one number for both harm tasks, or a
                mapping from task to number. Default: the model's own.
            auto_bounds: between these scores ``auto`` mode reasons. Default: the model's own.
            window_tokens: longer texts are judged in windows of so many tokens. Default: the model's own.
            passage_tokens: where a request does not fit in a window, the user's last message is judged paragraph by
                paragraph too, each of so many tokens at most, so that what is hidden in it is found; 0 for windows
                alone, in half the time. Default: the model's own.
            normalize: read texts in plain characters (:mod:`guardreasoner_moderation.normalization`), and what they say
                in code too (:mod:`guardreasoner_moderation.decoding`). Results are about the texts as they were given.
            batch_size: how many items of a batch go to the engine together.
            engine: "auto", "ctranslate2" or "transformers".
        """
        self._set_up(
            load_model(model, engine=engine),
            thresholds=thresholds,
            auto_bounds=auto_bounds,
            window_tokens=window_tokens,
            passage_tokens=passage_tokens,
            normalize=normalize,
            batch_size=batch_size,
        )

    @classmethod
    def from_pretrained(
        cls,
        id_or_path: str | Path,
        *,
        base: str | Path | None = None,
        revision: str | None = None,
        quantization: Literal["4bit", "8bit"] | None = None,
        engine: str = "auto",
        device: str | None = None,
        dtype: Literal["bfloat16", "float16", "float32"] | None = None,
        spec: str | Path | None = None,
        server: str | None = None,
        api_key: str | None = None,
        tokenizer: str | Path | None = None,
        own_process: bool = False,
        **settings: Any,
    ) -> Moderator:
        """Loads any PEFT adapter, merged causal language model or GGUF file, or uses a model that a server runs.

        Args:
            id_or_path: a short name ("embedded"), a folder, a GGUF file, or a repository id on the Hugging Face Hub;
                with ``server`` the name by which the server knows the model.
            base: base model of an adapter, if not the one that the adapter names.
            revision: branch, tag or commit of the repository.
            quantization: load the base in 4 or 8 bit with bitsandbytes (needs CUDA).
            engine: "ctranslate2", "transformers", "llamacpp", "vllm" or "openai" (``docs/engines.md``). "auto" takes
                openai with ``server``, llamacpp for GGUF files, ctranslate2 for adapters of the embedded base, and
                transformers for all else.
            device: such as "cpu", "cuda:0" or "auto" (spread over what there is).
            dtype: of the weights; default: bfloat16 on a GPU, float32 on a CPU.
            spec: another ``moderation.json`` than the one beside the weights.
            server: address of an OpenAI-compatible server, such as "http://localhost:8000/v1".
            api_key: the server's key; default: the variable GUARDREASONER_SERVER_KEY.
            tokenizer: for a server: folder or repository id with the model's tokenizer, so that it is sent token ids;
                a ``moderation.json`` there is read too. Without it control tokens in texts are broken up.
            own_process: run the engine in a child process, so that its crash is an error here, after which it is
                started again (``docs/server.md``). :meth:`close` ends it.
            **settings: ``thresholds``, ``auto_bounds``, ``window_tokens``, ``passage_tokens``, ``normalize`` and
                ``batch_size``, as for the class.

        Raises:
            ModelNotFoundError: there is no such model.
            IncompatibleModelError: adapter and base do not fit, or a file is damaged.
            UnsafeModelError: the weights are pickles.
            WeightsError: weights could not be fetched.
            MissingDependencyError: an extra is not installed.
            InputError: arguments that do not go together.
        """
        load = load_in_worker if own_process else load_model
        model = load(
            id_or_path,
            base=base,
            revision=revision,
            quantization=quantization,
            engine=engine,
            device=device,
            dtype=dtype,
            spec=spec,
            server=server,
            api_key=api_key,
            tokenizer=tokenizer,
        )
        moderator = cls.__new__(cls)
        moderator._set_up(model, **settings)
        return moderator

    @classmethod
    def from_engine(cls, engine: Engine, spec: ModelSpec, *, name: str = "custom", **settings: Any) -> Moderator:
        """A moderator on an engine that is already running, such as one of your own.

        Args:
            engine: any implementation of :class:`guardreasoner_moderation.engines.base.Engine`.
            spec: how its model is asked and its scores are read.
            name: what results carry as ``model``.
            **settings: ``thresholds``, ``auto_bounds``, ``window_tokens``, ``passage_tokens``, ``normalize`` and
                ``batch_size``, as for the class.
        """
        moderator = cls.__new__(cls)
        moderator._set_up(LoadedModel(name, engine, spec), **settings)
        return moderator

    def _set_up(
        self,
        model: LoadedModel,
        *,
        thresholds: Mapping[str, float] | float | None = None,
        auto_bounds: tuple[float, float] | None = None,
        window_tokens: int | None = None,
        passage_tokens: int | None = None,
        normalize: bool = True,
        batch_size: int = 64,
    ) -> None:
        self.model = model
        self._spec = model.spec
        self._thresholds = read_thresholds(thresholds, model.spec.thresholds)
        bounds = model.spec.auto_bounds if auto_bounds is None else auto_bounds
        self._auto_bounds = rising_shares("auto_bounds", bounds)
        window = model.spec.window_tokens if window_tokens is None else window_tokens
        self._window_tokens = whole_number("window_tokens", window, least=16)
        passage = model.spec.passage_tokens if passage_tokens is None else passage_tokens
        self._passage_tokens = whole_number("passage_tokens", passage, least=0)
        self._batch_size = whole_number("batch_size", batch_size)
        self._judge = Judge(
            model,
            auto_bounds=self._auto_bounds,
            window_tokens=self._window_tokens,
            passage_tokens=self._passage_tokens,
            normalize=of_type(bool, "normalize", normalize),
        )

    def classify(
        self,
        prompt: str,
        response: str | None = None,
        *,
        mode: str = "think",
        thresholds: Mapping[str, float] | float | None = None,
        max_reasoning_tokens: int | None = None,
        max_reasoning_steps: int | None = None,
        policy: Policy | None = None,
        sampling: Sampling | None = None,
    ) -> ModerationResult:
        """Judges one request and, if it is given, one response to it.

        Args:
            prompt: what the user wrote.
            response: what the assistant answered.
            mode: ``think`` reasons first; ``verdict`` answers at once; ``auto`` answers at once and reasons only where
                a harm score is uncertain.
            thresholds: as for the class, for this call.
            max_reasoning_tokens: budget of the reasoning; what is cut off is still judged.
            max_reasoning_steps: keep at most so many sentences for each task, and judge by those.
            policy: rules that replace the taxonomy, for models that were trained to read some.
            sampling: random decoding of the reasoning; greedy when left out.

        Raises:
            InputError: the text is empty or not text, or a setting is unknown.
            EngineError: the model failed.
        """
        settings = self._settings(mode, thresholds, max_reasoning_tokens, max_reasoning_steps, policy, sampling)
        return self._judge.judge([to_interaction(Interaction(prompt, response))], settings)[0]

    def classify_messages(self, messages: Sequence[Message], **settings: Any) -> ModerationResult:
        """Judges a conversation as lists of chat messages hold it.

        The last assistant turn is the response, the user turn before it the request, and what came before that its
        history. When the last turn is the user's, only the request is judged.

        Args:
            messages: dicts with ``role`` and ``content``.
            **settings: as for :meth:`classify`.

        Raises:
            InputError: see :func:`guardreasoner_moderation.interactions.from_messages`.
        """
        return self._judge.judge([from_messages(messages)], self._settings(**settings))[0]

    def classify_batch(
        self,
        items: Sequence[Item],
        *,
        on_error: OnError = "block",
        on_result: Callable[[int], None] | None = None,
        **settings: Any,
    ) -> list[ModerationResult]:
        """Judges many items; the results are in their order.

        Args:
            items: texts, (prompt, response) pairs, dicts, lists of chat messages, or :class:`Interaction` s.
            on_error: an item that could not be judged comes back with ``error`` set and ``flagged`` True ("block") or
                False ("allow"), or ends the call ("raise").
            on_result: called with how many items of a finished group were judged, for progress bars.
            **settings: as for :meth:`classify`.

        Raises:
            InputError: a setting is wrong; with ``on_error="raise"`` also for an item.
            EngineError: with ``on_error="raise"``: the model failed.
        """
        known_word("on_error", on_error, ("raise", "block", "allow"))
        if isinstance(items, (str, bytes, Mapping)):
            raise InputError("items must be a sequence of items; for one item call classify")
        if not isinstance(items, Collection):
            raise InputError(f"items must be a sequence of items, found {type(items).__name__}; make a list of it")
        how = self._settings(**settings)
        results: dict[int, ModerationResult] = {}
        interactions: dict[int, Interaction] = {}
        for number, item in enumerate(items):
            try:
                interactions[number] = to_interaction(item)
            except InputError as exc:
                if on_error == "raise":
                    raise InputError(f"item {number}: {exc}") from exc
                results[number] = self._unjudged(exc, how, on_error)
        # Neighbours of a like length share engine calls, whatever the order of the items.
        order = sorted(interactions, key=lambda number: _characters(interactions[number]))
        for start in range(0, len(order), self._batch_size):
            group = order[start : start + self._batch_size]
            judged = self._judge_group([interactions[number] for number in group], how, on_error)
            results.update(zip(group, judged, strict=True))
            if on_result is not None:
                on_result(len(group))
        return [results[number] for number in range(len(items))]

    async def aclassify(self, prompt: str, response: str | None = None, **settings: Any) -> ModerationResult:
        """:meth:`classify` in a worker thread, for asyncio."""
        return await asyncio.to_thread(partial(self.classify, prompt, response, **settings))

    def classify_aloud(
        self, item: Item, put: Callable[[str], None], *, check: Callable[[], None] | None = None, **settings: Any
    ) -> ModerationResult:
        """Judges one item and hands its reasoning to ``put`` as it is written, in the caller's thread.

        What ``put`` or ``check`` raises stops the model at that token, and is raised here.

        Args:
            item: in any shape that :meth:`classify_batch` takes.
            put: takes the pieces of the reasoning, of which there are none in verdict mode; a step ends with a line
                break.
            check: called at every token that the model writes after it began to reason, shown or not.
            **settings: as for :meth:`classify`.

        Raises:
            InputError, EngineError: as for :meth:`classify`.
        """
        how = self._settings(**settings)
        return self._judge.judge([to_interaction(item)], how, on_text=ReasoningStream(put, check))[0]

    def stream(self, prompt: str, response: str | None = None, **settings: Any) -> Iterator[str | ModerationResult]:
        """Judges one item and hands out its reasoning as it is written: pieces of text, and last the result.

        A step ends with a line break. In verdict mode there are no pieces. Leaving the loop early is allowed: closing
        the iterator, which Python does when nothing refers to it any more, stops the model at its next token.

        Args:
            prompt, response: what is judged.
            **settings: as for :meth:`classify`.

        Raises:
            InputError, EngineError: as for :meth:`classify`; what is wrong with the call is raised by the call itself.
        """
        return self._stream(to_interaction(Interaction(prompt, response)), self._settings(**settings))

    def stream_messages(self, messages: Sequence[Message], **settings: Any) -> Iterator[str | ModerationResult]:
        """:meth:`stream` for a conversation, which is read as :meth:`classify_messages` reads it."""
        return self._stream(from_messages(messages), self._settings(**settings))

    def guard_stream(
        self,
        prompt: str | Sequence[Message],
        chunks: Iterable[str],
        *,
        every: Every = "sentence",
        stop_on_request: bool = False,
        on_error: Literal["raise", "block"] = "block",
        mode: str = "verdict",
        **settings: Any,
    ) -> Iterator[str | GuardResult]:
        """Stands between an assistant and its user: lets a response through while it is written, up to the first harm.

            for piece in guard.guard_stream(question, answer(question)):
                if isinstance(piece, str):
                    send(piece)
                elif piece.stopped:
                    send("I cannot go on with this.")

        No text comes out before it was judged, beside the request and what came before it; white space alone is not
        judged. When the response is harmful, or cannot be judged, the rest is withheld. Either way ``chunks`` is
        closed, and the last thing that comes out is the result. The request is judged before the first chunk is taken.

        Args:
            prompt: what the user wrote, or chat messages that end with the user's.
            chunks: the response, in pieces of any size; None or other things that are no text are an error.
            every: judge after each "sentence" (also at line breaks, and after 400 characters without either), or
                whenever so many characters wait. More than fits one window of the model costs more than one judgement.
            stop_on_request: end at a harmful request, before the first chunk is taken. When left out, the response
                alone decides: it may well be a refusal.
            on_error: what could not be judged ends the stream with a result that has ``error`` set ("block"), or with
                the exception ("raise").
            mode, **settings: as for :meth:`classify`.

        Raises:
            InputError: as for :meth:`classify`, by the call itself; for a chunk that is no text, while iterating.
            EngineError: with ``on_error="raise"``: the model failed.
        """
        if not isinstance(chunks, Iterable):
            hint = "; for an asynchronous iterator call aguard_stream" if isinstance(chunks, AsyncIterable) else ""
            raise InputError(f"chunks must be an iterable of text, found {type(chunks).__name__}{hint}")
        return guard(self._guarded(prompt, every, stop_on_request, on_error, {"mode": mode, **settings}), chunks)

    def aguard_stream(
        self,
        prompt: str | Sequence[Message],
        chunks: AsyncIterable[str],
        *,
        every: Every = "sentence",
        stop_on_request: bool = False,
        on_error: Literal["raise", "block"] = "block",
        mode: str = "verdict",
        **settings: Any,
    ) -> AsyncIterator[str | GuardResult]:
        """:meth:`guard_stream` for asyncio: takes an asynchronous iterator, and judges in worker threads."""
        if not isinstance(chunks, AsyncIterable):
            hint = "; for these call guard_stream" if isinstance(chunks, Iterable) else ""
            raise InputError(f"chunks must be an asynchronous iterable, found {type(chunks).__name__}{hint}")
        return aguard(self._guarded(prompt, every, stop_on_request, on_error, {"mode": mode, **settings}), chunks)

    @property
    def window_tokens(self) -> int:
        """The longest text that is judged at once, in tokens of the model."""
        return self._window_tokens

    @property
    def passage_tokens(self) -> int:
        """The longest passage in which long requests are judged too, in tokens of the model; 0 where they are not."""
        return self._passage_tokens

    def _stream(self, interaction: Interaction, how: Settings) -> Iterator[str | ModerationResult]:
        return stream_from_thread(lambda reasoning: self._judge.judge([interaction], how, on_text=reasoning)[0])

    def _guarded(
        self, prompt: Item, every: Every, stop_on_request: bool, on_error: OnError, settings: Mapping[str, Any]
    ) -> GuardedResponse:
        known_word("on_error", on_error, ("raise", "block"))
        how = self._settings(**settings)
        return GuardedResponse(
            to_interaction(prompt),
            lambda interaction: self._judge_group([interaction], how, on_error)[0],
            every=every,
            stop_on_request=stop_on_request,
            encode=self.model.engine.encode,
            window_tokens=self._window_tokens,
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Copies the adapter (or the merged model) and its ``moderation.json`` into a folder.

        What :meth:`from_pretrained` loads back from there gives the same verdicts. Base weights are not copied.
        """
        if self.model.folder is None:
            raise InputError("this moderator runs on an engine of your own, which has no files to save")
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        for file in self.model.folder.iterdir():
            if file.is_file() and target.resolve() != self.model.folder.resolve():
                shutil.copy2(file, target / file.name)
        spec = replace(
            self._spec,
            thresholds=self._thresholds,
            auto_bounds=self._auto_bounds,
            window_tokens=self._window_tokens,
            passage_tokens=self._passage_tokens,
        )
        (target / SPEC_FILE).write_text(spec.to_json(), encoding="utf-8")

    def close(self) -> None:
        """Frees the model; further calls raise EngineError."""
        self.model.engine.close()

    def __enter__(self) -> Moderator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _settings(
        self,
        mode: str = "think",
        thresholds: Mapping[str, float] | float | None = None,
        max_reasoning_tokens: int | None = None,
        max_reasoning_steps: int | None = None,
        policy: Policy | None = None,
        sampling: Sampling | None = None,
    ) -> Settings:
        known_word("mode", mode, Mode)
        for name, value in (
            ("max_reasoning_tokens", max_reasoning_tokens),
            ("max_reasoning_steps", max_reasoning_steps),
        ):
            if value is not None:
                whole_number(name, value)
        if policy is not None:
            refuse_bad_policy(policy)
            if not self._spec.policy:
                raise InputError(
                    f"the model {self.model.name!r} was not trained to read a policy (its moderation.json does not "
                    "offer one), so it would ignore yours; leave policy out or use a model that offers it"
                )
        if sampling is not None and not isinstance(sampling, Sampling):
            raise InputError(f"sampling must be a Sampling, found {type(sampling).__name__}")
        return Settings(
            mode=Mode(mode),
            thresholds=read_thresholds(thresholds, self._thresholds),
            reasoning_tokens=max_reasoning_tokens or self._spec.reasoning_tokens,
            reasoning_steps=max_reasoning_steps,
            policy=policy,
            sampling=sampling,
        )

    def _judge_group(
        self, interactions: Sequence[Interaction], how: Settings, on_error: OnError
    ) -> list[ModerationResult]:
        try:
            return self._judge.judge(interactions, how)
        except ModerationError as exc:
            if on_error == "raise":
                raise
            if len(interactions) == 1:
                return [self._unjudged(exc, how, on_error)]
        # One bad item must not cost its neighbours their verdicts.
        return [result for one in interactions for result in self._judge_group([one], how, on_error)]

    def _unjudged(self, exc: ModerationError, how: Settings, on_error: OnError) -> ModerationResult:
        return ModerationResult(
            flagged=on_error == "block", request=None, mode=how.mode, model=self.model.name, error=str(exc)
        )


def _characters(interaction: Interaction) -> int:
    return len(interaction.prompt) + len(interaction.response or "")
