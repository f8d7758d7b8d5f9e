from __future__ import annotations

import math

import pytest
from scipy.stats import binomtest

from evaluation.shares import Share, wilson


def test_interval_of_a_hand_worked_case() -> None:
    # (8 + 1.92) / (10 + 3.84) = 0.7167; the half width is 0.2266
    assert Share(8, 10).interval == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert Share(8, 10).percent() == "80.0 [49.0, 94.3]"
    assert Share(8, 10).percent(interval=False) == "80.0"


@pytest.mark.parametrize(("count", "of"), [(0, 7), (7, 7), (1, 1000), (300, 1554), (0, 13300)])
def test_interval_agrees_with_scipy(count: int, of: int) -> None:
    expected = binomtest(count, of).proportion_ci(method="wilson")
    assert Share(count, of).interval == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_ends_are_exact() -> None:
    assert wilson(0.0, 50)[0] == 0.0
    assert wilson(1.0, 50)[1] == 1.0


def test_no_items_have_no_share() -> None:
    share = Share(0, 0)
    assert math.isnan(share.value)
    assert share.percent() == "-"
    assert share.to_json() == {"count": 0, "of": 0, "value": None, "low": None, "high": None}
