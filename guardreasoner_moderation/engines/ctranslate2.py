"""The CPU default: CTranslate2, int8, no torch.

A Llama-type GGUF base and a LoRA adapter are merged in numpy and written once in CTranslate2's own format
(the field names are those of ctranslate2/converters/transformers.py, class LlamaLoader).
"""

from __future__ import annotations

import json
import threading
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from guardreasoner_moderation.checkpoint import Checkpoint, read_json
from guardreasoner_moderation.checks import of_type, whole_number
from guardreasoner_moderation.engines.base import (
    Generation,
    OnText,
    Sampling,
    SlotReading,
    SlotWatcher,
    first_tokens,
    score_words,
)
from guardreasoner_moderation.engines.encoding import SpanEncoder, read_tokenizer
from guardreasoner_moderation.engines.heap import give_back
from guardreasoner_moderation.engines.int8 import quantize_rows
from guardreasoner_moderation.engines.openmp import brief_spinning, uncounted
from guardreasoner_moderation.engines.parallel import available_threads
from guardreasoner_moderation.errors import EngineError, IncompatibleModelError, InputError
from guardreasoner_moderation.prompts import Prompt
from guardreasoner_moderation.rotation import rotated

if TYPE_CHECKING:
    import ctranslate2

_LENGTH_STEP = 16  # tokens; prompts with filler are brought to a multiple of it, so that more of them share a batch
_FEW_BATCHES = 4  # as a text in think mode has, or the windows of a long one
_READ_TOKENS = 512  # of a batch's prompts that are answered at once; more are no faster
_WRITE_TOKENS = 1024  # of those that write first, which share the steps; but a token's state takes 0.2 MB

Query: TypeAlias = tuple[list[int], list[int]]
"""Token ids of a prompt: those whose state CTranslate2 keeps, and the rest."""


def convert(checkpoint: Checkpoint, folder: Path, *, quantization: str | None = "int8") -> None:
    """Writes a checkpoint in CTranslate2's format, with its tokenizer, into an empty folder.

    Args:
        checkpoint: the weights; an adapter is already added.
        folder: where to write.
        quantization: "int8", or None for float32.
    """
    with brief_spinning():
        from ctranslate2.specs import TransformerDecoderModelSpec, common_spec

    if quantization is not None:
        checkpoint = rotated(checkpoint)
    shape = checkpoint.shape
    spec = TransformerDecoderModelSpec.from_config(
        shape.layers,
        shape.heads,
        activation=common_spec.Activation.SWISH,
        pre_norm=True,
        ffn_glu=True,
        rms_norm=True,
        rotary_dim=0,
        rotary_interleave=False,
        rotary_base=shape.rope_theta,
        num_heads_kv=shape.kv_heads,
    )
    tensors = checkpoint.tensors
    embedding = tensors["model.embed_tokens.weight"]
    spec.decoder.scale_embeddings = False

    def set_weight(layer: common_spec.LinearSpec | common_spec.EmbeddingsSpec, weight: NDArray[np.float32]) -> None:
        if quantization is None:
            layer.weight = weight
        else:  # not by the library, whose integers are too large for processors without VNNI
            layer.weight, layer.weight_scale = quantize_rows(weight)

    set_weight(spec.decoder.embeddings, embedding)
    set_weight(spec.decoder.projection, tensors.get("lm_head.weight", embedding))
    spec.decoder.layer_norm.gamma = tensors["model.norm.weight"]
    for number, layer in enumerate(spec.decoder.layer):
        name = f"model.layers.{number}"
        layer.self_attention.layer_norm.gamma = tensors[f"{name}.input_layernorm.weight"]
        layer.ffn.layer_norm.gamma = tensors[f"{name}.post_attention_layernorm.weight"]
        projections = [tensors[f"{name}.self_attn.{part}_proj.weight"] for part in "qkv"]
        set_weight(layer.self_attention.linear[0], np.concatenate(projections))
        set_weight(layer.self_attention.linear[1], tensors[f"{name}.self_attn.o_proj.weight"])
        set_weight(layer.ffn.linear_0, tensors[f"{name}.mlp.gate_proj.weight"])
        set_weight(layer.ffn.linear_0_noact, tensors[f"{name}.mlp.up_proj.weight"])
        set_weight(layer.ffn.linear_1, tensors[f"{name}.mlp.down_proj.weight"])
    spec.register_vocabulary(checkpoint.tokens)
    spec.config.bos_token = checkpoint.bos_token
    spec.config.eos_token = checkpoint.eos_token
    spec.config.unk_token = checkpoint.tokens[0]
    spec.config.layer_norm_epsilon = shape.norm_epsilon
    spec.validate()
    if quantization is None:
        spec.optimize()  # the output projection is the embedding; scales in int8 must not be shared
    spec.save(str(folder))
    checkpoint.tokenizer.save(str(folder / "tokenizer.json"))
    about = {"eos_token": checkpoint.eos_token, "context_tokens": shape.context, "tokens": checkpoint.tokens}
    (folder / "engine.json").write_text(json.dumps(about), encoding="utf-8")


class CTranslate2Engine:
    """Runs a folder written by :func:`convert`."""

    name = "ctranslate2"

    def __init__(self, folder: Path, *, device: str = "cpu", threads: int = 0) -> None:
        """Loads a converted model.

        Args:
            folder: what :func:`convert` wrote.
            device: "cpu" or "cuda".
            threads: how many to compute with; 0 for ``OMP_NUM_THREADS``, or all cores that the process may use.

        Raises:
            IncompatibleModelError, EngineError: the folder is damaged.
        """
        about = read_json(folder / "engine.json")
        try:
            self._tokens: list[str] = [
                of_type(str, "each of the tokens", token) for token in of_type(list, "tokens", about["tokens"])
            ]
            self._eos_token: str = of_type(str, "eos_token", about["eos_token"])
            self.context_tokens: int = whole_number("context_tokens", about["context_tokens"])
        except (KeyError, InputError) as exc:
            raise IncompatibleModelError(f"{folder / 'engine.json'} is not what the conversion writes: {exc}") from exc
        self._encoder = SpanEncoder(read_tokenizer(folder))
        self._folder = folder
        self._device = device
        self._threads = threads or available_threads()
        self._loading = threading.Lock()
        self._generators: dict[tuple[int, int], ctranslate2.Generator] | None = {}
        # Its threads must not be met by the interpreter's end, which would abort the process.
        weakref.finalize(self, self._generators.clear)
        self._generator(*self._sharing(1))

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        slots: Mapping[str, Sequence[str]] | None = None,
        last_words: Sequence[Mapping[str, Sequence[str]]] | None = None,
        sampling: Sampling | None = None,
        on_text: OnText | None = None,
    ) -> list[Generation]:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.generate`."""
        slots = slots or {}
        firsts = first_tokens(self._encoder, slots)
        encoded = [self._encode_for_call(prompt, max_new_tokens) for prompt in prompts]
        watchers = [
            SlotWatcher(prompt, firsts, self._encoder.decode, last_words[number] if last_words else None)
            for number, prompt in enumerate(prompts)
        ]
        batches = list(_batches(encoded, {n for n, watcher in enumerate(watchers) if watcher.heading_at([]) is None}))
        followers: list[_Follower | None] = [None] * len(batches)
        if stop or on_text or last_words:
            followers = [_Follower(batch, watchers, self._encoder.decode, stop, on_text) for batch in batches]
        running = self._run(
            [[encoded[number] for number in batch] for batch in batches],
            max_length=max_new_tokens,
            return_logits_vocab=bool(slots),
            callbacks=followers,
            sampling=sampling,
            # Texts would be handed on, and random numbers drawn, in any order.
            one_by_one=on_text is not None or sampling is not None,
        )
        generations: dict[int, Generation] = {}
        for batch, follower, results in zip(batches, followers, running, strict=True):
            for number, result in zip(batch, results, strict=True):
                ids = result.sequences_ids[0]
                readings: dict[str, SlotReading] = {}
                if slots:
                    for step, logits in enumerate(result.logits[0]):
                        heading = watchers[number].heading_at(ids[:step])
                        if heading is not None:
                            row = _log_softmax(logits)
                            readings[heading] = {word: float(row[first]) for word, first in firsts[heading].items()}
                generations[number] = Generation(
                    text=watchers[number].text(ids),
                    prompt_tokens=sum(map(len, encoded[number])),
                    completion_tokens=len(ids),
                    finished=len(ids) < max_new_tokens and not (follower and number in follower.stopped),
                    slots=readings,
                )
        return [generations[number] for number in range(len(prompts))]

    def score(self, prompts: Sequence[Prompt], words: Sequence[Sequence[str]]) -> list[dict[str, float]]:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.score`."""
        encoded = [self._encode_for_call(prompt, 0) for prompt in prompts]

        def read(points: list[tuple[int, tuple[int, ...]]]) -> list[NDArray[np.float32]]:
            queries = [(encoded[number][0], [*encoded[number][1], *prefix]) for number, prefix in points]
            batches = list(_batches(queries))
            running = self._run(
                [[queries[index] for index in batch] for batch in batches], max_length=1, return_logits_vocab=True
            )
            rows = {
                index: _log_softmax(result.logits[0][0])
                for batch, results in zip(batches, running, strict=True)
                for index, result in zip(batch, results, strict=True)
            }
            return [rows[index] for index in range(len(points))]

        return score_words(self._encoder, words, read)

    def encode(self, text: str) -> list[tuple[int, int]]:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.encode`."""
        return self._encoder.offsets(text)

    def count_tokens(self, prompt: Prompt) -> int:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.count_tokens`."""
        return len(self._encoder.encode(prompt))

    def chat_template(self, messages: list[dict[str, str]]) -> str:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.chat_template`."""
        raise EngineError("a converted model has no chat template; use engine='transformers' for a chat adapter")

    def tokenizer_json(self) -> str:
        """The tokenizer, for a process that cuts texts and does not run the model."""
        return self._encoder.to_json()

    def close(self) -> None:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.close`."""
        with self._loading:
            self._generators = None

    def _generator(self, workers: int, threads: int, *, new: bool = False) -> ctranslate2.Generator:
        """The model, loaded for so many batches at once, with so many threads for each; a new one is not kept."""
        with self._loading:
            if self._generators is None:
                raise EngineError("this engine is closed")
            if new:
                return self._load(workers, threads)
            if (workers, threads) not in self._generators:
                self._generators[workers, threads] = self._load(workers, threads)
            return self._generators[workers, threads]

    def _load(self, workers: int, threads: int) -> ctranslate2.Generator:
        with brief_spinning():
            import ctranslate2

        def load() -> ctranslate2.Generator:
            return ctranslate2.Generator(
                str(self._folder), device=self._device, inter_threads=workers, intra_threads=threads
            )

        try:
            return uncounted(load)
        except (RuntimeError, ValueError) as exc:
            raise EngineError(f"CTranslate2 cannot load {self._folder}: {exc}") from exc
        finally:
            give_back()

    def _sharing(self, batches: int) -> tuple[int, int]:
        """How many of so many batches run at once, and with how many threads each.

        A few have all threads, one batch after the other: side by side there would be more threads than cores, which
        sleep at every loop's end. More of them run on a thread each, which waits for no other; that takes a second copy
        of the weights.
        """
        if self._device != "cpu" or batches <= max(_FEW_BATCHES, self._threads // 2):
            return 1, self._threads
        return self._threads, 1

    def _encode_for_call(self, prompt: Prompt, max_new_tokens: int) -> Query:
        """Token ids of the first span, whose state CTranslate2 keeps, and of the rest."""
        first, *others = prompt.spans
        head = self._encoder.encode_text(first.text, trusted=first.trusted)
        pieces = [self._encoder.encode_text(span.text, trusted=span.trusted) for span in others]
        length = len(head) + sum(len(ids) for ids, span in zip(pieces, others, strict=True) if not span.filler)
        rest = [
            token
            for ids, span in zip(pieces, others, strict=True)
            for token in (ids * (-length % _LENGTH_STEP) if span.filler else ids)
        ]
        if not rest:
            head, rest = head[:-1], head[-1:]
        if len(head) + len(rest) + max_new_tokens > self.context_tokens:
            raise EngineError(
                f"the prompt has {len(head) + len(rest)} tokens; with {max_new_tokens} to write that is more than the "
                f"model's {self.context_tokens}"
            )
        return head, rest

    def _run(
        self,
        batches: Sequence[Sequence[Query]],
        *,
        max_length: int,
        return_logits_vocab: bool,
        callbacks: Sequence[Callable[[Any], bool] | None] | None = None,
        sampling: Sampling | None = None,
        one_by_one: bool = False,
    ) -> Iterator[list[Any]]:
        """The results of each batch, in order."""
        import ctranslate2

        workers, threads = self._sharing(1 if one_by_one else len(batches))
        side_by_side = workers > 1
        options: dict[str, Any] = {}
        if sampling is None:
            generator = self._generator(workers, threads)
        else:
            # A thread takes the seed once, with its first random number: one that is new, and alone, starts from it.
            ctranslate2.set_random_seed(sampling.seed)
            generator = self._generator(1, self._threads, new=True)
            options = {
                "sampling_topk": 0,
                "sampling_topp": sampling.top_p,
                "sampling_temperature": sampling.temperature,
            }
        running: deque[list[Any]] = deque()
        try:
            for batch, callback in zip(batches, callbacks or [None] * len(batches), strict=True):
                running.append(
                    generator.generate_batch(
                        [[self._tokens[token] for token in rest] for _, rest in batch],
                        static_prompt=[self._tokens[token] for token in batch[0][0]] or None,
                        max_length=max_length,
                        include_prompt_in_result=False,
                        return_logits_vocab=return_logits_vocab,
                        end_token=self._eos_token,
                        callback=callback,
                        asynchronous=side_by_side,
                        **options,
                    )
                )
                if not side_by_side or len(running) > workers:  # results hold the logits of every token: few may wait
                    yield _results(running.popleft())
            while running:
                yield _results(running.popleft())
        except (RuntimeError, ValueError) as exc:
            raise EngineError(f"CTranslate2 failed: {exc}") from exc
        finally:
            # CTranslate2's thread keeps what a callback raised, with this frame in its traceback: a generator that
            # stood here would outlive the engine.
            del generator
            if side_by_side:
                give_back()


class _Follower:
    """Follows the generations of one batch, token by token: hands on their text, and stops them."""

    def __init__(
        self,
        batch: Sequence[int],
        watchers: Sequence[SlotWatcher],  # of all prompts
        decode: Callable[[list[int]], str],
        stop: Sequence[str],
        on_text: OnText | None,
    ) -> None:
        self._batch = batch
        self._watchers = watchers
        self._decode = decode
        self._stop = tuple(stop)
        self._on_text = on_text
        self._ids: dict[int, list[int]] = defaultdict(list)
        self._sent: dict[int, int] = defaultdict(int)
        self.stopped: set[int] = set()

    def __call__(self, step: Any) -> bool:
        number = self._batch[step.batch_id]
        ids = self._ids[number]
        ids.append(step.token_id)
        if self._on_text is not None or self._stop:
            text = self._decode(ids)
            # A character may be cut between two tokens; it is whole once the next one has come.
            if self._on_text is not None and not text.endswith("\ufffd") and len(text) > self._sent[number]:
                self._on_text(number, text[self._sent[number] :])
                self._sent[number] = len(text)
            if any(word in text for word in self._stop):
                self.stopped.add(number)
        if self._watchers[number].is_over(ids):
            self.stopped.add(number)
        return number in self.stopped


def _results(batch: list[Any]) -> list[Any]:
    """The results of a batch, waited for if it still runs."""
    return [one.result() if hasattr(one, "result") else one for one in batch]


def _batches(queries: Sequence[Query], writing: Collection[int] = ()) -> Iterator[list[int]]:
    """Numbers of the queries in runs that share their head and have one length.

    Of a batch of mixed lengths CTranslate2 reads at once only up to the shortest prompt, and the rest step by step.
    That rounds differently in int8, so that an item's neighbours would change its score.

    Args:
        queries: of the prompts.
        writing: numbers of those that write before they answer. They come first: the others are short, and fill the
            time that the last long ones take.
    """

    def shape(number: int) -> tuple[bool, list[int], int]:
        head, rest = queries[number]
        return number not in writing, head, len(rest)

    for (answered, head, length), run in groupby(sorted(range(len(queries)), key=shape), key=shape):
        numbers = list(run)
        size = max(1, (_READ_TOKENS if answered else _WRITE_TOKENS) // (len(head) + length))
        for start in range(0, len(numbers), size):
            yield numbers[start : start + size]


def _log_softmax(logits: Any) -> NDArray[np.float32]:
    row: NDArray[np.float32] = np.array(logits, dtype=np.float32)
    row -= row.max()
    row -= np.log(np.exp(row).sum())
    return row
