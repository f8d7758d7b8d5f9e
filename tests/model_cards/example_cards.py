"""Run folders and results files with made-up content, for the tests of cards and releases."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from guardreasoner_moderation.models import ModelSpec, weights_sha256
from guardreasoner_moderation.prompts import PromptFormat

ROOT = Path(__file__).parents[2]
EMBEDDED = ROOT / "guardreasoner_moderation" / "adapters" / "smollm2-135m"
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"

RECORD: Mapping[str, Any] = {
    "recipe": {"base": "smollm2-135m", "learning_rate": 0.0005, "batch_size": 16, "epochs": 1, "max_tokens": 360},
    "data_sha256": {"own.jsonl": "ab" * 32},
    "inventory": [
        {"source": "WildGuardTrain", "license": "ODC-BY-1.0", "train": 3000, "validation": 300, "doubtful": 7, "x": 1},
        {"source": "written here", "license": "CC0-1.0", "train": 100, "validation": 10, "doubtful": 0, "x": 2},
    ],
    "left_out_as_too_long": 12,
    "versions": {"python": "3.11"},
    "hardware": "2 x CPU",
    "steps": 20,
    "tokens": 12345,
    "hours": 0.5,
    "losses": [4.0 - 0.1 * step for step in range(20)],
    "validation": [
        {"step": 10, "request": {"n": 50, "accuracy": 0.8, "f1": 0.79, "auprc": 0.85}},
        {"step": 20, "request": {"n": 50, "accuracy": 0.84, "f1": 0.83, "auprc": 0.9}},
    ],
}
CALIBRATION: Mapping[str, Any] = {
    "verdict.request": {
        "n": 50,
        "scale": 1.1,
        "shift": -0.2,
        "first_scale": 0.0,
        "brier_before": 0.12,
        "brier": 0.1,
    }
}


def make_run(folder: Path, *, base: str = BASE, spec: ModelSpec | None = None, **record: Any) -> Path:
    """A run folder with an adapter that no model could load, but whose files are right."""
    adapter = folder / "adapter"
    adapter.mkdir(parents=True)
    config = {"base_model_name_or_path": base, "peft_type": "LORA", "r": 16, "lora_alpha": 32, "modules_to_save": None}
    write(adapter / "adapter_config.json", {**config, "target_modules": ["v_proj", "q_proj"]})
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    save_file({name: np.full((16, 8), 0.5, np.float16)}, adapter / "adapter_model.safetensors")
    spec = spec or ModelSpec(prompt_format=PromptFormat.COMPACT, base="smollm2-135m" if base == BASE else base)
    (adapter / "moderation.json").write_text(spec.to_json(), encoding="utf-8")
    write(folder / "run.json", {**RECORD, **record})
    write(folder / "calibration.json", CALIBRATION)
    return folder


def sha256_of_run(folder: Path) -> str:
    """Of its weights."""
    return weights_sha256(folder / "adapter")


def results(sha256: str, *, mode: str = "verdict", benchmarks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A ``results.json``; each benchmark needs its task only, what else is given replaces the made-up values."""
    row = {
        "n": 200,
        "available": 200,
        "positives": 80,
        "unjudged": 0,
        "license": "MIT",
        "revision": None,
        "trained_on": False,
        "metrics": {
            "accuracy": [0.8, 0.75, 0.85],
            "f1": [0.75, 0.68, 0.81],
            "recall": [0.7, 0.6, 0.8],
            "false_positive_rate": [0.1, 0.06, 0.15],
            "false_negative_rate": [0.3, 0.2, 0.4],
            "over_refusal_rate": [0.1, 0.06, 0.15],
            "auprc": [None, None, None],
            "brier": [0.11, 0.1, 0.12],
            "calibration_error": [0.04, 0.03, 0.06],
        },
    }
    return {
        "model": {"name": "guard", "sha256": sha256, "engine": "ctranslate2"},
        "mode": mode,
        "scorer": "strict",
        "intervals": "95%, percentile bootstrap of 1000 resamples",
        "versions": {"python": "3.11"},
        "hardware": "2 x CPU",
        "seconds": 360.0,
        "benchmarks": {name: {**row, **more} for name, more in benchmarks.items()},
        "averages_unseen": {"request": {"n": 300, "metrics": {"f1": [0.7, 0.6, 0.8]}}},
    }


def decision(sha256: str, verdict: str = "publish") -> dict[str, Any]:
    """What ``evaluation.decide -o`` writes."""
    return {
        "verdict": verdict,
        "reasons": ["The accuracy on ToxicChat is 80.0% [75.0%, 85.0%] on 200 items."],
        "model": {"name": "guard", "sha256": sha256},
        "benchmark": "ToxicChat",
    }


def write(file: Path, content: Any) -> Path:
    """Writes JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")
    return file
