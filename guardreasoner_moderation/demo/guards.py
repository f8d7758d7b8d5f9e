"""The models that visitors may choose from, and the GPU that a Space may lend them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from guardreasoner_moderation.errors import InputError, nearest
from guardreasoner_moderation.moderator import Moderator
from guardreasoner_moderation.results import Task

Function = TypeVar("Function", bound=Callable[..., Any])


class Guards:
    """Loaded models by the names that the page shows.

    All of them are loaded at the start, so that a wrong name is an error there and not before a visitor; ZeroGPU asks
    for this too.
    """

    def __init__(self, guards: Mapping[str, Moderator]) -> None:
        if not guards:
            raise InputError("the demo needs at least one model")
        self._guards = dict(guards)

    @classmethod
    def load(cls, models: Iterable[str]) -> Guards:
        """Loads models.

        Args:
            models: short names, folders or repository ids.

        Raises:
            ModelError, WeightsError, MissingDependencyError: one of them cannot be loaded.
        """
        guards: dict[str, Moderator] = {}
        for model in models:
            name = _shown_name(model)
            guards[model if name in guards else name] = Moderator(model)
        return cls(guards)

    @property
    def names(self) -> tuple[str, ...]:
        """In the order in which they were asked for."""
        return tuple(self._guards)

    def get(self, name: str) -> Moderator:
        """A model by its name; the first one for no name.

        Raises:
            InputError: it is not offered here.
        """
        guard = self._guards.get(name or self.names[0])
        if guard is None:
            raise InputError(f"there is no model {name!r} here{nearest(name, self._guards)}")
        return guard

    def thresholds(self, name: str) -> Mapping[Task, float]:
        """The scores from which a model's verdicts are risky, unless a visitor asks for others."""
        return self.get(name).model.spec.thresholds

    def close(self) -> None:
        """Frees the models."""
        for guard in self._guards.values():
            guard.close()


def on_gpu(function: Function) -> Function:
    """``spaces.GPU`` where that package is, as on Spaces with ZeroGPU, which lend a GPU to functions marked so."""
    try:
        import spaces  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return function
    marked: Function = spaces.GPU(function)
    return marked


def _shown_name(model: str) -> str:
    """Of a folder its last part: visitors need not see where it lies."""
    return Path(model).resolve().name if Path(model).is_dir() else model
