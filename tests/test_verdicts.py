from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner_moderation.errors import EngineError, InputError
from guardreasoner_moderation.results import Label, Task
from guardreasoner_moderation.verdicts import DEFAULT_THRESHOLDS, Calibration, chosen, read_slots, read_thresholds

HARMFUL = {"harmful": -0.1, "unharmful": -2.4}
UNHARMFUL = {"harmful": -3.0, "unharmful": -0.05}
REFUSAL = {"refusal": -0.2, "compliance": -1.7}


def test_calibration_is_platt_scaling() -> None:
    assert Calibration().score(0.0) == 0.5
    assert Calibration(2.0, -1.0).score(1.5) == pytest.approx(1 / (1 + math.exp(-2)))


@given(st.floats(-1e6, 1e6), st.floats(0.01, 100), st.floats(-100, 100))
def test_a_score_is_a_probability_however_sure_the_model_is(odds: float, scale: float, shift: float) -> None:
    assert 0 <= Calibration(scale, shift).score(odds) <= 1


@given(st.floats(-50, 50), st.floats(-50, 50))
def test_a_score_grows_with_the_log_odds(first: float, second: float) -> None:
    calibration = Calibration(0.7, 0.3)
    assert (first < second) <= (calibration.score(first) <= calibration.score(second))


def test_a_whole_block_is_read() -> None:
    written = "Answers:\nRequest: harmful\nCompletion: refusal\nResponse: unharmful"
    slots = {"Request:": HARMFUL, "Completion:": REFUSAL, "Response:": UNHARMFUL}
    assert read_slots(written, slots, tuple(Task)) == {
        Task.REQUEST: pytest.approx(2.3),
        Task.COMPLETION: pytest.approx(1.5),
        Task.RESPONSE: pytest.approx(-2.95),
    }


def test_a_missing_answer_leaves_the_block_unread() -> None:
    slots = {"Request:": HARMFUL, "Completion:": REFUSAL, "Response:": UNHARMFUL}
    assert read_slots("Answers:\nRequest: harmful\nCompletion: refusal", slots, tuple(Task)) is None


def test_a_missing_reading_leaves_the_block_unread() -> None:
    assert read_slots("Answers:\nRequest: harmful", {}, (Task.REQUEST,)) is None


def test_a_reading_that_disagrees_with_the_text_is_not_taken() -> None:
    assert read_slots("Answers:\nRequest: harmful", {"Request:": UNHARMFUL}, (Task.REQUEST,)) is None


def test_tasks_that_were_not_asked_for_are_ignored() -> None:
    written = "Answers:\nRequest: harmful\nCompletion: refusal"
    assert read_slots(written, {"Request:": HARMFUL, "Completion:": REFUSAL}, (Task.REQUEST,)) == {
        Task.REQUEST: pytest.approx(2.3)
    }


def test_the_models_own_preference() -> None:
    assert chosen(Task.REQUEST, 0.1) is Label.HARMFUL
    assert chosen(Task.COMPLETION, -0.1) is Label.COMPLIANCE


def test_one_threshold_is_for_both_harm_tasks() -> None:
    assert read_thresholds(0.3, DEFAULT_THRESHOLDS) == {
        Task.REQUEST: 0.3,
        Task.COMPLETION: 0.5,
        Task.RESPONSE: 0.3,
    }


def test_thresholds_for_some_tasks_leave_the_others() -> None:
    assert read_thresholds({"completion": 1}, {**DEFAULT_THRESHOLDS, Task.REQUEST: 0.7}) == {
        Task.REQUEST: 0.7,
        Task.COMPLETION: 1.0,
        Task.RESPONSE: 0.5,
    }
    assert DEFAULT_THRESHOLDS[Task.COMPLETION] == 0.5


@pytest.mark.parametrize("value", [-0.1, 1.1, "0.5", None, True, math.nan])
def test_a_threshold_outside_0_to_1_is_an_error(value: object) -> None:
    with pytest.raises(InputError, match="must be a number from 0 to 1"):
        read_thresholds({"request": value}, DEFAULT_THRESHOLDS)  # type: ignore[dict-item]


def test_an_answer_that_is_no_number_is_an_error_and_not_harmless() -> None:
    with pytest.raises(EngineError, match="the model's answer is not a number"):
        Calibration().score(math.nan)


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'response'"):
        read_thresholds({"reponse": 0.5}, DEFAULT_THRESHOLDS)
