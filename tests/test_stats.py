"""Tests, corrections and intervals, against SciPy, hand counts and published tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from pepr_mlops import stats
from pepr_mlops.errors import WrongUse
from pepr_mlops.score import Bounds


def test_paired_tests_join_by_model() -> None:
    rng = np.random.default_rng(0)
    models = [f"m{i}" for i in range(20)]
    a = pd.Series(rng.normal(0.7, 0.1, 20), models)
    b = a.sample(frac=1, random_state=1) + rng.normal(0.05, 0.02, 20)
    t, wilcoxon = stats.paired(a, b)
    ordered = b[models]
    assert t.p == scipy_stats.ttest_rel(a, ordered).pvalue
    assert wilcoxon.p == scipy_stats.wilcoxon(a, ordered).pvalue
    assert (t.n_a, t.n_b) == (20, 20)
    assert t.difference == pytest.approx((a - ordered).mean())
    assert t.effect == pytest.approx((a - ordered).mean() / (a - ordered).std(ddof=1))


def test_rank_biserial_by_hand() -> None:
    # differences 1, -2, 3, 4: ranks in favour 1 + 3 + 4, against 2, of 10
    a = pd.Series([2.0, 0.0, 4.0, 5.0], list("abcd"))
    b = pd.Series([1.0, 2.0, 1.0, 1.0], list("abcd"))
    assert stats.paired(a, b)[1].effect == pytest.approx((8 - 2) / 10)


def test_no_difference_at_all_is_no_evidence() -> None:
    a = pd.Series([0.1, 0.2, 0.3], list("abc"))
    t, wilcoxon = stats.paired(a, a.copy())
    assert np.isnan(t.effect)
    assert (wilcoxon.p, wilcoxon.effect) == (1.0, 0.0)


def test_rounding_is_no_difference() -> None:
    a = pd.Series([0.1, 0.2, 0.3, 0.4], list("abcd"))
    t, wilcoxon = stats.paired(a, a * 3 / 3 * (1 + 1e-15))
    assert (wilcoxon.p, wilcoxon.effect, t.difference) == (1.0, 0.0, 0.0)


def test_a_model_only_one_sample_has_is_left_out_and_a_doubled_one_refused() -> None:
    a = pd.Series([0.1, 0.3, 0.2, 0.9], list("abcz"))
    b = pd.Series([0.2, 0.5, 0.3], list("abc"))
    assert stats.paired(a, b)[0].n_a == 3
    with pytest.raises(WrongUse, match="'a' is there twice"):
        stats.paired(pd.Series([0.1, 0.2], ["a", "a"]), b)
    with pytest.raises(WrongUse, match="2 models in common; a test needs 3"):
        stats.paired(a, b[:2])


def test_unpaired_tests_and_their_effects() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(0, 1, 30), rng.normal(0.5, 2, 20)
    t, u = stats.unpaired(x, y)
    assert t.p == scipy_stats.ttest_ind(x, y).pvalue
    assert u.p == scipy_stats.mannwhitneyu(x, y).pvalue
    pooled = np.sqrt((29 * x.var(ddof=1) + 19 * y.var(ddof=1)) / 48)
    assert t.effect == pytest.approx((x.mean() - y.mean()) / pooled)
    larger = np.mean([[a > b for b in y] for a in x])
    smaller = np.mean([[a < b for b in y] for a in x])
    assert u.effect == pytest.approx(larger - smaller)


def test_groups_that_are_too_small_are_told() -> None:
    with pytest.raises(WrongUse, match="2 and 3 models"):
        stats.unpaired([1, 2], [1, 2, 3])


def test_holm_by_hand() -> None:
    # sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1; never smaller than the one before
    corrected = stats.holm([0.04, 0.01, np.nan, 0.03, 0.02])
    assert corrected == pytest.approx([0.06, 0.04, np.nan, 0.06, 0.06], nan_ok=True)
    assert stats.holm([0.9, 0.8]).tolist() == [1.0, 1.0]


def test_small_is_up_to_and_with_the_median() -> None:
    sizes = stats.sizes(pd.Series({"a": 1.0, "b": 2.0, "c": 3.0, "d": np.nan}))
    assert sizes[:3].to_dict() == {"a": "small", "b": "small", "c": "large"}
    assert pd.isna(sizes["d"])


# Intervals ---------------------------------------------------------------------------------------


def _runs(rows: list[tuple[str, float, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["model", "performance", "energy_wh"])


def test_without_error_and_seeds_the_interval_is_the_score() -> None:
    runs = _runs([("a", 0.8, 1.0), ("b", 0.9, 3.0), ("c", 0.6, 2.0)])
    found = stats.intervals(runs, stats.Scoring(["energy_wh"], [1.0]), error={}, top=1)
    expected = {"a": 0.8, "b": 0.45, "c": 0.6 / 1.5}
    assert found["ci_low"].to_dict() == pytest.approx(expected)
    assert found["ci_high"].to_dict() == pytest.approx(expected)
    assert found["rank_low"].to_dict() == found["rank_high"].to_dict() == {"a": 1, "b": 2, "c": 3}
    assert found["top_share"].to_dict() == {"a": 1, "b": 0, "c": 0}


def test_the_error_of_energy_alone_gives_the_interval_of_its_normal_law() -> None:
    runs = _runs([("a", 0.9, 50.0), ("b", 0.5, 100.0)])
    scoring = stats.Scoring(["energy_wh"], [1.0], reference={"energy_wh": Bounds(0.0, 100.0)})
    found = stats.intervals(runs, scoring, error={"energy_wh": 0.05}, draws=40_000)
    z = scipy_stats.norm.ppf(0.975)
    assert found.loc["a", "ci_low"] == pytest.approx(0.9 / (1 + 0.5 * (1 + 0.05 * z)), abs=5e-4)
    assert found.loc["a", "ci_high"] == pytest.approx(0.9 / (1 + 0.5 * (1 - 0.05 * z)), abs=5e-4)


def test_seeds_are_drawn_with_replacement() -> None:
    # two seeds of equal cost: the mean is 0.6, 0.7 or 0.8 with chances 1/4, 1/2, 1/4
    runs = _runs([("a", 0.6, 1.0), ("a", 0.8, 1.0), ("b", 0.7, 1.0)])
    scoring = stats.Scoring(["energy_wh"], [1.0])
    found = stats.intervals(runs, scoring, error={}, draws=40_000, level=0.4, top=1)
    assert (found.loc["a", "ci_low"], found.loc["a", "ci_high"]) == pytest.approx((0.7, 0.7))
    # a is first, alone or equal with b, in three of four draws
    assert found.loc["a", "top_share"] == pytest.approx(0.75, abs=0.01)
    wide = stats.intervals(runs, scoring, error={}, level=0.9)
    assert (wide.loc["a", "ci_low"], wide.loc["a", "ci_high"]) == pytest.approx((0.6, 0.8))


def test_the_costs_of_one_run_err_together() -> None:
    """CO2e under one intensity is energy in other units: half of each is all of one."""
    runs = _runs([("a", 0.8, 10.0), ("b", 0.9, 25.0), ("c", 0.7, 40.0)])
    runs["carbon_gco2e"] = runs["energy_wh"] * 0.4
    error = {"energy_wh": 0.05, "carbon_gco2e": 0.05}
    one = stats.intervals(runs, stats.Scoring(["energy_wh"], [1.0]), error=error)
    both = stats.Scoring(["energy_wh", "carbon_gco2e"], [0.5, 0.5])
    pd.testing.assert_frame_equal(stats.intervals(runs, both, error=error), one)


def test_intervals_cover_what_they_promise() -> None:
    """Over repeated measurements, 95 % intervals of energy's error hold the true score."""
    rng = np.random.default_rng(2)
    p, cost = np.array([0.7, 0.8, 0.85]), np.array([20.0, 60.0, 100.0])
    truth = p / (1 + cost / 200)
    scoring = stats.Scoring(["energy_wh"], [1.0], reference={"energy_wh": Bounds(0.0, 200.0)})
    hits = []
    for _ in range(200):
        measured = cost * (1 + 0.05 * rng.standard_normal(3))
        runs = _runs(list(zip("abc", p, measured, strict=True)))
        found = stats.intervals(runs, scoring, error={"energy_wh": 0.05}, draws=400)
        hits.append((found["ci_low"] <= truth) & (truth <= found["ci_high"]))
    assert 0.92 <= np.mean(hits) <= 0.98


def test_the_same_seed_gives_the_same_interval() -> None:
    runs = _runs([("a", 0.6, 1.0), ("a", 0.8, 2.0), ("b", 0.7, 3.0)])
    scoring = stats.Scoring(["energy_wh"], [1.0])
    first, second = (stats.intervals(runs, scoring, error={"energy_wh": 0.05}) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)


def test_intervals_that_hold_nothing_are_left_out() -> None:
    rows = pd.DataFrame(
        {
            "ci_low": [0.5, 0.40625],
            "ci_high": [0.5, 0.4375],
            "rank_low": [1, 2],
            "rank_high": [1, 2],
        }
    )
    assert stats.interval_texts(rows) == (["", "0.4062–0.4375"], ["1–1", "2–2"])
    assert stats.interval_texts(rows.head(1)) == ([""], [""])
