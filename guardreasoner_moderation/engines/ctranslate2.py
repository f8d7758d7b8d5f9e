"""The CPU default: CTranslate2, int8, no torch.

A Llama-type GGUF base and a LoRA adapter are merged in numpy and written once in CTranslate2's own format
(the field names are those of ctranslate2/converters/transformers.py, class LlamaLoader).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from guardreasoner_moderation.checkpoint import Checkpoint, read_json
from guardreasoner_moderation.engines.base import (
    Generation,
    OnText,
    Sampling,
    SlotReading,
    SlotWatcher,
    first_tokens,
    score_words,
)
from guardreasoner_moderation.engines.encoding import SpanEncoder
from guardreasoner_moderation.errors import EngineError
from guardreasoner_moderation.prompts import Prompt

if TYPE_CHECKING:
    import ctranslate2

_BATCH = 16


def convert(checkpoint: Checkpoint, folder: Path, *, quantization: str | None = "int8") -> None:
    """Writes a checkpoint in CTranslate2's format, with its tokenizer, into an empty folder.

    Args:
        checkpoint: the weights; an adapter is already added.
        folder: where to write.
        quantization: "int8", or None for float32.
    """
    from ctranslate2.specs import TransformerDecoderModelSpec, common_spec

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
    spec.decoder.embeddings.weight = embedding
    spec.decoder.projection.weight = embedding
    spec.decoder.layer_norm.gamma = tensors["model.norm.weight"]
    for number, layer in enumerate(spec.decoder.layer):
        name = f"model.layers.{number}"
        layer.self_attention.layer_norm.gamma = tensors[f"{name}.input_layernorm.weight"]
        layer.ffn.layer_norm.gamma = tensors[f"{name}.post_attention_layernorm.weight"]
        layer.self_attention.linear[0].weight = np.concatenate(
            [tensors[f"{name}.self_attn.{part}_proj.weight"] for part in "qkv"]
        )
        layer.self_attention.linear[1].weight = tensors[f"{name}.self_attn.o_proj.weight"]
        layer.ffn.linear_0.weight = tensors[f"{name}.mlp.gate_proj.weight"]
        layer.ffn.linear_0_noact.weight = tensors[f"{name}.mlp.up_proj.weight"]
        layer.ffn.linear_1.weight = tensors[f"{name}.mlp.down_proj.weight"]
    spec.register_vocabulary(checkpoint.tokens)
    spec.config.bos_token = checkpoint.bos_token
    spec.config.eos_token = checkpoint.eos_token
    spec.config.unk_token = checkpoint.tokens[0]
    spec.config.layer_norm_epsilon = shape.norm_epsilon
    spec.validate()
    spec.optimize(quantization=quantization)
    spec.save(str(folder))
    checkpoint.tokenizer.save(str(folder / "tokenizer.json"))
    about = {"eos_token": checkpoint.eos_token, "context_tokens": shape.context, "tokens": checkpoint.tokens}
    (folder / "engine.json").write_text(json.dumps(about), encoding="utf-8")


class CTranslate2Engine:
    """Runs a folder written by :func:`convert`."""

    name = "ctranslate2"

    def __init__(self, folder: Path, *, device: str = "cpu", threads: int = 0) -> None:
        import ctranslate2
        from tokenizers import Tokenizer

        about = read_json(folder / "engine.json")
        self._tokens: list[str] = about["tokens"]
        self._eos_token: str = about["eos_token"]
        self.context_tokens: int = about["context_tokens"]
        self._encoder = SpanEncoder(Tokenizer.from_file(str(folder / "tokenizer.json")))
        try:
            self._generator: ctranslate2.Generator | None = ctranslate2.Generator(
                str(folder), device=device, intra_threads=threads
            )
        except (RuntimeError, ValueError) as exc:
            raise EngineError(f"CTranslate2 cannot load {folder}: {exc}") from exc

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        slots: Mapping[str, Sequence[str]] | None = None,
        sampling: Sampling | None = None,
        on_text: OnText | None = None,
    ) -> list[Generation]:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.generate`."""
        slots = slots or {}
        firsts = first_tokens(self._encoder, slots)
        encoded = [self._encode_for_call(prompt, max_new_tokens) for prompt in prompts]
        generations: dict[int, Generation] = {}
        for batch in _batches(encoded):
            watchers = [SlotWatcher(prompts[number], tuple(slots), self._encoder.decode) for number in batch]
            follow = _Follower(batch, self._encoder.decode, stop, on_text) if stop or on_text else None
            results = self._run(
                [encoded[number] for number in batch],
                max_length=max_new_tokens,
                return_logits_vocab=bool(slots),
                callback=follow,
                sampling=sampling,
            )
            for number, watcher, result in zip(batch, watchers, results, strict=True):
                ids = result.sequences_ids[0]
                readings: dict[str, SlotReading] = {}
                if slots:
                    for step, logits in enumerate(result.logits[0]):
                        heading = watcher.heading_at(ids[:step])
                        if heading is not None:
                            row = _log_softmax(logits)
                            readings[heading] = {word: float(row[first]) for word, first in firsts[heading].items()}
                generations[number] = Generation(
                    text=self._encoder.decode(ids),
                    prompt_tokens=sum(map(len, encoded[number])),
                    completion_tokens=len(ids),
                    finished=len(ids) < max_new_tokens and not (follow and number in follow.stopped),
                    slots=readings,
                )
        return [generations[number] for number in range(len(prompts))]

    def score(self, prompts: Sequence[Prompt], words: Sequence[Sequence[str]]) -> list[dict[str, float]]:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.score`."""
        encoded = [self._encode_for_call(prompt, 0) for prompt in prompts]

        def read(points: list[tuple[int, tuple[int, ...]]]) -> list[NDArray[np.float32]]:
            queries = [(encoded[number][0], [*encoded[number][1], *prefix]) for number, prefix in points]
            rows: dict[int, NDArray[np.float32]] = {}
            for batch in _batches(queries):
                results = self._run([queries[index] for index in batch], max_length=1, return_logits_vocab=True)
                rows.update(
                    (index, _log_softmax(result.logits[0][0])) for index, result in zip(batch, results, strict=True)
                )
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

    def close(self) -> None:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.close`."""
        self._generator = None

    def _encode_for_call(self, prompt: Prompt, max_new_tokens: int) -> tuple[list[int], list[int]]:
        """Token ids of the first span, whose state CTranslate2 keeps, and of the rest."""
        head = self._encoder.encode_text(prompt.spans[0].text, trusted=prompt.spans[0].trusted)
        rest = [
            token for span in prompt.spans[1:] for token in self._encoder.encode_text(span.text, trusted=span.trusted)
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
        queries: Sequence[tuple[list[int], list[int]]],
        *,
        max_length: int,
        return_logits_vocab: bool,
        callback: Callable[[Any], bool] | None = None,
        sampling: Sampling | None = None,
    ) -> list[Any]:
        import ctranslate2

        if self._generator is None:
            raise EngineError("this engine is closed")
        options: dict[str, Any] = {}
        if sampling is not None:
            ctranslate2.set_random_seed(sampling.seed)
            options = {
                "sampling_topk": 0,
                "sampling_topp": sampling.top_p,
                "sampling_temperature": sampling.temperature,
            }
        head = queries[0][0]
        try:
            results: list[Any] = self._generator.generate_batch(
                [[self._tokens[token] for token in rest] for _, rest in queries],
                static_prompt=[self._tokens[token] for token in head] or None,
                max_length=max_length,
                include_prompt_in_result=False,
                return_logits_vocab=return_logits_vocab,
                end_token=self._eos_token,
                callback=callback,
                **options,
            )
        except (RuntimeError, ValueError) as exc:
            raise EngineError(f"CTranslate2 failed: {exc}") from exc
        return results


class _Follower:
    """Follows the generations of one batch, token by token: hands on their text, and stops them."""

    def __init__(
        self, batch: Sequence[int], decode: Callable[[list[int]], str], stop: Sequence[str], on_text: OnText | None
    ) -> None:
        self._batch = batch
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
        text = self._decode(ids)
        # A character may be cut between two tokens; it is whole once the next one has come.
        if self._on_text is not None and not text.endswith("\ufffd") and len(text) > self._sent[number]:
            self._on_text(number, text[self._sent[number] :])
            self._sent[number] = len(text)
        if any(word in text for word in self._stop):
            self.stopped.add(number)
            return True
        return False


def _batches(queries: Sequence[tuple[list[int], list[int]]]) -> Iterator[list[int]]:
    """Numbers of the queries in runs that share their head and have one length.

    Of a batch of mixed lengths CTranslate2 reads at once only up to the shortest prompt, and the rest step by step.
    That rounds differently in int8, so that an item's neighbours would change its score.
    """

    def shape(number: int) -> tuple[list[int], int]:
        head, rest = queries[number]
        return head, len(rest)

    for _, run in groupby(sorted(range(len(queries)), key=shape), key=shape):
        numbers = list(run)
        for start in range(0, len(numbers), _BATCH):
            yield numbers[start : start + _BATCH]


def _log_softmax(logits: Any) -> NDArray[np.float32]:
    row: NDArray[np.float32] = np.array(logits, dtype=np.float32)
    row -= row.max()
    row -= np.log(np.exp(row).sum())
    return row
