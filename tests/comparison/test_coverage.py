"""Intervals hold the truth of simulated studies as often as they promise; the quick part of
`benchmarks/coverage.py`."""

from __future__ import annotations

import coverage
import pytest
from coverage import Row


@pytest.mark.parametrize("row", [Row(3, 300), Row(1, 300)], ids=lambda row: f"{row.seeds} seeds")
def test_intervals_hold_the_truth_as_often_as_promised(row: Row) -> None:
    for found in coverage.coverage(row, models=8, draws=300, studies=100).values():
        # the coverage of 100 studies is known to about a point and a half
        assert found["P"] == pytest.approx(0.95, abs=0.04)
        assert found["score"] == pytest.approx(0.95, abs=0.04)
        assert found["rank"] >= 0.94
        assert found["false_good"] <= 0.1
        assert found["false_bad"] <= 0.1


def test_a_spread_that_is_taken_too_small_holds_less() -> None:
    """The simulation can fail: with a quarter of the true spread intervals hold far less."""
    found = coverage.coverage(Row(1, 2005, sd=0.04), models=8, draws=300, studies=20)
    assert found["measured"]["P"] < 0.6
