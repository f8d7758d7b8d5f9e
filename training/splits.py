"""Validation split and subsets, drawn by hashes: the same seed gives the same items, whatever else is in the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

from texts.similarity import normalise
from training.data import TRAIN, VALIDATION, LabelledInteraction


def split_by_prompt(items: Sequence[LabelledInteraction], share: float, seed: int) -> list[LabelledInteraction]:
    """The items with splits drawn by prompt: about ``share`` of the prompts go to validation, each with all its items.

    Prompts of the same words are the same prompt. Data that is added later leaves the others where they are.
    """
    return [
        replace(item, split=VALIDATION if draw(seed, "split", normalise(item.interaction.prompt)) < share else TRAIN)
        for item in items
    ]


def separate(items: Sequence[LabelledInteraction]) -> tuple[list[LabelledInteraction], int]:
    """Takes items out of the training split whose prompt is in the validation split too.

    The validation split stays whole, so that figures on it can be compared.

    Returns:
        The items that stay, and how many were taken out.
    """
    held_out = {normalise(item.interaction.prompt) for item in items if item.split == VALIDATION}
    kept = [item for item in items if item.split == VALIDATION or normalise(item.interaction.prompt) not in held_out]
    return kept, len(items) - len(kept)


def subset(items: Sequence[LabelledInteraction], count: int, seed: int) -> list[LabelledInteraction]:
    """``count`` items of the training split, in their order, and all of the validation split.

    Subsets of one seed are nested: 500 items are among the 1,000.
    """
    training = [item.id for item in items if item.split == TRAIN]
    chosen = set(sorted(training, key=lambda name: draw(seed, "subset", name))[:count])
    return [item for item in items if item.split == VALIDATION or item.id in chosen]


def draw(seed: int, purpose: str, name: str) -> float:
    """A number from 0 up to 1 that looks random and depends on nothing else; draws for two purposes are independent."""
    digest = sha256(f"{seed}\0{purpose}\0{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
