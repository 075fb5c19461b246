"""Intervals of scores and ranks, against hand counts and normal laws."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from pepr_mlops.comparison import intervals
from pepr_mlops.comparison.pepr import Bounds

# Intervals ---------------------------------------------------------------------------------------


def _runs(rows: list[tuple[str, float, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["model", "performance", "energy_wh"])


def test_without_error_and_seeds_there_is_no_interval() -> None:
    runs = _runs([("a", 0.8, 1.0), ("b", 0.9, 3.0), ("c", 0.6, 2.0)])
    found = intervals.intervals(runs, intervals.Scoring(["energy_wh"], [1.0]), error={}, top=1)
    assert found[["ci_low", "ci_high"]].isna().all(axis=None)
    assert set(found["no_interval"]) == {"one run, no error of its cost"}
    assert found["rank_low"].to_dict() == found["rank_high"].to_dict() == {"a": 1, "b": 2, "c": 3}
    assert found["top_share"].to_dict() == {"a": 1, "b": 0, "c": 0}


def test_the_error_of_energy_alone_gives_the_interval_of_its_normal_law() -> None:
    runs = _runs([("a", 0.9, 50.0), ("b", 0.5, 100.0)])
    scoring = intervals.Scoring(["energy_wh"], [1.0], reference={"energy_wh": Bounds(0.0, 100.0)})
    found = intervals.intervals(runs, scoring, error={"energy_wh": 0.05}, draws=40_000)
    z = scipy_stats.norm.ppf(0.975)
    assert found.loc["a", "ci_low"] == pytest.approx(0.9 / (1 + 0.5 * (1 + 0.05 * z)), abs=5e-4)
    assert found.loc["a", "ci_high"] == pytest.approx(0.9 / (1 + 0.5 * (1 - 0.05 * z)), abs=5e-4)


def test_seeds_are_drawn_with_replacement() -> None:
    # two seeds of equal cost: the mean is 0.6, 0.7 or 0.8 with chances 1/4, 1/2, 1/4
    runs = _runs([("a", 0.6, 1.0), ("a", 0.8, 1.0), ("b", 0.7, 1.0), ("b", 0.7, 1.0)])
    scoring = intervals.Scoring(["energy_wh"], [1.0])
    found = intervals.intervals(runs, scoring, error={}, draws=40_000, level=0.8, top=1)
    assert (found.loc["a", "ci_low"], found.loc["a", "ci_high"]) == pytest.approx((0.6, 0.8))
    # a is first, alone or equal with b, in three of four draws
    assert found.loc["a", "top_share"] == pytest.approx(0.75, abs=0.01)
    narrow = intervals.intervals(runs, scoring, error={}, level=0.4)
    assert np.isnan(narrow.loc["a", "ci_low"])
    assert found["no_interval"].to_dict() == {"a": "", "b": "its runs give one score"}


def test_the_costs_of_one_run_err_together() -> None:
    """CO2e under one intensity is energy in other units: half of each is all of one."""
    runs = _runs([("a", 0.8, 10.0), ("b", 0.9, 25.0), ("c", 0.7, 40.0)])
    runs["carbon_gco2e"] = runs["energy_wh"] * 0.4
    error = {"energy_wh": 0.05, "carbon_gco2e": 0.05}
    one = intervals.intervals(runs, intervals.Scoring(["energy_wh"], [1.0]), error=error)
    both = intervals.Scoring(["energy_wh", "carbon_gco2e"], [0.5, 0.5])
    pd.testing.assert_frame_equal(intervals.intervals(runs, both, error=error), one)


def test_intervals_cover_the_true_score_as_often_as_promised() -> None:
    """Over repeated measurements, 95 % intervals of energy's error hold the true score."""
    rng = np.random.default_rng(2)
    p, cost = np.array([0.7, 0.8, 0.85]), np.array([20.0, 60.0, 100.0])
    truth = p / (1 + cost / 200)
    scoring = intervals.Scoring(["energy_wh"], [1.0], reference={"energy_wh": Bounds(0.0, 200.0)})
    hits = []
    for _ in range(200):
        measured = cost * (1 + 0.05 * rng.standard_normal(3))
        runs = _runs(list(zip("abc", p, measured, strict=True)))
        found = intervals.intervals(runs, scoring, error={"energy_wh": 0.05}, draws=400)
        hits.append((found["ci_low"] <= truth) & (truth <= found["ci_high"]))
    assert 0.92 <= np.mean(hits) <= 0.98


def test_the_same_seed_gives_the_same_interval() -> None:
    runs = _runs([("a", 0.6, 1.0), ("a", 0.8, 2.0), ("b", 0.7, 3.0)])
    scoring = intervals.Scoring(["energy_wh"], [1.0])
    first, second = (
        intervals.intervals(runs, scoring, error={"energy_wh": 0.05}) for _ in range(2)
    )
    pd.testing.assert_frame_equal(first, second)


def test_one_run_varies_as_the_runs_of_the_other_models() -> None:
    # variances 0.0002 of a and 0.0014 of b with 1 and 2 degrees of freedom: (0.0002 + 0.0028) / 3
    rows = [("a", 0.80, 10.0), ("a", 0.82, 10.0), ("b", 0.70, 20.0), ("b", 0.70 + 0.0648074, 20.0)]
    runs = _runs([*rows, ("b", 0.70 + 0.0648074 / 2, 20.0), ("c", 0.6, 5.0)])
    b = np.array([0.70, 0.70 + 0.0648074, 0.70 + 0.0648074 / 2])
    pooled = np.sqrt((0.0002 + 2 * b.var(ddof=1)) / 3)
    found = intervals.intervals(
        runs, intervals.Scoring(["energy_wh"], [1.0]), error={}, draws=100_000
    )
    # c has R = 0 in every draw, so that its score is P: 0.6 ± t of 3 degrees of freedom
    off = scipy_stats.t.ppf(0.975, 3) * pooled
    assert found.loc["c", "ci_low"] == pytest.approx(0.6 - off, abs=2e-3)
    assert found.loc["c", "ci_high"] == pytest.approx(0.6 + off, abs=2e-3)


def test_pooled_spread_by_hand() -> None:
    # a: P ±0.01, cost ±10 %, together; b: P ±0.02, cost ±20 %, against each other; c has one run
    of = {
        "performance": [np.array([0.79, 0.81]), np.array([0.48, 0.52]), np.array([0.9])],
        "energy_wh": [np.array([9.0, 11.0]), np.array([24.0, 16.0]), np.array([1.0])],
    }
    spread, freedom = intervals.pooled_spread(of, ["energy_wh"])
    assert freedom == 2
    # sums over both models: 2 (0.01² + 0.02²), 2 (0.01 · 0.1 - 0.02 · 0.2), 2 (0.1² + 0.2²)
    expected = [[0.0010 / 2, -0.006 / 2], [-0.006 / 2, 0.10 / 2]]
    assert spread == pytest.approx(np.array(expected))


def test_the_interval_of_one_run_covers_the_true_score_as_often_as_promised() -> None:
    """Four models with three seeds each and one with one seed, measured again and again."""
    rng = np.random.default_rng(3)
    p, cost = np.linspace(0.7, 0.8, 5), np.linspace(20.0, 100.0, 5)
    truth = p[0] / (1 + cost[0] / 200)
    scoring = intervals.Scoring(["energy_wh"], [1.0], reference={"energy_wh": Bounds(0.0, 200.0)})
    names = [*"abbbcccdddeee"]
    of = np.array(["abcde".index(name) for name in names])
    hits = 0
    for _ in range(300):
        runs = _runs(
            [
                (name, p[j] + 0.02 * z, cost[j] * (1 + 0.05 * y))
                for name, j, z, y in zip(
                    names, of, rng.standard_normal(13), rng.standard_normal(13), strict=True
                )
            ]
        )
        low, high = intervals.intervals(runs, scoring, error={}, draws=400).loc["a"].iloc[:2]
        hits += low <= truth <= high
    assert 0.92 <= hits / 300 <= 0.98  # 0 where its own run is all that counts


def test_where_the_scale_holds_r_one_run_has_no_interval() -> None:
    runs = _runs([("a", 0.8, 10.0), ("b", 0.9, 30.0), ("c", 0.6, 20.0)])
    found = intervals.intervals(
        runs, intervals.Scoring(["energy_wh"], [1.0]), error={"energy_wh": 0.05}
    )
    why = "one run, R fixed by the scale"
    assert found["no_interval"].to_dict() == {"a": why, "b": why, "c": ""}
    assert found["ci_low"].notna().tolist() == [False, False, True]


def test_intervals_as_people_read_them() -> None:
    rows = pd.DataFrame(
        {
            "ci_low": [np.nan, 0.40625],
            "ci_high": [np.nan, 0.4375],
            "no_interval": ["its runs give one score", ""],
            "rank_low": [1, 2],
            "rank_high": [1, 2],
        }
    )
    none = "none: its runs give one score"
    assert intervals.interval_texts(rows) == ([none, "0.4062–0.4375"], ["1–1", "2–2"])
    assert intervals.interval_texts(rows.head(1)) == ([none], [""])
