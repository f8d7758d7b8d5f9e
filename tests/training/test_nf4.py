from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest

from guardreasoner_moderation import weights
from guardreasoner_moderation.checkpoint import Checkpoint, read_gguf
from guardreasoner_moderation.errors import MissingDependencyError
from training.nf4 import round_to_nf4


@pytest.fixture
def checkpoint(tiny_weights: str) -> Checkpoint:
    return read_gguf(weights.base_file(tiny_weights))


def test_matrices_of_the_layers_are_rounded_to_16_values_in_each_block(checkpoint: Checkpoint) -> None:
    rounded = round_to_nf4(checkpoint).tensors
    for name, before in checkpoint.tensors.items():
        after = rounded[name]
        assert (after.shape, after.dtype) == (before.shape, before.dtype)
        if name.startswith("model.layers.") and before.ndim == 2:
            assert 0.02 < np.linalg.norm(after - before) / np.linalg.norm(before) < 0.2
            assert max(len(np.unique(block)) for block in np.split(after.ravel(), after.size // 64)) <= 16
        else:
            assert after is before


def test_without_bitsandbytes_the_extra_is_named(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name.startswith("bitsandbytes"):
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r"guardreasoner-moderation\[train\]"):
        round_to_nf4(checkpoint)
