"""vLLM in this process, for throughput on GPUs. Linux with CUDA or ROCm.

Written against the source of vLLM 0.33, and tested with a stand-in for it alone: this project's tests have no GPU, so
nothing here has run yet. A server of vLLM's and the openai engine need less trust in this file (``docs/engines.md``).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from guardreasoner_moderation import weights
from guardreasoner_moderation.checkpoint import read_json
from guardreasoner_moderation.checks import whole_number
from guardreasoner_moderation.engines.base import (
    Generation,
    OnText,
    Sampling,
    SlotReading,
    SlotWatcher,
    first_tokens,
    score_words,
    word_tokens,
)
from guardreasoner_moderation.engines.encoding import SpanEncoder, apply_chat_template
from guardreasoner_moderation.errors import (
    EngineError,
    IncompatibleModelError,
    InputError,
    MissingDependencyError,
    UnsafeModelError,
)
from guardreasoner_moderation.prompts import Prompt
from guardreasoner_moderation.telemetry import switch_off

_QUANTIZATIONS = {"4bit": "bitsandbytes", "8bit": "fp8"}  # vLLM's names


class VllmEngine:
    """Runs a merged model, or a LoRA adapter on its base."""

    name = "vllm"

    def __init__(
        self,
        folder: Path,
        *,
        base: str | Path | None = None,
        quantization: str | None = None,
        dtype: str | None = None,
        **options: Any,
    ) -> None:
        """Loads a model.

        Args:
            folder: a Hugging Face model folder, or a PEFT adapter's.
            base: of an adapter: folder or repository id.
            quantization: "4bit" (bitsandbytes) or "8bit" (fp8), as the model is loaded.
            dtype: "bfloat16", "float16" or "float32"; default: the model's own.
            **options: of ``vllm.LLM``, such as ``tensor_parallel_size`` or ``max_model_len``.

        Raises:
            MissingDependencyError, IncompatibleModelError
            UnsafeModelError: the options ask for a repository's code.
        """
        switch_off()
        try:
            from vllm import LLM
            from vllm.lora.request import LoRARequest
        except ImportError as exc:
            raise MissingDependencyError("the vllm engine", "vllm") from exc
        source: str | Path = folder
        self._lora: Any = None
        if (folder / "adapter_config.json").exists():
            if base is None or str(base) in weights.BASES:
                raise IncompatibleModelError(
                    f"vLLM cannot load {base or 'a base that no file names'!s}: pass base=, or write a merged folder "
                    "with training/export.py"
                )
            source = base
            self._lora = LoRARequest("guard", 1, str(folder))
            rank = _rank(whole_number("r", read_json(folder / "adapter_config.json").get("r")))
            options = {"enable_lora": True, "max_lora_rank": rank, **options}
        if options.get("trust_remote_code"):
            raise UnsafeModelError("the code of a repository is never run here; leave trust_remote_code out")
        if quantization is not None:
            options["quantization"] = _QUANTIZATIONS[quantization]
        try:
            self._llm: Any = LLM(model=str(source), dtype=dtype or "auto", enable_prefix_caching=True, **options)
        except (ValueError, RuntimeError, OSError) as exc:
            raise IncompatibleModelError(f"vLLM cannot load {source}: {exc}") from exc
        self._lock = threading.Lock()  # vllm.LLM takes one batch at a time
        self._tokenizer: Any = self._llm.get_tokenizer()
        self._encoder = SpanEncoder.of(self._tokenizer)
        self.context_tokens: int = self._llm.model_config.max_model_len

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
        """See :meth:`guardreasoner_moderation.engines.base.Engine.generate`.

        ``vllm.LLM`` does not stream: ``on_text`` gets each text whole, when all are written.
        """
        firsts = first_tokens(self._encoder, slots or {})
        watched = sorted({token for words in firsts.values() for token in words.values()})
        random: dict[str, Any] = {"temperature": 0.0}
        if sampling is not None:
            random = {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": sampling.seed}
        options = {
            "max_tokens": max_new_tokens,
            "stop": list(stop) or None,
            "include_stop_str_in_output": True,
            "logprob_token_ids": watched or None,
            **random,
        }
        generations = []
        encoded = [self._encoder.encode_to_fit(prompt, max_new_tokens, self.context_tokens) for prompt in prompts]
        for number, output in enumerate(self._run(encoded, [options] * len(encoded))):
            watcher = SlotWatcher(prompts[number], firsts, self._encoder.decode)
            ids = list(output.token_ids)
            readings: dict[str, SlotReading] = {}
            for step, row in enumerate(output.logprobs or ()):
                heading = watcher.heading_at(ids[:step])
                if heading is not None:
                    readings[heading] = {word: row[first].logprob for word, first in firsts[heading].items()}
            if on_text is not None:
                on_text(number, output.text)
            # vLLM stops at a stop text and at an end token alike; its reason is the text, or a token id or nothing.
            finished = output.finish_reason == "stop" and not isinstance(output.stop_reason, str)
            generations.append(Generation(output.text, len(encoded[number]), len(ids), finished, readings))
        return generations

    def score(self, prompts: Sequence[Prompt], words: Sequence[Sequence[str]]) -> list[dict[str, float]]:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.score`."""
        encoded = [self._encoder.encode_to_fit(prompt, 1, self.context_tokens) for prompt in prompts]

        def read(points: list[tuple[int, tuple[int, ...]]]) -> list[dict[int, float]]:
            queries, options = [], []
            for number, prefix in points:
                tokens = word_tokens(self._encoder, words[number]).values()
                queries.append([*encoded[number], *prefix])
                watched = sorted({ids[len(prefix)] for ids in tokens if len(ids) > len(prefix)})
                options.append({"max_tokens": 1, "temperature": 0.0, "logprob_token_ids": watched})
            outputs = self._run(queries, options)
            return [{token: entry.logprob for token, entry in output.logprobs[0].items()} for output in outputs]

        return score_words(self._encoder, words, read)

    def encode(self, text: str) -> list[tuple[int, int]]:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.encode`."""
        return self._encoder.offsets(text)

    def count_tokens(self, prompt: Prompt) -> int:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.count_tokens`."""
        return len(self._encoder.encode(prompt))

    def chat_template(self, messages: list[dict[str, str]]) -> str:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.chat_template`."""
        return apply_chat_template(self._tokenizer, messages)

    def close(self) -> None:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.close`."""
        with self._lock:
            self._llm = None

    def _run(self, queries: Sequence[list[int]], options: Sequence[Mapping[str, Any]]) -> list[Any]:
        """What is written after each query, with the log-probabilities of exactly the tokens that were asked for."""
        from vllm import SamplingParams

        with self._lock:
            if self._llm is None:
                raise EngineError("this engine is closed")
            try:
                results = self._llm.generate(
                    [{"prompt_token_ids": query} for query in queries],
                    [SamplingParams(**one) for one in options],
                    lora_request=self._lora,
                    use_tqdm=False,
                )
            except (ValueError, RuntimeError) as exc:
                raise EngineError(f"vLLM failed: {exc}") from exc
        return [result.outputs[0] for result in results]


def _rank(rank: int) -> int:
    """The smallest rank that vLLM can be set up for which holds an adapter's."""
    ranks = (8, 16, 32, 64, 128, 256, 320, 512)
    fitting = [size for size in ranks if size >= rank]
    if not fitting:
        raise InputError(f"vLLM takes adapters up to rank {ranks[-1]}, found {rank}; merge it with peft")
    return fitting[0]
