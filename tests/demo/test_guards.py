from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from paced_guard import paced_guard

from guardreasoner_moderation import InputError, ModelNotFoundError, Task
from guardreasoner_moderation.demo import guards as demo_guards
from guardreasoner_moderation.demo.guards import Guards, on_gpu


def test_the_first_model_is_taken_where_none_is_named() -> None:
    first, second = paced_guard(), paced_guard()
    guards = Guards({"one": first, "two": second})
    assert guards.names == ("one", "two")
    assert guards.get("") is first
    assert guards.get("two") is second
    assert guards.thresholds("two")[Task.REQUEST] == 0.5


def test_a_model_that_is_not_offered_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'embedded'"):
        Guards({"embedded": paced_guard()}).get("embeded")


def test_a_wrong_name_is_an_error_at_the_start() -> None:
    with pytest.raises(ModelNotFoundError):
        Guards.load(["no-such-model"])


def test_visitors_see_the_name_of_a_folder_and_not_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_guards, "Moderator", lambda model: paced_guard())
    (tmp_path / "a" / "mine").mkdir(parents=True)
    (tmp_path / "b" / "mine").mkdir(parents=True)
    assert Guards.load([str(tmp_path / "a" / "mine"), "embedded"]).names == ("mine", "embedded")
    twins = Guards.load([str(tmp_path / "a" / "mine"), str(tmp_path / "b" / "mine")])
    assert len(twins.names) == 2


def test_functions_are_marked_for_the_gpu_that_a_space_lends(monkeypatch: pytest.MonkeyPatch) -> None:
    marked: list[object] = []

    def gpu(function: Callable[[], int]) -> Callable[[], int]:
        marked.append(function)
        return function

    monkeypatch.setitem(sys.modules, "spaces", SimpleNamespace(GPU=gpu))

    def judge() -> int:
        return 1

    assert on_gpu(judge)() == 1
    assert marked == [judge]


def test_elsewhere_functions_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spaces", None)

    def judge() -> int:
        return 1

    assert on_gpu(judge) is judge
