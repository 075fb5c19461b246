"""Moderated variances against limma's own numbers, and the pooled spread by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, special, stats

from pepr_mlops.comparison.spread import moderated, pooled


def _fitted(s2: np.ndarray, d: np.ndarray) -> tuple[float, float]:
    """Smyth's section 6.2, with SciPy's root finder in place of Newton's method."""
    e = np.log(s2) - special.digamma(d / 2) + np.log(d / 2)
    excess = e.var(ddof=1) - special.polygamma(1, d / 2).mean()
    half = optimize.brentq(lambda y: special.polygamma(1, y) - excess, 1e-3, 1e6, xtol=1e-12)
    return float(np.exp(e.mean() + special.digamma(half) - np.log(half))), 2 * half


def test_models_that_differ_in_spread_are_drawn_towards_the_prior() -> None:
    rng = np.random.default_rng(4)
    d = np.repeat([1.0, 2.0, 4.0], 100)
    s2 = 0.01 * rng.chisquare(d) / d * 3 / rng.chisquare(3, 300)
    found = moderated(s2, d)
    prior, prior_d = _fitted(s2, d)
    assert found.variance == pytest.approx((prior_d * prior + d * s2) / (prior_d + d), rel=1e-6)
    assert found.freedom == pytest.approx(np.minimum(prior_d + d, d.sum()), rel=1e-6)


def test_the_prior_of_many_models_is_the_one_they_are_from() -> None:
    """s² is s₀² F(d, d₀): with s₀² = 2e-4 and d₀ = 6, 20,000 models give both back."""
    rng = np.random.default_rng(5)
    d = np.full(20_000, 2.0)
    s2 = 2e-4 * stats.f.rvs(2, 6, size=20_000, random_state=rng)
    single = moderated(np.append(s2, 0.0), np.append(d, 0.0))
    assert single.variance[-1] == pytest.approx(2e-4, rel=0.05)
    assert single.freedom[-1] == pytest.approx(6, rel=0.1)


def test_models_of_equal_spread_share_the_pooled_variance() -> None:
    # two models are too few to differ: (1 · 0.0002 + 2 · 0.0014) / 3
    found = moderated(np.array([0.0002, 0.0014, 0.0]), np.array([1.0, 2.0, 0.0]))
    assert found.variance == pytest.approx([0.001] * 3)
    assert found.freedom.tolist() == [3, 3, 3]
    with pytest.raises(ValueError, match="no model has several runs"):
        moderated(np.zeros(2), np.zeros(2))


def test_equal_runs_have_no_spread() -> None:
    found = moderated(np.zeros(4), np.ones(4))
    assert found.variance.tolist() == [0, 0, 0, 0]


def test_pooled_by_hand() -> None:
    runs = pd.DataFrame(
        {"model": list("aabbbc"), "performance": [0.80, 0.82, 0.70, 0.73, 0.76, 0.5]}
    )
    # squares 2 · 0.01² of a and 2 · 0.03² of b over 1 + 2 degrees of freedom
    found = pooled(runs, ["model"], "elsewhere")
    assert found is not None
    assert found.sd == pytest.approx(np.sqrt(0.002 / 3))
    assert (found.freedom, found.source) == (3, "elsewhere")
    assert pooled(runs.drop_duplicates("model"), ["model"], "") is None
    assert pooled(runs.assign(performance=0.5), ["model"], "") is None
