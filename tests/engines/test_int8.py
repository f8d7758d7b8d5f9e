"""Integers whose products fit in 16 bits, pair by pair."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from guardreasoner_moderation.checkpoint import read_gguf
from guardreasoner_moderation.engines.ctranslate2 import CTranslate2Engine, convert
from guardreasoner_moderation.engines.int8 import LARGEST, LARGEST_PAIR, quantize_rows
from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.prompts import PromptFormat, build_prompt
from guardreasoner_moderation.results import Mode
from guardreasoner_moderation.rotation import orthogonal

WEIGHTS = arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.sampled_from([2, 6, 16])),
    elements=st.floats(-9, 9, width=32, allow_subnormal=False),
)


@given(WEIGHTS)
def test_no_pair_of_products_needs_more_than_16_bits(weight: NDArray[np.float32]) -> None:
    integers, scale = quantize_rows(weight)
    wide = integers.astype(int)
    highest = np.maximum(wide[:, 0::2], 0) + np.maximum(wide[:, 1::2], 0)
    lowest = np.minimum(wide[:, 0::2], 0) + np.minimum(wide[:, 1::2], 0)
    assert np.iinfo(np.int16).min <= 255 * lowest.min() <= 255 * highest.max() <= np.iinfo(np.int16).max
    assert np.abs(wide).max() <= LARGEST
    assert np.abs(wide / scale[:, None] - weight).max() <= 0.5001 * (1 / scale).max()


def test_each_row_uses_all_that_it_may() -> None:
    integers, scale = quantize_rows(np.array([[1, -1, 0.5, 0.25], [3, 3, -3, 0], [0, 0, 0, 0]], np.float32))
    assert integers.tolist() == [[127, -127, 64, 32], [64, 64, -64, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(scale[:2], [LARGEST, LARGEST_PAIR / 6], rtol=1e-6)
    assert np.isfinite(scale).all()


def test_a_processor_multiplies_the_largest_weights_and_activations_exactly(tiny_gguf: Path, tmp_path: Path) -> None:
    """The worst case for sums in 16 bits: all activations and all weights of a row are as large as they get."""
    checkpoint = read_gguf(tiny_gguf)
    hidden = checkpoint.shape.hidden
    tensors = {name: np.zeros_like(tensor) for name, tensor in checkpoint.tensors.items()}
    tensors.update({name: np.ones_like(tensor) for name, tensor in tensors.items() if tensor.ndim == 1})
    flat = np.ones((len(checkpoint.tokens), hidden), np.float32) @ orthogonal(hidden).T  # all ones when rotated
    tensors["model.embed_tokens.weight"] = flat
    sizes = np.linspace(-1, 1, len(flat), dtype=np.float32)[:, None]
    tensors["lm_head.weight"] = flat * sizes
    convert(replace(checkpoint, tensors=tensors), tmp_path)
    engine = CTranslate2Engine(tmp_path)
    try:
        prompt = build_prompt(Interaction("Bread"), PromptFormat.COMPACT, Mode.VERDICT)
        ((result,),) = engine._run([[engine._encode_for_call(prompt, 1)]], max_length=1, return_logits_vocab=True)
        np.testing.assert_allclose(result.logits[0][0], sizes[:, 0] * hidden, atol=0.02 * hidden)
    finally:
        engine.close()
