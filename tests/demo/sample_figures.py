"""Made-up figures for the tests of the tab of benchmarks."""

from __future__ import annotations

from guardreasoner_moderation.demo.figures import Figures

RUN = {
    "model": {"name": "guard", "sha256": "abcdef0123456789", "engine": "scripted"},
    "mode": "verdict",
    "sample": {"limit": 40, "seed": 0},
    "scorer": "strict",
    "intervals": "95%",
    "hardware": "one core",
    "versions": {"python": "3.11"},
    "benchmarks": {
        "ToxicChat": {"n": 40, "unjudged": 2, "trained_on": True, "metrics": {"f1": [0.7, 0.6, 0.8]}},
        "Mine": {"n": 40, "unjudged": 0, "trained_on": False, "metrics": {"f1": [None, None, None]}},
    },
}
RACE = {
    "ours": {"p50": 0.1, "p95": 0.2, "items_per_second": 10.0, "tokens": 3.0},
    "transformers": {"p50": 0.4, "p95": 0.5, "items_per_second": 2.5, "tokens": 3.0},
}
FIGURES = Figures(
    runs={"guard.json": RUN},
    curves=[
        {
            "model": "guard",
            "mode": "verdict",
            "benchmark": "ToxicChat",
            "prevalence": 0.2,
            "precision_recall": [[0.0, 1.0], [0.5, 0.8], [1.0, 0.2]],
            "calibration": [{"score": 0.1, "value": 0.2}, {"score": 0.8, "value": 0.7}],
        }
    ],
    speed={
        "hardware": "one core",
        "rounds": 3,
        "latency": {"verdict, short": {**RACE, "ratio": {"transformers": 4.0}}},
        "throughput": {"verdict, batch 8": {**RACE, "ratio": {"transformers": 4.0}}},
    },
    upstream=[
        {"model": "Other 1B", "benchmark": "ToxicChat", "n": 30, "strict": {"f1": [0.75, 0.7, 0.8], "unjudged": 0}}
    ],
    published={"source": "a paper", "items": {"XSTest": 9, "ToxicChat": 50}, "f1": {"Famous": {"ToxicChat": 80.0}}},
    claims=[
        {
            "claim": "Less is more",
            "paper": "2505.20087",
            "where": "table 1",
            "there": "F1 0.8",
            "here": None,
            "run": None,
            "condition": "the whole interval of the difference lies above 0",
            "outcome": "not tested",
        }
    ],
)
