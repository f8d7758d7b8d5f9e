"""No telemetry: this package sends none, and what it starts of others is told not to."""

from __future__ import annotations

import os
from collections.abc import Mapping

SWITCHES: Mapping[str, str] = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
}
"""What Gradio, the Hugging Face libraries, Ray and vLLM read, most of them while they are imported."""


def switch_off() -> None:
    """To be called before one of them is imported. A value that the user has set stays."""
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
