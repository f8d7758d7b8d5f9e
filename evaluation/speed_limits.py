"""What the machine could do at best: the bounds that a verdict's and a token's time are compared with."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import BPE

from guardreasoner_moderation.checkpoint import Checkpoint, LlamaShape
from guardreasoner_moderation.engines.ctranslate2 import convert
from guardreasoner_moderation.engines.parallel import available_threads


@dataclass(frozen=True, slots=True)
class Peaks:
    """Measured peaks of the machine, all cores.

    Attributes:
        float_gflops: of a float32 matrix product, in 10^9 operations a second (a multiply-add is two).
        int8_gops: of CTranslate2's int8 matrix products with int32 sums.
        read_gbs: memory read by a float32 matrix-vector product, in 10^9 bytes a second.
    """

    float_gflops: float
    int8_gops: float
    read_gbs: float


def measure_peaks(size: int = 2048) -> Peaks:
    """Measures the peaks, each the best of several tries."""
    dice = np.random.default_rng(0)
    square = dice.standard_normal((size, size), dtype=np.float32)
    wide = np.ones((size * 8, size * 4), dtype=np.float32)  # 0.5 GB: no cache holds it
    vector = np.ones(size * 4, dtype=np.float32)
    operations = 2 * size**3
    return Peaks(
        float_gflops=operations / _shortest(lambda: square @ square) / 1e9,
        int8_gops=_int8_gops(size),
        read_gbs=wide.nbytes / _shortest(lambda: wide @ vector) / 1e9,
    )


def _int8_gops(size: int) -> float:
    """Of the engine's library: a prompt read by a single layer whose matrices are so large that little else counts."""
    import ctranslate2

    shape = LlamaShape(
        layers=1,
        heads=size // 128,
        kv_heads=size // 128,
        hidden=size,
        feed_forward=4 * size,
        vocabulary=8,
        context=size,
        rope_theta=10_000.0,
        norm_epsilon=1e-5,
    )
    dice = np.random.default_rng(0)
    sizes = {f"self_attn.{part}": (size, size) for part in "qkvo"}
    sizes |= {"mlp.gate": (4 * size, size), "mlp.up": (4 * size, size), "mlp.down": (size, 4 * size)}
    tensors: dict[str, NDArray[np.float32]] = {
        f"model.layers.0.{name}_proj.weight": dice.standard_normal(shape_of, dtype=np.float32)
        for name, shape_of in sizes.items()
    }
    norms = ("model.norm", "model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm")
    tensors |= {f"{name}.weight": np.ones(size, dtype=np.float32) for name in norms}
    tensors["model.embed_tokens.weight"] = dice.standard_normal((8, size), dtype=np.float32)
    tokens = [f"<{number}>" for number in range(8)]
    checkpoint = Checkpoint(shape, tensors, tokens, Tokenizer(BPE()), tokens[0], tokens[1])
    length = size // 4
    with tempfile.TemporaryDirectory() as folder:
        convert(checkpoint, Path(folder))
        generator = ctranslate2.Generator(folder, intra_threads=available_threads())
        prompt = [tokens[2 + number % 6] for number in range(length)]
        seconds = _shortest(lambda: generator.generate_batch([prompt], max_length=1, include_prompt_in_result=False))
    return operations_to_read(shape, length) / seconds / 1e9


def _shortest(work: Callable[[], object], tries: int = 7) -> float:
    seconds = []
    for _ in range(tries):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def operations_to_read(shape: LlamaShape, tokens: int) -> float:
    """Operations to read a prompt: all layers' projections at every token, attention, and one row of the vocabulary."""
    head = shape.hidden // shape.heads
    attention = 2 * shape.hidden**2 + 2 * shape.hidden * shape.kv_heads * head
    layer = attention + 3 * shape.hidden * shape.feed_forward
    weights = 2.0 * tokens * shape.layers * layer + 2.0 * shape.hidden * shape.vocabulary
    scores = (
        2.0 * shape.layers * shape.hidden * tokens**2
    )  # queries by keys, and weights by values, half of each masked
    return weights + scores


def bytes_to_write(shape: LlamaShape, bytes_per_weight: float) -> float:
    """Bytes of weights that are read for one generated token; the cache of keys and values is small beside them."""
    head = shape.hidden // shape.heads
    layer = 2 * shape.hidden**2 + 2 * shape.hidden * shape.kv_heads * head + 3 * shape.hidden * shape.feed_forward
    return bytes_per_weight * (shape.layers * layer + shape.hidden * shape.vocabulary)
