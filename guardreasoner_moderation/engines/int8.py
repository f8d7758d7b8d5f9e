"""Weights in int8 that multiply exactly on every processor.

Without VNNI, an x86 processor multiplies 8-bit numbers in pairs, and the sum of two products must fit in 16 bits
(``vpmaddubsw``); where it does not, it saturates silently. A byte of an activation goes up to 255, so that two weights
of up to 127 can need 17 bits. (https://uxlfoundation.github.io/oneDNN/dev_guide_int8_computations.html)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LARGEST = 127
LARGEST_PAIR = 128
"""What two neighbours of the same sign may add up to: 255 times as much is the most that fits in 16 bits."""


def quantize_rows(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Rounds each row to int8 with a scale of its own, such that products of its pairs of columns fit in 16 bits.

    Args:
        weight: shape (outputs, inputs); ``inputs`` is even.

    Returns:
        Integers of the same shape, and the scale of each row, by which its weights were multiplied.
    """
    largest = np.abs(weight).max(axis=1)
    # Neighbours of different signs add up to less than the larger of them, so they never decide.
    pair = np.abs(weight[:, 0::2] + weight[:, 1::2]).max(axis=1)
    step = np.maximum(largest / LARGEST, pair / LARGEST_PAIR)
    scale = np.reciprocal(np.maximum(step, np.finfo(np.float32).tiny))  # of a row of zeros it is finite too
    return np.rint(weight * scale[:, None]).astype(np.int8), scale
