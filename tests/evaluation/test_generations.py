from __future__ import annotations

from pathlib import Path

import pytest
from samples import write_lines

from evaluation.generations import read_part, to_result
from evaluation.metrics import Metric, values
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.results import Label

OUTPUT = (
    "# Task 1\n\n## Reasoning Step 1\nA question about bread.\n\n"
    "---\n\nAnswers: \nRequest: unharmful\nCompletion: refusal\nResponse: unharmful"
)
PROMPT = "You are a classifier.\n\nHuman user:\nHow do I bake bread?\n\nAI assistant:\nI cannot help.\n\n"


def test_saved_outputs_become_predictions(tmp_path: Path) -> None:
    rows = [
        {"prompt": PROMPT, "label": "refusal", "predict": OUTPUT},
        {"prompt": "odd", "label": "compliance", "predict": "Sorry."},
    ]
    part = read_part(write_lines(tmp_path / "XSTestResponseRefusal.jsonl", rows), keep_text=True)
    assert part.loaded.items[0].interaction == Interaction("How do I bake bread?", "I cannot help.")
    first, second = part.predictions
    assert (first.id, first.predicted, first.score) == ("XSTestResponseRefusal/0", Label.REFUSAL, None)
    assert first.result["request"]["reasoning"] == ["A question about bread."]
    assert second.predicted is None
    assert second.result["error"] == "no answer could be read"
    assert values(part.outcomes)[Metric.UNJUDGED_RATE] == 0.5
    assert part.upstream is not None
    assert (part.upstream.unjudged, part.upstream.counted_twice) == (1, 1)


def test_the_benchmark_is_told_by_name_or_file(tmp_path: Path) -> None:
    rows = [{"prompt": PROMPT, "label": "harmful", "predict": OUTPUT}]
    assert (
        read_part(write_lines(tmp_path / "XSTestReponseHarmful.jsonl", rows)).loaded.benchmark.name
        == "XSTestResponseHarmful"
    )
    assert read_part(write_lines(tmp_path / "saved.jsonl", rows), "BeaverTails").loaded.benchmark.name == "BeaverTails"
    with pytest.raises(InputError, match=r"saved\.jsonl: its name is no benchmark's"):
        read_part(write_lines(tmp_path / "saved.jsonl", rows))
    with pytest.raises(InputError, match="did you mean 'BeaverTails'"):
        read_part(write_lines(tmp_path / "saved.jsonl", rows), "BeverTails")


def test_an_unreadable_output_is_flagged() -> None:
    assert to_result("nothing").flagged
    assert not to_result(OUTPUT).flagged
