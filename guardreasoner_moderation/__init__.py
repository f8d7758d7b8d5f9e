"""Moderation of LLM traffic that explains itself.

from guardreasoner_moderation import Moderator

guard = Moderator()
result = guard.classify("How do I pick a lock?")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guardreasoner_moderation.engines.base import Sampling as Sampling
    from guardreasoner_moderation.errors import EngineError as EngineError
    from guardreasoner_moderation.errors import IncompatibleModelError as IncompatibleModelError
    from guardreasoner_moderation.errors import InputError as InputError
    from guardreasoner_moderation.errors import MissingDependencyError as MissingDependencyError
    from guardreasoner_moderation.errors import ModelError as ModelError
    from guardreasoner_moderation.errors import ModelNotFoundError as ModelNotFoundError
    from guardreasoner_moderation.errors import ModerationError as ModerationError
    from guardreasoner_moderation.errors import UnsafeModelError as UnsafeModelError
    from guardreasoner_moderation.errors import WeightsError as WeightsError
    from guardreasoner_moderation.interactions import Interaction as Interaction
    from guardreasoner_moderation.interactions import Turn as Turn
    from guardreasoner_moderation.moderator import Moderator as Moderator
    from guardreasoner_moderation.results import Category as Category
    from guardreasoner_moderation.results import Label as Label
    from guardreasoner_moderation.results import Mode as Mode
    from guardreasoner_moderation.results import ModerationResult as ModerationResult
    from guardreasoner_moderation.results import Task as Task
    from guardreasoner_moderation.results import TaskVerdict as TaskVerdict
    from guardreasoner_moderation.results import Usage as Usage
    from guardreasoner_moderation.results import Window as Window

__version__ = "0.1.0"

# Where each public name lives. A name is imported when it is first used, so that importing the package stays cheap.
_HOMES = {
    "Category": "results",
    "EngineError": "errors",
    "IncompatibleModelError": "errors",
    "InputError": "errors",
    "Interaction": "interactions",
    "Label": "results",
    "MissingDependencyError": "errors",
    "Mode": "results",
    "ModelError": "errors",
    "ModelNotFoundError": "errors",
    "ModerationError": "errors",
    "ModerationResult": "results",
    "Moderator": "moderator",
    "Sampling": "engines.base",
    "Task": "results",
    "TaskVerdict": "results",
    "Turn": "interactions",
    "UnsafeModelError": "errors",
    "Usage": "results",
    "WeightsError": "errors",
    "Window": "results",
}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604 - sorted; a test compares it with the names above


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
