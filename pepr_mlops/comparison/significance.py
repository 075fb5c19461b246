"""Do groups of models, or the same models under two conditions, differ? Pure.

Tests with their effect sizes, and the correction for testing many times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import ndtr, stdtr

from pepr_mlops.comparison import Comparison
from pepr_mlops.comparison.pepr import Floats
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.names import COMPARED, ENERGY_OF, PERFORMANCE
from pepr_mlops.paper_models import paper_models

GROUPS = {"size": ("small", "large"), "kind": ("CNN", "Other"), "efficient": ("yes", "no")}
# Conditions by name and the column they are; other data sets are no condition of training.
CONDITIONS = {
    "dataset_size" if c == "size" else c: c
    for c in (*COMPARED, *ENERGY_OF, "memory_metric")
    if c not in ("dataset", "data_digest")
}
COLUMNS = [
    *("by", "where", "quantity", "a", "b", "n_a", "n_b", "mean_a", "mean_b"),
    *("median_a", "median_b", "difference", "test", "statistic", "p", "p_holm"),
    *("effect", "effect_name"),
]
FEWEST = 3  # observations that a test needs
_ROUNDING = 1e-12  # relative; smaller differences are rounding errors

Found = tuple[float, float]  # the statistic of a test and its two-sided p
_NONE: Found = (np.nan, np.nan)  # of samples that do not vary


@dataclass(frozen=True)
class Test:
    """One test of a difference between two samples, and how large the difference is.

    `effect` is named by `effect_name`; `difference` is `a` minus `b` in the unit of the samples,
    of means for t tests and of medians for rank tests.
    """

    test: str
    n_a: int
    n_b: int
    statistic: float
    p: float
    difference: float
    effect: float
    effect_name: str


def paired(a: pd.Series[float], b: pd.Series[float]) -> list[Test]:
    """Tests of the same models under two conditions, joined on the index.

    Paired t with Cohen's d_z (mean difference over the standard deviation of the differences) and
    Wilcoxon's signed-rank test with the matched-pairs rank-biserial correlation (the share of the
    rank sum in favour of `a` minus the share against; D. S. Kerby 2014). Models that only one
    sample has are left out, and without any spread there is no t. Raises
    `WrongUse` for an index with duplicates and fewer than 3 pairs.
    """
    for sample in (a, b):
        if not sample.index.is_unique:
            twice = sample.index[sample.index.duplicated()][0]
            raise WrongUse(f"pairs: {twice!r} is there twice; average its runs first")
    both = pd.concat([a, b], axis=1, keys=["a", "b"], join="inner").dropna()
    if len(both) < FEWEST:
        raise WrongUse(f"pairs: {len(both)} models in common; a test needs {FEWEST}")
    x, y = both["a"].to_numpy(float), both["b"].to_numpy(float)
    n = len(both)
    change = np.where(np.isclose(x, y, rtol=_ROUNDING, atol=0), 0, x - y)
    largest = max(np.abs(x).max(), np.abs(y).max())
    mean, spread = float(change.mean()), float(change.std(ddof=1))
    t, effect = _NONE, np.nan
    if spread > _ROUNDING * largest:
        t, effect = _t(mean, spread / np.sqrt(n), n - 1), mean / spread
    tests = [_test("paired t", (n, n), t, mean, effect, "d_z")]
    change = _with_ties(change, largest)
    moved = change[change != 0]
    if not len(moved):
        return [*tests, Test("Wilcoxon", n, n, 0.0, 1.0, 0.0, 0.0, "rank-biserial")]
    ranks = _ranks(np.abs(moved))
    balance = (np.sign(moved) * ranks).sum() / ranks.sum()
    median = np.median(x) - np.median(y)
    signed = _wilcoxon(change, ranks)
    return [*tests, _test("Wilcoxon", (n, n), signed, median, balance, "rank-biserial")]


def unpaired(a: ArrayLike, b: ArrayLike) -> list[Test]:
    """Tests of two groups of different models.

    The paper's t test (equal variances) with Cohen's d (pooled standard deviation), and the
    Mann-Whitney U test with Cliff's delta (the chance that one of `a` exceeds one of `b`, minus
    the reverse). Raises `WrongUse` for a group of fewer than 3.
    """
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    n, m = len(x), len(y)
    if min(n, m) < FEWEST:
        raise WrongUse(f"groups: {n} and {m} models; a test needs {FEWEST} in each")
    pooled = np.sqrt(((n - 1) * x.var(ddof=1) + (m - 1) * y.var(ddof=1)) / (n + m - 2))
    difference = x.mean() - y.mean()
    largest = max(np.abs(x).max(), np.abs(y).max())
    t, effect = _NONE, np.nan
    if pooled > _ROUNDING * largest:
        t = _t(difference, pooled * np.sqrt(1 / n + 1 / m), n + m - 2)
        effect = difference / pooled
    u = _mann_whitney(_with_ties(x, largest), _with_ties(y, largest))
    median, delta = np.median(x) - np.median(y), 2 * u[0] / (n * m) - 1
    return [
        _test("t", (n, m), t, difference, effect, "d"),
        _test("Mann-Whitney", (n, m), u, median, delta, "Cliff's delta"),
    ]


def _test(
    name: str, n: tuple[int, int], found: Found, difference: float, effect: float, effect_name: str
) -> Test:
    statistic, p = map(float, found)
    return Test(name, *n, statistic, p, float(difference), float(effect), effect_name)


# The tests as SciPy computes them. Its module `stats` takes a second to import, so only samples so
# small that p is exact or permuted go there.


def _t(difference: float, error: float, freedom: int) -> Found:
    t = difference / error
    return t, 2 * stdtr(freedom, -abs(t))


def _mann_whitney(x: Floats, y: Floats) -> Found:
    """As `scipy.stats.mannwhitneyu`: U of `x`, and p by the normal distribution (with corrections
    for ties and continuity) unless a sample has up to 8 values and there are no ties."""
    n, m, both = len(x), len(y), np.concatenate([x, y])
    ties = np.unique(both, return_counts=True)[1]
    if min(n, m) <= 8 and ties.max() == 1:
        from scipy import stats

        found = stats.mannwhitneyu(x, y)
        return found.statistic, found.pvalue
    u = _ranks(both)[:n].sum() - n * (n + 1) / 2
    if len(ties) == 1:
        return u, 1.0
    total = n + m
    variance = n * m / 12 * (total + 1 - (ties**3 - ties).sum() / (total * (total - 1)))
    z = (max(u, n * m - u) - n * m / 2 - 0.5) / np.sqrt(variance)
    return u, min(1.0, 2 * ndtr(-z))


def _wilcoxon(change: Floats, ranks: Floats) -> Found:
    """As `scipy.stats.wilcoxon`: the lesser of the two rank sums, and p by the normal distribution
    for over 50 pairs, or over 13 with ties or equal pairs. `ranks` are those of the changes other
    than 0."""
    n, ties = len(ranks), np.unique(ranks, return_counts=True)[1]
    if len(change) <= (50 if ties.max() == 1 and n == len(change) else 13):
        from scipy import stats

        found = stats.wilcoxon(change)
        return found.statistic, found.pvalue
    positive = ranks[change[change != 0] > 0].sum()
    variance = (n * (n + 1) * (2 * n + 1) - (ties**3 - ties).sum() / 2) / 24
    z = (positive - n * (n + 1) / 4) / np.sqrt(variance)
    return min(positive, ranks.sum() - positive), 2 * ndtr(-abs(z))


def _ranks(values: Floats) -> Floats:
    """From 1, the mean rank for ties."""
    return np.asarray(pd.Series(values).rank(), dtype=float)


def _with_ties(values: Floats, largest: float) -> Floats:
    """Values over the largest, rounded so that they tie where only rounding errors differ."""
    return np.asarray(np.round(values / largest, 12)) if largest else values


def holm(p: ArrayLike) -> Floats:
    """p values corrected for being a family (S. Holm 1979), in their order; NaN stays NaN."""
    values = np.asarray(p, dtype=float)
    corrected = np.full_like(values, np.nan)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    steps = values[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def sizes(parameters: pd.Series[float]) -> pd.Series[str]:
    """`small` up to and with the median number of parameters, `large` above; missing stays so."""
    size = np.where(parameters <= parameters.median(), "small", "large")
    return pd.Series(size, parameters.index).where(parameters.notna())


def differences(comparison: Comparison, by: Sequence[str] = ()) -> pd.DataFrame:
    """Tests of P and of every score, one row each, in `COLUMNS`.

    Groups of models within each comparison set, by t and Mann-Whitney test (`unpaired`):
    `size` (small up to the median number of parameters of the set), `kind` (CNN or Other) and
    `efficient`, the last two as the paper's Table A.1 has them; other models are in neither group.
    The same models in two comparison sets that differ in one condition only, such as `pretrained`
    or `fraction`: paired t and Wilcoxon test (`paired`), and the paper's unpaired ones.

    `by` limits it to some groups and conditions. `p_holm` is corrected over all rows of one test.
    Raises `WrongUse` for an unknown `by` and `WorkFailed` where nothing can be tested.
    """
    for name in by:
        if name not in (*GROUPS, *CONDITIONS):
            valid = ", ".join((*GROUPS, *CONDITIONS))
            raise WrongUse(f"by: {name!r} is not a grouping; valid: {valid}")
    quantities = _wide(comparison)
    rows = [*_groups(comparison, quantities, by), *_conditions(comparison, quantities, by)]
    if not rows:
        raise WorkFailed(
            f"stats: nothing to test{' by ' + ', '.join(by) if by else ''}: groups need "
            f"{FEWEST} models on each side, and conditions two sets that differ in one "
            f"thing and share {FEWEST} models"
        )
    table = pd.DataFrame(rows)
    table["p_holm"] = table.groupby("test")["p"].transform(holm)
    return table[COLUMNS]


def _wide(comparison: Comparison) -> pd.DataFrame:
    """P and each score by comparison set and model."""
    scores = comparison.scores
    several = scores[scores.duplicated(["comparison_set", "resource", "model"], keep=False)]
    if len(several):
        first = several.iloc[0]
        raise WrongUse(
            f"stats: {first['comparison_set']} has several rows of a model ({first['model']}: "
            f"{first['variant']}), which are no models of their own; choose runs or resources "
            "that leave one"
        )
    keys = ["comparison_set", "model"]
    wide = scores.pivot(index=keys, columns="resource", values="score").add_prefix("PePR-")
    return wide.assign(**{PERFORMANCE: scores.groupby(keys)[PERFORMANCE].first()})


def _groups(
    comparison: Comparison, quantities: pd.DataFrame, by: Sequence[str]
) -> Iterator[dict[str, object]]:
    table = {m.model: m for m in paper_models()}
    for name, rows in quantities.groupby(level="comparison_set", sort=False):
        rows = rows.droplevel("comparison_set")
        used = comparison.used[comparison.used["comparison_set"] == name]
        parameters = used.groupby("model")["parameters"].first().reindex(rows.index)
        paper = [table.get(model) or table.get(model.split(".")[0]) for model in rows.index]
        efficient = [m and ("yes" if m.efficient else "no") for m in paper]
        members = {
            "size": sizes(parameters),
            "kind": pd.Series([m and m.kind for m in paper], rows.index),
            "efficient": pd.Series(efficient, rows.index),
        }
        for group, (a, b) in GROUPS.items():
            if by and group not in by:
                continue
            for quantity in rows:
                x = rows.loc[members[group] == a, quantity]
                y = rows.loc[members[group] == b, quantity]
                if min(len(x), len(y)) >= FEWEST:
                    place = {"by": group, "where": name, "quantity": quantity, "a": a, "b": b}
                    yield from _rows(place, x, y, unpaired(x, y))


def _conditions(
    comparison: Comparison, quantities: pd.DataFrame, by: Sequence[str]
) -> Iterator[dict[str, object]]:
    shared = comparison.sets.set_index("comparison_set")["shared"]
    names = {column: name for name, column in CONDITIONS.items()}
    for one, two in combinations(shared.index, 2):
        keys = shared[one].keys() | shared[two].keys()
        differ = [k for k in keys if shared[one].get(k) != shared[two].get(k)]
        if "size" in differ and "data_digest" in differ:
            differ.remove("data_digest")  # each size is a file of its own
        condition = names.get(differ[0]) if len(differ) == 1 else None
        if condition is None or (by and condition not in by):
            continue
        for quantity in quantities:
            x, y = quantities.loc[one, quantity], quantities.loc[two, quantity]
            common = x.index.intersection(y.index)
            if len(common) >= FEWEST:
                x, y = x[common], y[common]
                place = {"by": condition, "where": f"{one} / {two}", "quantity": quantity}
                place |= {"a": shared[one][differ[0]], "b": shared[two][differ[0]]}
                yield from _rows(place, x, y, [*paired(x, y), *unpaired(x, y)])


def _rows(
    place: dict[str, Any], x: pd.Series[float], y: pd.Series[float], tests: Sequence[Test]
) -> Iterator[dict[str, object]]:
    averages = {
        "mean_a": float(x.mean()),
        "mean_b": float(y.mean()),
        "median_a": float(x.median()),
        "median_b": float(y.median()),
    }
    for test in tests:
        yield {**place, **averages, **asdict(test)}
