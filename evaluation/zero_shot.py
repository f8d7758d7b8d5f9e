"""The zero-shot baseline: the embedded model's base without its adapter, asked the same and forced to answer.

    python -m evaluation.run --model zero-shot --mode verdict --data-dir DATA --benchmarks all --out runs/zero-shot

Prompt, answer slots, windows and engine (CTranslate2, int8) are the embedded model's. No weight was trained and no
score calibrated: a score is the probability of the risky word against the other one; at 0.5 the likelier label wins.
It is not asked for categories.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from guardreasoner_moderation import weights
from guardreasoner_moderation.cache import cached_entry
from guardreasoner_moderation.checkpoint import read_gguf
from guardreasoner_moderation.models import CONVERTER_VERSION, SPEC_FILE, find_folder, read_spec
from guardreasoner_moderation.verdicts import DEFAULT_THRESHOLDS

NAME = "zero-shot"
"""What ``--model`` of ``evaluation.run`` takes for it."""

FOLDER = "smollm2-135m-zero-shot"
"""Its name in results."""

MEANING = (
    "The zero-shot model is the base without the adapter: the same prompt and forced answers, no calibration, the "
    "likelier label wins (threshold 0.5)."
)


def prepare_zero_shot() -> Path:
    """The folder, in the cache, of the base in CTranslate2's format with the embedded model's prompt; made once.

    Raises:
        WeightsError: the base could not be fetched, or the folder not be written.
    """
    from guardreasoner_moderation.engines.ctranslate2 import convert

    trained = read_spec(find_folder("embedded") / SPEC_FILE)
    base = str(trained.base)
    asked = replace(trained, base=None, calibration={}, thresholds=dict(DEFAULT_THRESHOLDS), categories=())
    spec = asked.to_json()

    def build(target: Path) -> None:
        folder = target / FOLDER
        folder.mkdir()
        convert(read_gguf(weights.base_file(base)), folder)
        (folder / SPEC_FILE).write_text(spec, encoding="utf-8")

    key = hashlib.sha256(f"{weights.BASES[base].sha256} {CONVERTER_VERSION} {spec}".encode()).hexdigest()[:32]
    return cached_entry(f"{NAME}-{key}", build) / FOLDER
