"""A base rounded to 4 bits, as QLoRA has it: NF4 in blocks of 64 weights, their scales in 8 bits (arXiv 2305.14314).

The rounded weights are held in full size, so this computes what QLoRA computes without saving its memory. A base of 135
million parameters needs no saving; what is asked of it here is what the rounding costs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from guardreasoner_moderation.errors import MissingDependencyError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from guardreasoner_moderation.checkpoint import Checkpoint

_BLOCK = 64  # weights with a scale of their own


def round_to_nf4(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with every matrix of its layers rounded; embeddings and norms stay as they are, as in QLoRA.

    Raises:
        MissingDependencyError: bitsandbytes is not installed.
    """
    rounded = {
        name: _round(tensor) if name.startswith("model.layers.") and tensor.ndim == 2 else tensor
        for name, tensor in checkpoint.tensors.items()
    }
    return replace(checkpoint, tensors=rounded)


def _round(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    import torch

    try:
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit
    except ImportError as exc:
        raise MissingDependencyError("rounding a base to 4 bits", "train") from exc

    # Flat, as the blocks run: on a CPU bitsandbytes 0.50 restores rows that are no whole number of blocks wrongly.
    flat = torch.from_numpy(matrix).flatten()
    packed, state = quantize_4bit(flat, blocksize=_BLOCK, quant_type="nf4", compress_statistics=True)
    found: NDArray[np.float32] = dequantize_4bit(packed, state).numpy().reshape(matrix.shape)
    return found
