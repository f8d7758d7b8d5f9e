from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import evaluation
from evaluation.metrics import collect, values
from guardreasoner_moderation.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of the library


@pytest.fixture(scope="module")
def metric(tmp_path_factory: pytest.TempPathFactory) -> Any:
    evaluate = pytest.importorskip("evaluate")
    folder = Path(evaluation.__file__).parent / "evaluate_metric"
    return evaluate.load(str(folder), cache_dir=str(tmp_path_factory.mktemp("cache")))


def test_loads_from_a_local_path_and_agrees(metric: Any) -> None:
    found = metric.compute(references=[1, 0, 1], predictions=[1, 0, -1], scores=[0.9, 0.2, None])
    expected = values(collect([True, False, True], [True, False, None], [0.9, 0.2, None]))
    assert found == pytest.approx({name.value: value for name, value in expected.items()}, abs=1e-9)


def test_undefined_is_none_and_intervals_are_optional(metric: Any) -> None:
    found = metric.compute(references=[1, 1], predictions=[1, 0], resamples=50)
    assert found["false_positive_rate"] is None
    assert found["intervals"]["recall"][0] == 0.5
    assert "intervals" not in metric.compute(references=[1, 1], predictions=[1, 0])


def test_strange_values_are_refused(metric: Any) -> None:
    with pytest.raises(InputError, match="references must be among"):
        metric.compute(references=[2], predictions=[1])
