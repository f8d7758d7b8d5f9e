"""Balance of classes and sources in the training split, by leaving items out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.results import Task
from training.data import TRAIN, LabelledInteraction
from training.splits import draw

Group: TypeAlias = Callable[[LabelledInteraction], str]
"""From an item to the name of the group it is balanced in."""


GROUPS: Mapping[str, Group] = MappingProxyType(
    {
        "request": lambda item: item.labels[Task.REQUEST].value,
        "labels": lambda item: " ".join(item.labels.values()),
        "source": lambda item: item.source,
        "source-request": lambda item: f"{item.source}: {item.labels[Task.REQUEST]}",
    }
)
"""What can be balanced: classes of requests, combinations of all labels, sources, and classes within sources."""


def balance(
    items: Sequence[LabelledInteraction], group: Group, *, ratio: float, seed: int
) -> tuple[list[LabelledInteraction], dict[str, tuple[int, int]]]:
    """Cuts the larger groups of the training split down to at most ``ratio`` times the smallest.

    Args:
        items: of all splits; validation items stay.
        group: what is balanced.
        ratio: at least 1.
        seed: of the draw.

    Returns:
        The items in their order, and for each group its size before and after.

    Raises:
        InputError: the ratio is below 1.
    """
    if ratio < 1:
        raise InputError(f"the balance ratio must be at least 1, found {ratio}")
    members: dict[str, list[str]] = {}
    for item in items:
        if item.split == TRAIN:
            members.setdefault(group(item), []).append(item.id)
    most = round(ratio * min(map(len, members.values()), default=0))
    kept: set[str] = set()
    sizes = {}
    for name, ids in members.items():
        chosen = sorted(ids, key=lambda one: draw(seed, "balance", one))[:most]
        sizes[name] = (len(ids), len(chosen))
        kept.update(chosen)
    return [item for item in items if item.split != TRAIN or item.id in kept], sizes
