from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evaluation.items import Item
from evaluation.metrics import Metric, values
from evaluation.runs import Prediction, open_run, read_prediction, to_outcomes
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.results import Label, ModerationResult, Task, TaskVerdict

IDENTITY: dict[str, Any] = {"model": "abc", "mode": "verdict", "sample": None}
ITEMS = [Item(f"b/{n}", Interaction(f"Question {n}"), Label.HARMFUL, "a group") for n in range(3)]
RESULT = ModerationResult(flagged=True, request=TaskVerdict(Label.HARMFUL, 0.75, 0.5, ("A step.",)))


def predict(item: Item, **options: bool) -> Prediction:
    return Prediction.of(item, Task.REQUEST, RESULT, **options)


def test_a_prediction_survives_its_line() -> None:
    prediction = predict(ITEMS[0])
    assert read_prediction(prediction.to_json()) == prediction
    assert (prediction.predicted, prediction.score, prediction.group) == (Label.HARMFUL, 0.75, "a group")
    assert (prediction.prompt_characters, prediction.response_characters) == (10, None)


def test_texts_are_kept_only_when_asked() -> None:
    assert "Question 0" not in predict(ITEMS[0]).to_json()
    kept = predict(ITEMS[0], keep_text=True)
    assert kept.text == {"prompt": "Question 0", "response": None}
    assert read_prediction(kept.to_json()) == kept


def test_an_error_is_unjudged() -> None:
    failed = ModerationResult(flagged=True, request=None, error="the engine failed")
    prediction = Prediction.of(ITEMS[0], Task.REQUEST, failed)
    assert (prediction.predicted, prediction.score) == (None, None)
    measured = values(to_outcomes([prediction, predict(ITEMS[1])], Task.REQUEST))
    assert measured[Metric.UNJUDGED_RATE] == 0.5
    assert Metric.AUPRC in measured


def test_without_scores_there_are_none() -> None:
    assert to_outcomes([predict(ITEMS[0], scored=False)], Task.REQUEST).scores is None


def test_predictions_are_read_back(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", IDENTITY) as folder:
        assert folder.read("b", ITEMS) == {}
        folder.append("b", [predict(ITEMS[1])])
        folder.append("b", [predict(ITEMS[0])])
    with open_run(tmp_path / "run", IDENTITY) as folder:
        assert list(folder.read("b", ITEMS)) == ["b/1", "b/0"]
        assert folder.predictions_file("b").name == "b.verdict.jsonl"


def test_a_last_line_that_was_cut_off_is_dropped(tmp_path: Path) -> None:
    with open_run(tmp_path, IDENTITY) as folder:
        folder.append("b", [predict(item) for item in ITEMS])
        file = folder.predictions_file("b")
        whole = file.read_bytes()
        for cut in (1, 40, len(whole.split(b"\n")[-2])):
            file.write_bytes(whole[:-cut])
            assert list(folder.read("b", ITEMS)) == ["b/0", "b/1"]
            folder.append("b", [predict(ITEMS[2])])
            assert file.read_bytes() == whole


def test_an_item_that_was_not_judged_is_judged_again(tmp_path: Path) -> None:
    failed = ModerationResult(flagged=True, request=None, error="the engine failed")
    with open_run(tmp_path, IDENTITY) as folder:
        folder.append("b", [predict(ITEMS[0]), Prediction.of(ITEMS[1], Task.REQUEST, failed), predict(ITEMS[2])])
        assert list(folder.read("b", ITEMS)) == ["b/0", "b/2"]
        folder.append("b", [predict(ITEMS[1])])
        assert list(folder.read("b", ITEMS)) == ["b/0", "b/2", "b/1"]


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        ({**IDENTITY, "model": "xyz"}, "holds a run with another model: 'abc' there, 'xyz' here"),
        ({**IDENTITY, "mode": "think"}, "another mode: 'verdict' there, 'think' here"),
        ({**IDENTITY, "sample": {"limit": 5}}, "another sample: None there"),
        ({**IDENTITY, "new": 1}, "another new: None there, 1 here"),
    ],
)
def test_another_run_is_refused(tmp_path: Path, identity: dict[str, Any], message: str) -> None:
    with open_run(tmp_path, IDENTITY):
        pass
    with pytest.raises(InputError, match=message), open_run(tmp_path, identity):
        pass
    with open_run(tmp_path, IDENTITY):
        pass


def test_another_process_is_kept_out(tmp_path: Path) -> None:
    message = "another process writes to"
    with open_run(tmp_path, IDENTITY), pytest.raises(InputError, match=message), open_run(tmp_path, IDENTITY):
        pass


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"b\.verdict\.jsonl, line 2 is damaged"),
        ("\x80", "line 2 is damaged"),
        ('{"id": "b/1"}', "line 2 is damaged"),
        (predict(ITEMS[0]).to_json(), "line 2: the item b/0 is there twice"),
        (predict(Item("b/1", Interaction("Other"), Label.HARMFUL)).to_json(), "line 2: the item b/1 is not the one in"),
        (predict(Item("b/9", Interaction("Other"), Label.HARMFUL)).to_json(), "line 2: the item b/9 is not the one in"),
    ],
)
def test_strange_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    with open_run(tmp_path, IDENTITY) as folder:
        folder.append("b", [predict(ITEMS[0])])
        with folder.predictions_file("b").open("ab") as file:
            file.write(line.encode("latin-1") + b"\n")
        with pytest.raises(InputError, match=message):
            folder.read("b", ITEMS)


def test_commits_of_the_hub_are_remembered(tmp_path: Path) -> None:
    with open_run(tmp_path, IDENTITY) as folder:
        assert folder.revision("owner/data") is None
        folder.pin("owner/data", "c0ffee")
        folder.pin("owner/other", "beef")
    with open_run(tmp_path, IDENTITY) as folder:
        assert folder.revision("owner/data") == "c0ffee"
