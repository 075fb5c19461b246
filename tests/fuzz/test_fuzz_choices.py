"""Choosing and testing beside brute force and SciPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from odd import numbers, unless_refused
from scipy import stats as scipy_stats

from pepr_mlops.comparison import pepr, selection, significance

BETTER = {"performance": "higher", "energy_wh": "lower", "memory_gb": "lower"}


def _models(*, odd: bool) -> st.SearchStrategy[pd.DataFrame]:
    """Up to eight models; coarse numbers, so that many are equal."""
    coarse = st.integers(0, 4).map(lambda n: n / 4)
    number = st.one_of(coarse, st.floats(0, 1), numbers() if odd else coarse)
    row = st.tuples(number, number, number)
    return st.lists(row, max_size=8).map(
        lambda rows: pd.DataFrame(rows, columns=list(BETTER), dtype=float).assign(
            model=[f"m{i}" for i in range(len(rows))]
        )
    )


# Choosing ----------------------------------------------------------------------------------------


def _dominates(a: dict[str, float], b: dict[str, float]) -> bool:
    as_good = all(a[c] >= b[c] if d == "higher" else a[c] <= b[c] for c, d in BETTER.items())
    return as_good and any(a[c] != b[c] for c in BETTER)


@given(_models(odd=True))
def test_the_pareto_set_is_what_no_other_beats(models: pd.DataFrame) -> None:
    front = unless_refused(lambda: selection.pareto(models, BETTER))  # type: ignore[arg-type]
    rows = models.to_dict("records")
    finite = all(math.isfinite(row[c]) for row in rows for c in BETTER)
    assert (front is not None) == (finite and len(rows) > 0)
    if front is not None:
        assert front.tolist() == [not any(_dominates(b, a) for b in rows) for a in rows]


_BUDGETS = st.lists(
    st.tuples(st.sampled_from(list(BETTER)), st.sampled_from(["max", "min"]), numbers(0, 1)),
    max_size=3,
)


@given(_models(odd=True), _BUDGETS)
def test_the_best_under_budgets_is_what_brute_force_finds(
    models: pd.DataFrame, limits: list[tuple[str, Any, float]]
) -> None:
    budgets = unless_refused(lambda: [selection.Budget(*budget) for budget in limits])
    assert (budgets is not None) == all(math.isfinite(limit) for *_, limit in limits)
    if budgets is None:
        return
    found = selection.select(models, budgets)

    def met(row: dict[str, float], but: int | None = None, only: int | None = None) -> bool:
        return all(
            row[c] <= limit if kind == "max" else row[c] >= limit
            for i, (c, kind, limit) in enumerate(limits)
            if i != but and only in (None, i)
        )

    rows = models.to_dict("records")
    fitting = [r for r in rows if met(r) and not math.isnan(r["performance"])]
    fitting.sort(key=lambda r: -r["performance"])
    assert found.fitting["model"].tolist() == [r["model"] for r in fitting]
    for i, row in enumerate(found.budgets.to_dict("records")):
        column, kind, limit = limits[i]
        outside = [
            r for r in rows if not (r[column] <= limit if kind == "max" else r[column] >= limit)
        ]
        assert row["excluded"] == len(outside)
        assert row["only"] == sum(met(r, i) for r in outside)
        without = [r for r in rows if met(r, i) and not math.isnan(r["performance"])]
        best = max((r["performance"] for r in without), default=None)
        gains = best is not None and (not fitting or best > fitting[0]["performance"])
        assert pd.notna(row["best"]) == gains
        if gains and fitting:
            assert row["gain"] == best - fitting[0]["performance"]


@given(_models(odd=False))
def test_the_knee_is_farthest_above_the_line_of_extremes(models: pd.DataFrame) -> None:
    assume(len(models))
    at = selection.knee(models, "performance", "energy_wh")
    rows = models.to_dict("index")
    pairs = {k: (r["energy_wh"], r["performance"]) for k, r in rows.items()}
    front = [
        k
        for k, (x, y) in pairs.items()
        if not any(a <= x and b >= y and (a, b) != (x, y) for a, b in pairs.values())
    ]
    (x0, y0), (x1, y1) = min(pairs[k] for k in front), max(pairs[k] for k in front)
    if x0 == x1 or len(front) < 3:
        assert at is None
        return
    above = {k: (pairs[k][1] - y0) / (y1 - y0) - (pairs[k][0] - x0) / (x1 - x0) for k in front}
    if at is None:
        assert max(above.values()) < 1e-9
    else:
        assert above[at] == pytest.approx(max(above.values()))  # type: ignore[index]


# Testing -----------------------------------------------------------------------------------------

_SAMPLE = st.lists(
    st.integers(0, 10).map(lambda n: n / 10) | st.floats(0, 1).map(lambda v: round(v, 6)),
    max_size=8,
)


def _close(found: float, expected: float) -> bool:
    return bool(np.isclose(found, expected, rtol=1e-6, atol=1e-9, equal_nan=True))


@given(_SAMPLE, _SAMPLE)
def test_groups_are_tested_as_scipy_does(a: list[float], b: list[float]) -> None:
    found = unless_refused(lambda: significance.unpaired(a, b))
    assert (found is None) == (min(len(a), len(b)) < 3)
    if found is None:
        return
    t, u = found
    assert t.difference == pytest.approx(np.mean(a) - np.mean(b))
    pairs = [(x > y) - (x < y) for x in a for y in b]
    assert u.effect == pytest.approx(sum(pairs) / len(pairs))
    assert _close(u.p, scipy_stats.mannwhitneyu(a, b).pvalue)
    if len({*a}) == 1 and len({*b}) == 1:
        assert math.isnan(t.effect)
        return
    expected = scipy_stats.ttest_ind(a, b)
    assert _close(t.statistic, expected.statistic)
    assert _close(t.p, expected.pvalue)
    assert abs(t.effect) < 1e8


@given(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), max_size=8))
def test_pairs_are_tested_as_scipy_does(pairs: list[tuple[int, int]]) -> None:
    # of whole numbers differences are exact, and those of their tenths are not
    a, b = (pd.Series([pair[i] / 10 for pair in pairs], dtype=float) for i in (0, 1))
    found = unless_refused(lambda: significance.paired(a, b))
    assert (found is None) == (len(pairs) < 3)
    if found is None:
        return
    t, w = found
    change = np.array([x - y for x, y in pairs]) / 1.0
    assert t.difference == pytest.approx(change.mean() / 10)
    if len(set(change)) == 1:
        assert math.isnan(t.effect)
        assert math.isnan(t.p)
        return
    expected = scipy_stats.ttest_1samp(change, 0)
    assert _close(t.statistic, expected.statistic)
    assert _close(t.p, expected.pvalue)
    assert t.effect == pytest.approx(change.mean() / change.std(ddof=1))
    ranks = scipy_stats.rankdata(np.abs(change[change != 0]))
    signs = np.sign(change[change != 0])
    assert w.effect == pytest.approx((signs * ranks).sum() / ranks.sum())
    assert _close(w.p, scipy_stats.wilcoxon(change).pvalue)


@given(st.lists(st.floats(0, 1) | st.just(math.nan), max_size=9))
def test_holm_is_never_below_p_and_never_above_its_number_of_tests(p: list[float]) -> None:
    found = significance.holm(p)
    known = [v for v in p if not math.isnan(v)]
    for value, corrected in zip(p, found, strict=True):
        if math.isnan(value):
            assert math.isnan(corrected)
        else:
            smaller = [v for v in known if v <= value]
            steps = [v * (len(known) - sorted(known).index(v)) for v in smaller]
            assert corrected == pytest.approx(min(1.0, max(steps)))


# The curve ---------------------------------------------------------------------------------------


@given(st.lists(st.tuples(numbers(0, 1), numbers(0, 1)), max_size=6))
def test_a_curve_is_that_of_its_points_or_is_refused(points: list[tuple[float, float]]) -> None:
    p, r = [p for p, _ in points], [r for _, r in points]
    found = unless_refused(lambda: pepr.curve(p, r))
    valid = all(0 <= v <= 1 for v in [*p, *r]) and len(points) > 0
    assert (found is not None) == valid
    if found is not None:
        assert pepr.peak(found).score == pytest.approx(max(a / (1 + b) for a, b in points))


# What was found -----------------------------------------------------------------------------------


def test_differences_within_rounding_are_ties() -> None:
    # 0.3 - 0.1, 0.5 - 0.3, 0.9 - 0.7: three numbers in a computer, one to everybody else
    a, b = pd.Series([0.3, 0.5, 0.9, 0.1]), pd.Series([0.1, 0.3, 0.7, 0.3])
    t, w = significance.paired(a, b)
    assert w.effect == pytest.approx((3 - 1) * 2.5 / 10)
    t, _ = significance.paired(a[:3], b[:3])
    assert math.isnan(t.effect)  # 0.2 everywhere: the spread is 0 and d_z is not defined


def test_groups_that_vary_by_rounding_alone_have_no_effect_size() -> None:
    t, u = significance.unpaired([0.1 + 0.2, 0.3, 0.3], [0.4, 0.7 - 0.3, 0.4])
    assert math.isnan(t.effect)
    assert u.effect == -1
