"""A Llama-type checkpoint as plain numpy arrays under Hugging Face names, read without torch.

GGUF stores the rows of the query and key projections in the order of llama.cpp's rotary embedding (pairs of neighbours)
where Hugging Face uses two halves; :func:`_unpermute` undoes what llama.cpp's convert_hf_to_gguf.py (``permute``) did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from guardreasoner_moderation import strict_json
from guardreasoner_moderation.checks import finite_number, whole_number
from guardreasoner_moderation.errors import IncompatibleModelError, InputError, brief, shown

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_GGUF_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_CONTROL_TOKEN = 3  # token type of llama.cpp's gguf format


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """Sizes of a Llama-type decoder."""

    layers: int
    heads: int
    kv_heads: int
    hidden: int
    feed_forward: int
    vocabulary: int
    context: int
    rope_theta: float
    norm_epsilon: float


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights, float32, each (out, in) as in torch; the output projection is the transposed embedding."""

    shape: LlamaShape
    tensors: dict[str, NDArray[np.float32]]
    tokens: list[str]
    tokenizer: Tokenizer
    bos_token: str
    eos_token: str


def read_gguf(path: Path) -> Checkpoint:
    """Reads and dequantises a Llama-type GGUF file with tied embeddings and a byte-level BPE vocabulary.

    Raises:
        IncompatibleModelError: the file is damaged, or of another architecture.
    """
    from gguf import GGUFReader
    from gguf.quants import dequantize

    try:
        reader = GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, IndexError, KeyError, OSError, OverflowError, MemoryError) as exc:
        raise IncompatibleModelError(f"{path} is not a readable GGUF file: {brief(str(exc))}") from exc
    architecture = fields.get("general.architecture")
    if architecture != "llama" or fields.get("tokenizer.ggml.pre") != "smollm":
        raise IncompatibleModelError(
            f"{path} holds a {architecture!r} model with the pre-tokenizer {fields.get('tokenizer.ggml.pre')!r}; the "
            "conversion to CTranslate2 reads Llama-type models with SmolLM's tokenizer. Use the transformers engine."
        )
    shape = LlamaShape(
        layers=fields["llama.block_count"],
        heads=fields["llama.attention.head_count"],
        kv_heads=fields["llama.attention.head_count_kv"],
        hidden=fields["llama.embedding_length"],
        feed_forward=fields["llama.feed_forward_length"],
        vocabulary=fields["llama.vocab_size"],
        context=fields["llama.context_length"],
        rope_theta=fields["llama.rope.freq_base"],
        norm_epsilon=fields["llama.attention.layer_norm_rms_epsilon"],
    )
    tensors: dict[str, NDArray[np.float32]] = {}
    for tensor in reader.tensors:
        array = np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)  # a copy: unquantised is mapped
        name = _hugging_face_name(tensor.name)
        if name.endswith("q_proj.weight"):
            array = _unpermute(array, shape.heads)
        elif name.endswith("k_proj.weight"):
            array = _unpermute(array, shape.kv_heads)
        tensors[name] = array
    if "lm_head.weight" in tensors:
        raise IncompatibleModelError(f"{path} has an output projection of its own; only tied embeddings are read")
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    rows = len(tensors["model.embed_tokens.weight"])
    if not len(tokens) == shape.vocabulary == rows:
        raise IncompatibleModelError(
            f"{path} has {len(tokens)} tokens, {rows} embeddings and speaks of {shape.vocabulary} tokens: it is damaged"
        )
    control = [
        token for token, kind in zip(tokens, fields["tokenizer.ggml.token_type"], strict=True) if kind == _CONTROL_TOKEN
    ]
    return Checkpoint(
        shape=shape,
        tensors=tensors,
        tokens=tokens,
        tokenizer=build_tokenizer(tokens, fields["tokenizer.ggml.merges"], control),
        bos_token=tokens[fields["tokenizer.ggml.bos_token_id"]],
        eos_token=tokens[fields["tokenizer.ggml.eos_token_id"]],
    )


def build_tokenizer(tokens: list[str], merges: list[str], control: list[str]) -> Tokenizer:
    """SmolLM2's tokenizer from its vocabulary: byte-level BPE, digits split one by one.

    Control tokens are recognised in text; ``tokenizer.encode_special_tokens = True`` turns that off.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    pairs = []
    for merge in merges:
        left, _, right = merge.partition(" ")
        pairs.append((left, right))
    tokenizer = Tokenizer(BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return tokenizer


def add_lora(checkpoint: Checkpoint, adapter: Path) -> None:
    """Adds a PEFT LoRA adapter to the weights in place: W += (alpha / r) B A (arXiv 2106.09685, section 4.1).

    Args:
        checkpoint: the base weights.
        adapter: folder with ``adapter_config.json`` and ``adapter_model.safetensors``.

    Raises:
        IncompatibleModelError: the adapter is not a plain LoRA, or does not fit these weights.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    config = read_json(adapter / "adapter_config.json")
    weights = adapter / "adapter_model.safetensors"
    unsupported = [
        key
        for key in ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out")
        if config.get(key)
    ]
    if config.get("peft_type") != "LORA" or unsupported:
        what = f"with {unsupported[0]}" if unsupported else f"of type {shown(config.get('peft_type'))}"
        raise IncompatibleModelError(f"{adapter} is an adapter {what}; use engine='transformers' or a plain LoRA")
    try:
        rank = whole_number("r", config.get("r"))
        alpha = finite_number("lora_alpha", config.get("lora_alpha"))
    except InputError as exc:
        raise IncompatibleModelError(f"{adapter / 'adapter_config.json'}: {exc}") from exc
    scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    try:
        deltas = load_file(weights)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as exc:  # KeyError: a type that numpy lacks
        raise IncompatibleModelError(f"{weights} cannot be read: {brief(str(exc))}") from exc
    if not deltas:
        raise IncompatibleModelError(f"{weights} holds no weights")
    for target, down, up in _lora_pairs(deltas, adapter):
        if target not in checkpoint.tensors:
            raise IncompatibleModelError(f"{adapter} changes {target}, which the base model does not have")
        base = checkpoint.tensors[target]
        if (up.shape[0], down.shape[1]) != base.shape:
            raise IncompatibleModelError(
                f"{adapter} was trained for another base: {target} is {base.shape}, "
                f"the adapter's change is {(up.shape[0], down.shape[1])}"
            )
        if down.shape[0] != rank or up.shape[1] != rank:
            raise IncompatibleModelError(
                f"{adapter}: the change of {target} has the ranks {down.shape[0]} and {up.shape[1]}, its configuration "
                f"says {rank}"
            )
        base += scale * (up @ down)


def _lora_pairs(
    deltas: Mapping[str, NDArray[Any]], adapter: Path
) -> Iterator[tuple[str, NDArray[np.float32], NDArray[np.float32]]]:
    """For each weight that an adapter changes its name in the base, A (rank, in) and B (out, rank).

    Raises:
        IncompatibleModelError: a tensor is of another kind, lacks its partner, or holds what is no number.
    """
    prefix, halves = "base_model.model.", ("lora_A", "lora_B")
    for name in sorted(deltas):
        module, _, half = name.removeprefix(prefix).removesuffix(".weight").rpartition(".")
        if not name.startswith(prefix) or not name.endswith(".weight") or half not in halves:
            raise IncompatibleModelError(
                f"{adapter} holds {shown(name)}, which is no part of a plain LoRA; use engine='transformers'"
            )
        if half == halves[1] and name.replace(halves[1], halves[0]) in deltas:
            continue  # with its partner
        pair = [deltas.get(f"{prefix}{module}.{one}.weight") for one in halves]
        down, up = (None if array is None else array.astype(np.float32) for array in pair)
        if down is None or up is None:
            raise IncompatibleModelError(f"{adapter} holds one half of the change of {module} alone")
        if down.ndim != 2 or up.ndim != 2 or not (np.isfinite(down).all() and np.isfinite(up).all()):
            raise IncompatibleModelError(f"{adapter}: the change of {module} is no matrix of numbers")
        yield f"{module}.weight", down, up


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        IncompatibleModelError: the file is missing, or holds something else.
    """
    try:
        content = strict_json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise IncompatibleModelError(f"{path} cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise IncompatibleModelError(f"{path} is not valid JSON: {exc}") from exc
    if not isinstance(content, dict):
        raise IncompatibleModelError(f"{path} must hold a JSON object, found {type(content).__name__}")
    return content


def _hugging_face_name(name: str) -> str:
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    if name == "output.weight":
        return "lm_head.weight"
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{_GGUF_NAMES[part]}.weight"


def _unpermute(array: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """(heads * size, in), rows in neighbour pairs -> rows in two halves."""
    rows, columns = array.shape
    pairs = array.reshape(heads, rows // heads // 2, 2, columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows, columns))
