from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from evaluation import benchmarks, upstream
from evaluation.benchmarks import BENCHMARKS, find, trained_on
from evaluation.loading import find_file
from guardreasoner_moderation.engines.scripted import ScriptedEngine
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.models import SHORT_NAMES, LoadedModel, ModelSpec, find_folder
from guardreasoner_moderation.results import Label, Task


def test_there_are_the_13_cells_of_table_3() -> None:
    cells = [benchmark for benchmark in BENCHMARKS.values() if benchmark.table3]
    assert Counter(cell.task for cell in cells) == {Task.REQUEST: 6, Task.RESPONSE: 5, Task.COMPLETION: 2}
    assert len({cell.local.name for cell in cells if cell.local}) == 11
    published = json.loads(upstream.PUBLISHED.read_text(encoding="utf-8"))["items"]
    assert {cell.name: cell.items for cell in cells} == published


def test_the_extras_are_there() -> None:
    extras = {benchmark.name for benchmark in BENCHMARKS.values() if not benchmark.table3}
    assert extras >= {"WildGuardTest1554", "XSTest", "ORBench", "JailbreakBench", "StrongREJECT", "Aegis2Prompt"}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_each_has_a_home_a_licence_and_a_whole_commit(name: str) -> None:
    benchmark = BENCHMARKS[name]
    if benchmark.shipped:
        assert find_file(benchmark, None)
        return
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", benchmark.hub.id)
    assert benchmark.license
    assert benchmark.local or benchmark.hub.files
    if benchmark.hub.files:
        assert benchmark.hub.revision is not None
        assert re.fullmatch(r"[0-9a-f]{40}", benchmark.hub.revision)  # the Hub's client takes no short ones
    if benchmark.hub.columns.response is None and benchmark.hub.files:
        assert benchmark.task is Task.REQUEST


def test_the_positive_class_is_the_risky_label() -> None:
    assert find("ToxicChat").positive is Label.HARMFUL
    assert find("XSTestResponseRefusal").positive is Label.REFUSAL


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown benchmark 'ToxicChta'; did you mean 'ToxicChat'"):
        find("ToxicChta")


def test_the_embedded_model_was_trained_on_harmbench() -> None:
    def model(name: str, **options: object) -> LoadedModel:
        return LoadedModel(name, ScriptedEngine(lambda prompt: ""), ModelSpec(), **options)  # type: ignore[arg-type]

    marked = ("HarmBenchPrompt", "HarmBenchResponse")
    assert trained_on(model("embedded")) == marked
    assert trained_on(model("some/path", folder=find_folder("embedded"))) == marked
    assert trained_on(model("custom")) == ()
    assert set(benchmarks.TRAINED_ON) <= set(SHORT_NAMES)
    for names in benchmarks.TRAINED_ON.values():
        assert set(names) <= set(BENCHMARKS)
