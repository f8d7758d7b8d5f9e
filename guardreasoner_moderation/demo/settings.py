"""Every setting of the demo, in one place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from guardreasoner_moderation.errors import InputError

MODELS_VARIABLE = "GUARDREASONER_DEMO_MODELS"


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """What the demo offers, where, and its limits.

    Attributes:
        models: short names, folders or repository ids to choose from; the first is chosen at first.
        host: address to listen on; None for GRADIO_SERVER_NAME, which a Space sets, or this machine alone.
        port: None for GRADIO_SERVER_PORT, or the first free one from 7860 on.
        open_browser: open the page once it is there.
        max_text_chars: how long one text may be, in characters.
        max_rows: how many rows an uploaded file may have.
        max_upload_mb: size of an uploaded file, in MB.
    """

    models: tuple[str, ...] = ("embedded",)
    host: str | None = None
    port: int | None = None
    open_browser: bool = False
    max_text_chars: int = 50_000
    max_rows: int = 1_000
    max_upload_mb: int = 5

    def __post_init__(self) -> None:
        if not self.models or not all(name.strip() for name in self.models):
            raise InputError("the demo needs the name of at least one model")
        if len(set(self.models)) < len(self.models):
            raise InputError(f"a model is named twice: {', '.join(self.models)}")
        if self.port is not None and not 1 <= self.port <= 65_535:
            raise InputError(f"port must be from 1 to 65535, found {self.port!r}")
        for name in ("max_text_chars", "max_rows", "max_upload_mb"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, found {getattr(self, name)!r}")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> DemoSettings:
        """The settings of a Space: GUARDREASONER_DEMO_MODELS holds names with commas between, if it is set."""
        names = tuple(name.strip() for name in environment.get(MODELS_VARIABLE, "").split(",") if name.strip())
        return cls(models=names) if names else cls()
