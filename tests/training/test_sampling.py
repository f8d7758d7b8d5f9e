from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from conftest import scripted
from labelled import item, refused

from guardreasoner_moderation import Moderator
from guardreasoner_moderation.engines.base import Generation, Sampling
from guardreasoner_moderation.engines.scripted import ScriptedEngine
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.models import LoadedModel, ModelSpec
from guardreasoner_moderation.prompts import Prompt, PromptFormat
from guardreasoner_moderation.results import Category, Label, Mode, Task
from guardreasoner_moderation.verdicts import Calibration
from training.data import LabelledInteraction
from training.journal import Journal, read_journal
from training.sampling import Samples, draw_samples, read_samples, unbiased

SPEC = ModelSpec(prompt_format=PromptFormat.COMPACT, categories=tuple(Category))
HARMFUL = "It is about harm.\n---\nAnswers:\nRequest: harmful\nCategory: other"
HARMLESS = "It is about bread.\n---\nAnswers:\nRequest: unharmful"


class Recorder(ScriptedEngine):
    """Notes how it is sampled; writes one label at even seeds and the other at odd ones."""

    def __init__(self) -> None:
        super().__init__(lambda prompt: HARMLESS)
        self.seeds: Counter[int] = Counter()
        self.settings: set[tuple[float, float]] = set()

    def generate(
        self, prompts: list[Prompt], *, sampling: Sampling | None = None, **options: object
    ) -> list[Generation]:  # type: ignore[override]
        assert sampling is not None
        self.seeds[sampling.seed] += len(prompts)
        self.settings.add((sampling.temperature, sampling.top_p))
        self._reply = lambda prompt: HARMFUL if sampling.seed % 2 else HARMLESS
        return super().generate(prompts, sampling=sampling, **options)  # type: ignore[arg-type]


def sample(folder: Path, engine: ScriptedEngine, items: list[LabelledInteraction], count: int = 4) -> list[Samples]:
    with unbiased(LoadedModel("tiny", engine, SPEC)) as guard, Journal(folder / "samples.jsonl", {}) as journal:
        draw_samples(guard, items, count, Sampling(0.7, 0.95, seed=10), journal)
    return read_samples(read_journal(folder / "samples.jsonl")[1], items)


def test_every_item_is_answered_k_times_with_seeds_of_their_own(tmp_path: Path) -> None:
    engine = Recorder()
    found = sample(tmp_path, engine, [item("a"), item("b")])
    assert engine.seeds == {10: 2, 11: 2, 12: 2, 13: 2}
    assert engine.settings == {(0.7, 0.95)}
    assert [(len(one.right), len(one.wrong), one.ambiguous) for one in found] == [(2, 2, True)] * 2


def test_an_answer_has_the_models_labels_and_reasoning(tmp_path: Path) -> None:
    (one,) = sample(tmp_path, Recorder(), [item("a")])
    assert one.right[0].reasoning == {Task.REQUEST: ("It is about bread.",)}
    assert one.wrong[0].labels == {Task.REQUEST: Label.HARMFUL}
    assert one.wrong[0].category is Category.OTHER
    assert one.item.labels == {Task.REQUEST: Label.UNHARMFUL}


def test_a_second_run_draws_what_is_missing(tmp_path: Path) -> None:
    items = [item("a"), item("b")]
    sample(tmp_path, Recorder(), items, count=2)
    engine = Recorder()
    assert len(sample(tmp_path, engine, items, count=4)[0].right) == 2
    assert engine.seeds == {12: 2, 13: 2}
    engine = Recorder()
    sample(tmp_path, engine, [*items, item("c")], count=4)
    assert engine.seeds == {10: 1, 11: 1, 12: 1, 13: 1}


def test_one_wrong_label_of_three_is_wrong(tmp_path: Path) -> None:
    text = (
        "A.\n# Task 2\nB.\n# Task 3\nC.\n---\nAnswers:\nRequest: harmful\nCompletion: compliance\nResponse: unharmful"
    )
    (one,) = sample(tmp_path, ScriptedEngine(lambda prompt: text), [refused()], count=2)
    assert (len(one.right), len(one.wrong)) == (0, 2)


def test_a_label_that_the_item_lacks_is_not_held_against_an_answer(tmp_path: Path) -> None:
    text = (
        "A.\n# Task 2\nB.\n# Task 3\nC.\n---\nAnswers:\nRequest: harmful\nCompletion: compliance\nResponse: unharmful"
    )
    (one,) = sample(tmp_path, ScriptedEngine(lambda prompt: text), [refused(completion=None)], count=2)
    assert len(one.right) == 2
    assert one.right[0].can_think


def test_answers_without_reasoning_are_unusable(tmp_path: Path) -> None:
    text = "A.\n---\nAnswers:\nRequest: harmful\nCompletion: refusal\nResponse: unharmful"
    (one,) = sample(tmp_path, ScriptedEngine(lambda prompt: text), [refused()], count=2)
    assert (one.right, one.wrong, one.unusable) == ([], [], 2)


def test_answers_on_a_part_of_the_item_are_unusable(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda prompt: HARMLESS)
    guard = unbiased(LoadedModel("tiny", engine, SPEC), window_tokens=16)
    with Journal(tmp_path / "samples.jsonl", {}) as journal:
        draw_samples(guard, [item("word " * 100)], 2, Sampling(), journal)
    rows = read_journal(tmp_path / "samples.jsonl")[1]
    assert [row["unusable"] for row in rows] == ["longer than a window of the model"] * 2


def test_calibration_and_thresholds_do_not_decide() -> None:
    spec = ModelSpec(
        prompt_format=PromptFormat.COMPACT,
        calibration={Mode.THINK: {Task.REQUEST: Calibration(1.0, -20.0, 1.0)}},
        thresholds=dict.fromkeys(Task, 0.99),
    )
    engine = ScriptedEngine(lambda prompt: HARMFUL)
    with Moderator.from_engine(engine, spec) as guard:
        assert not guard.classify("a").flagged
    with unbiased(LoadedModel("tiny", ScriptedEngine(lambda prompt: HARMFUL), spec)) as guard:
        assert guard.classify("a").flagged


def test_one_answer_is_not_enough(tmp_path: Path) -> None:
    with (
        Journal(tmp_path / "samples.jsonl", {}) as journal,
        pytest.raises(InputError, match="at least 2 answers to an item, found 1"),
    ):
        draw_samples(scripted(HARMLESS), [item("a")], 1, Sampling(), journal)


def test_samples_of_other_data_are_an_error() -> None:
    with pytest.raises(InputError, match="an item 'b', which is not in the data"):
        read_samples([{"id": "b", "draw": 0, "unusable": None}], [item("a")])
