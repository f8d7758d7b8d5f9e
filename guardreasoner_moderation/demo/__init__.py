"""The web demo behind ``guardreasoner demo`` (extra ``demo``). Importing this package loads nothing heavy."""

from __future__ import annotations

from guardreasoner_moderation.demo.settings import DemoSettings as DemoSettings
from guardreasoner_moderation.errors import MissingDependencyError
from guardreasoner_moderation.telemetry import switch_off

__all__ = ["DemoSettings", "require_extra", "run"]


def run(settings: DemoSettings) -> None:
    """Loads the models and shows the demo until the process is stopped.

    Raises:
        MissingDependencyError: the extra ``demo`` is not installed.
        InputError: the address cannot be used.
        ModelError, WeightsError: a model cannot be loaded.
    """
    require_extra()
    from guardreasoner_moderation.demo.app import run_app

    run_app(settings)


def require_extra() -> None:
    """Checks that the extra ``demo`` is installed, before anything slow is done, and that Gradio reports to nobody.

    Raises:
        MissingDependencyError: it is not installed.
    """
    switch_off()
    try:
        import gradio  # noqa: F401
        import mcp  # noqa: F401
    except ImportError as exc:
        raise MissingDependencyError("guardreasoner demo", "demo") from exc
