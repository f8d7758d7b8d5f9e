"""The reference: any causal language model that transformers loads, with a PEFT adapter or merged, on CPU or GPU."""

from __future__ import annotations

import inspect
import os
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardreasoner_moderation.checkpoint import Checkpoint, read_gguf
from guardreasoner_moderation.engines.base import (
    Generation,
    OnText,
    Sampling,
    SlotReading,
    SlotWatcher,
    first_tokens,
    score_words,
)
from guardreasoner_moderation.engines.encoding import SpanEncoder, apply_chat_template
from guardreasoner_moderation.engines.fitting import refuse_other_vocabulary, refuse_unfit, refuse_unknown_device
from guardreasoner_moderation.errors import (
    EngineError,
    IncompatibleModelError,
    MissingDependencyError,
    ModelNotFoundError,
    UnsafeModelError,
    WeightsError,
    harmless,
)
from guardreasoner_moderation.prompts import Prompt
from guardreasoner_moderation.telemetry import switch_off

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM

_BATCH_TOKENS = 8192  # padded tokens of one forward pass


class TransformersEngine:
    """Runs a model with torch."""

    name = "transformers"

    def __init__(
        self,
        folder: Path,
        *,
        base: str | Path | None = None,
        quantization: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
    ) -> None:
        """Loads a merged model, or an adapter on its base.

        Args:
            folder: a Hugging Face model folder, or a PEFT adapter's.
            base: of an adapter: short name, folder or repository id; None for a merged model.
            quantization: "4bit" or "8bit" with bitsandbytes.
            device: "cpu", "cuda:0", ... or "auto"; default: the GPU if there is one.
            dtype: "bfloat16", "float16" or "float32".

        Raises:
            MissingDependencyError, IncompatibleModelError, ModelNotFoundError, WeightsError
        """
        switch_off()
        try:
            import torch
            import transformers  # noqa: F401
        except ImportError as exc:
            raise MissingDependencyError("the transformers engine", "transformers") from exc
        self._torch = torch
        self._lock = threading.Lock()
        is_adapter = (folder / "adapter_config.json").exists()
        if is_adapter and base is None:
            raise IncompatibleModelError(f"{folder} is an adapter that names no base model; pass base=")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        refuse_unknown_device(torch, device)
        dtype = dtype or ("float32" if device == "cpu" else "bfloat16")
        options = _loading_options(torch, quantization, device, dtype)
        source = base if is_adapter and base is not None else folder
        model, tokenizer = _load_base(source, folder, options)
        if is_adapter:
            model = _add_adapter(model, folder)
        if "device_map" not in options:
            model = model.to(device)
        self._model: Any = model.eval()
        # Newer releases call the state of what was read by another name.
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        arguments = inspect.signature(inner.forward).parameters
        self._cache_name = "cache" if "cache" in arguments else "past_key_values"
        self._tokenizer = tokenizer
        self._encoder = SpanEncoder.of(tokenizer)
        self._end_ids = _end_ids(model, tokenizer)
        self.context_tokens: int = getattr(model.config, "max_position_embeddings", 1 << 20)
        size = model.get_input_embeddings().weight.shape[0]
        if len(tokenizer) > size:
            raise IncompatibleModelError(
                f"the tokenizer has {len(tokenizer)} tokens and the model {size}: they do not belong together"
            )

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
        encoded = [self._encoder.encode_to_fit(prompt, max_new_tokens, self.context_tokens) for prompt in prompts]
        generations: dict[int, Generation] = {}
        with self._lock, self._torch.inference_mode():
            if sampling is not None:
                self._torch.manual_seed(sampling.seed)
            for batch in self._batches(encoded, max_new_tokens):
                writers = [
                    _Writer(
                        number,
                        SlotWatcher(
                            prompts[number], firsts, self._encoder.decode, last_words[number] if last_words else None
                        ),
                        self._encoder,
                        firsts,
                        stop,
                        on_text,
                        self._end_ids,
                    )
                    for number in batch
                ]
                self._write([encoded[number] for number in batch], writers, max_new_tokens, sampling)
                for number, writer in zip(batch, writers, strict=True):
                    generations[number] = writer.generation(len(encoded[number]))
        return [generations[number] for number in range(len(prompts))]

    def score(self, prompts: Sequence[Prompt], words: Sequence[Sequence[str]]) -> list[dict[str, float]]:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.score`."""
        encoded = [self._encoder.encode_to_fit(prompt, 0, self.context_tokens) for prompt in prompts]

        def read(points: list[tuple[int, tuple[int, ...]]]) -> list[torch.Tensor]:
            queries = [[*encoded[number], *prefix] for number, prefix in points]
            rows: dict[int, torch.Tensor] = {}
            with self._lock, self._torch.inference_mode():
                for batch in self._batches(queries, 0):
                    logits, _ = self._read([queries[index] for index in batch])
                    rows.update(zip(batch, logits.log_softmax(-1), strict=True))
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
        return apply_chat_template(self._tokenizer, messages)

    def tokenizer_json(self) -> str:
        """The tokenizer, for a process that cuts texts and does not run the model."""
        return self._encoder.to_json()

    def close(self) -> None:
        """See :meth:`guardreasoner_moderation.engines.base.Engine.close`."""
        with self._lock:
            self._model = None

    def _batches(self, queries: Sequence[Sequence[int]], room: int) -> list[list[int]]:
        """Numbers of the queries, those of a like length together, at most _BATCH_TOKENS padded tokens in a batch."""
        batches: list[list[int]] = []
        for number in sorted(range(len(queries)), key=lambda index: len(queries[index])):
            width = len(queries[number]) + room
            if not batches or (len(batches[-1]) + 1) * width > _BATCH_TOKENS:
                batches.append([])
            batches[-1].append(number)
        return batches

    def _read(self, queries: Sequence[Sequence[int]]) -> tuple[torch.Tensor, Any]:
        """Logits (queries, vocabulary) after each query, in float32, and the state to go on from."""
        torch = self._torch
        if self._model is None:
            raise EngineError("this engine is closed")
        width = max(map(len, queries))
        ids = torch.tensor([[0] * (width - len(query)) + list(query) for query in queries])
        mask = torch.tensor([[0] * (width - len(query)) + [1] * len(query) for query in queries])
        return self._step(ids, mask, None)

    def _step(self, ids: torch.Tensor, mask: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        if self._model is None:
            raise EngineError("this engine is closed")
        device = self._model.get_input_embeddings().weight.device
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        output = self._model(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            position_ids=positions.to(device),
            use_cache=True,
            logits_to_keep=1,
            **{self._cache_name: state},
        )
        return output.logits[:, -1].float().cpu(), getattr(output, self._cache_name)

    def _write(
        self, queries: Sequence[Sequence[int]], writers: Sequence[_Writer], budget: int, sampling: Sampling | None
    ) -> None:
        torch = self._torch
        width = max(map(len, queries))
        mask = torch.tensor([[0] * (width - len(query)) + [1] * len(query) for query in queries])
        logits, state = self._read(queries)
        for step in range(budget):
            chosen = _choose(torch, logits, sampling)
            for writer, token, row in zip(writers, chosen.tolist(), logits, strict=True):
                writer.add(token, row)
            if all(writer.ended for writer in writers) or step + 1 == budget:
                return
            mask = torch.cat([mask, torch.ones(len(queries), 1, dtype=mask.dtype)], dim=1)
            logits, state = self._step(chosen.unsqueeze(1), mask, state)


class _Writer:
    """One generation as it grows."""

    def __init__(
        self,
        number: int,
        watcher: SlotWatcher,
        encoder: SpanEncoder,
        firsts: Mapping[str, Mapping[str, int]],
        stop: Sequence[str],
        on_text: OnText | None,
        end_ids: frozenset[int],
    ) -> None:
        self._number = number
        self._encoder = encoder
        self._firsts = firsts
        self._watcher = watcher
        self._stop = tuple(stop)
        self._on_text = on_text
        self._end_ids = end_ids
        self._ids: list[int] = []
        self._sent = 0
        self._finished = False
        self._slots: dict[str, SlotReading] = {}
        self.ended = False

    def add(self, token: int, logits: torch.Tensor) -> None:
        """Takes the next token, unless the generation has ended."""
        if self.ended:
            return
        heading = self._watcher.heading_at(self._ids) if self._firsts else None
        if heading is not None:
            row = logits.log_softmax(-1)
            self._slots[heading] = {word: float(row[first]) for word, first in self._firsts[heading].items()}
        if token in self._end_ids:
            self.ended = self._finished = True
            return
        self._ids.append(token)
        self.ended = self._watcher.is_over(self._ids)
        if self._on_text is None and not self._stop:
            return
        text = self._encoder.decode(self._ids)
        if self._on_text is not None and not text.endswith("\ufffd") and len(text) > self._sent:
            self._on_text(self._number, text[self._sent :])
            self._sent = len(text)
        self.ended = self.ended or any(word in text for word in self._stop)

    def generation(self, prompt_tokens: int) -> Generation:
        """What was written."""
        return Generation(
            text=self._watcher.text(self._ids),
            prompt_tokens=prompt_tokens,
            completion_tokens=len(self._ids),
            finished=self._finished,
            slots=self._slots,
        )


def llama_from_checkpoint(checkpoint: Checkpoint) -> LlamaForCausalLM:
    """A transformers model, float32, that shares the checkpoint's arrays."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = checkpoint.shape
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.context,
        rms_norm_eps=shape.norm_epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=True,
        bos_token_id=checkpoint.tokens.index(checkpoint.bos_token),
        eos_token_id=checkpoint.tokens.index(checkpoint.eos_token),
    )
    state = {name: torch.from_numpy(array) for name, array in checkpoint.tensors.items()}
    model: Any = LlamaForCausalLM(config)
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    llama: LlamaForCausalLM = model.eval()
    return llama


def _load_base(source: str | Path, folder: Path, options: Mapping[str, Any]) -> tuple[Any, Any]:
    """The model and its tokenizer; transformers types neither closely."""
    import transformers
    from safetensors import SafetensorError

    from guardreasoner_moderation import weights

    if str(source) in weights.BASES:
        base = weights.BASES[str(source)]
        checkpoint = read_gguf(weights.base_file(str(source)))
        model: Any = llama_from_checkpoint(checkpoint)
        model.name_or_path = base.source
        fast: Any = transformers.PreTrainedTokenizerFast
        tokenizer = fast(
            tokenizer_object=checkpoint.tokenizer, bos_token=checkpoint.bos_token, eos_token=checkpoint.eos_token
        )
        return model, tokenizer
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            str(source), use_safetensors=True, trust_remote_code=False, **options
        )
        # An adapter may bring its own tokenizer, with the chat template it was trained in.
        own = folder if (folder / "tokenizer_config.json").exists() else source
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(own), trust_remote_code=False)
    except OSError as exc:
        if os.path.isdir(source):  # of os.path: Path raises OSError for names that are too long
            raise IncompatibleModelError(f"{source} is not a whole model folder: {exc}") from exc
        raise ModelNotFoundError(
            f"the base model {str(source)!r} could not be loaded: not a folder, nor to be had from the Hugging Face "
            f"Hub ({type(exc).__name__}). Check its name and the network, log in if it is gated, or pass base=FOLDER."
        ) from harmless(exc)
    except (ValueError, KeyError, RuntimeError, SafetensorError) as exc:
        if "trust_remote_code" in str(exc):
            raise UnsafeModelError(
                f"{source} needs code that comes with it, and such code is never run here. Take a model of a kind that "
                "transformers knows, or run it on a server of your own and pass server="
            ) from exc
        raise IncompatibleModelError(f"{source} cannot be loaded: {exc}") from exc
    if own != source:
        refuse_other_vocabulary(tokenizer, folder, str(source))
    if not getattr(tokenizer, "is_fast", False):
        raise IncompatibleModelError(f"{source} has no fast tokenizer (tokenizer.json); convert it with transformers")
    return model, tokenizer


def _add_adapter(model: Any, folder: Path) -> Any:
    try:
        from peft import PeftModel
    except ImportError as exc:
        raise MissingDependencyError("loading an adapter", "transformers") from exc
    from safetensors import SafetensorError

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Found missing adapter keys")  # an error, which follows
            adapted: Any = PeftModel.from_pretrained(model, str(folder))
        refuse_unfit(adapted, folder)
        # Merged weights are as fast as the base; quantised ones stay apart, as merging would round them again.
        if getattr(model, "quantization_method", None) is None:
            adapted = adapted.merge_and_unload(safe_merge=True)
    except (RuntimeError, ValueError, KeyError, TypeError, OSError, SafetensorError) as exc:
        raise IncompatibleModelError(f"the adapter {folder} does not fit the base model: {exc}") from exc
    return adapted


def _loading_options(torch: Any, quantization: str | None, device: str, dtype: str) -> dict[str, Any]:
    options: dict[str, Any] = {"dtype": getattr(torch, dtype)}
    if quantization is not None:
        try:
            import bitsandbytes  # noqa: F401
            import transformers
        except ImportError as exc:
            raise MissingDependencyError(f"{quantization} loading", "transformers") from exc
        if not torch.cuda.is_available():
            raise WeightsError(f"{quantization} loading needs a CUDA GPU; leave quantization out on this machine")
        config: Any = transformers.BitsAndBytesConfig
        options["quantization_config"] = (
            config(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=getattr(torch, dtype))
            if quantization == "4bit"
            else config(load_in_8bit=True)
        )
    if quantization is not None or device == "auto":
        options["device_map"] = device if device != "cuda" else {"": 0}
    return options


def _end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that ends an answer: the tokenizer's, and those of the model's generation settings."""
    ids = getattr(model.generation_config, "eos_token_id", None)
    listed = ids if isinstance(ids, list) else [ids]
    return frozenset(token for token in (*listed, tokenizer.eos_token_id) if token is not None)


def _choose(torch: Any, logits: Any, sampling: Sampling | None) -> Any:
    """(queries,) next tokens: the likeliest, or drawn from the nucleus (arXiv 1904.09751)."""
    if sampling is None:
        return logits.argmax(-1)
    ordered, order = (logits / sampling.temperature).softmax(-1).sort(-1, descending=True)
    ordered = torch.where(ordered.cumsum(-1) - ordered < sampling.top_p, ordered, 0.0)
    return order.gather(1, torch.multinomial(ordered, 1)).squeeze(1)
