"""The table of speeds in the benchmarks' README is what their results say."""

from __future__ import annotations

from pathlib import Path

import speed

README = Path(__file__).parents[1] / "benchmarks" / "README.md"


def test_the_table_is_made_from_the_results() -> None:
    _, begin, rest = README.read_text().partition(speed._BEGIN)
    written, end, _ = rest.partition(speed._END)
    assert begin
    assert end
    assert written == speed.table()


def test_the_table_shows_which_targets_are_missed() -> None:
    interval = {"median": 1.005, "low": 1.0, "high": 1.04}
    result = {"ratio": interval, "cpu_ratio": {**interval, "high": 1.008}, "pairs": 2, "epochs": 1}
    result |= {"logging_s_per_epoch": 0.04, "windows_s_per_epoch": 0.01, "off_s": 10.0}
    rows = list(speed._overhead(result))
    assert [row.reached for row in rows] == [False, True, True, True]
    assert rows[0].found == "0.5% (0.0 to 4.0)"
    assert [row.found for row in rows[2:]] == ["0.50%", "40 ms"]
    reached = next(speed._overhead(result | {"ratio": {**interval, "low": 0.98, "high": 1.008}}))
    assert (reached.reached, reached.found) == (True, "0.5% (-2.0 to 0.8)")
    noise = next(speed._overhead(result | {"ratio": {**interval, "low": 0.9, "high": 1.05}}))
    assert noise.reached is None
    assert noise.found == "0.5% (-10.0 to 5.0), noise: inconclusive"
