"""Good enough or not: bounds against normal laws, errors over many studies, and planted answers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

from pepr_mlops.comparison.draws import Draws
from pepr_mlops.comparison.good_enough import BAD, GOOD, OPEN, agreement, judge, saving
from pepr_mlops.errors import WrongUse


def _draws(
    value: list[float],
    *,
    by_images: float = 0.01,
    by_seeds: float = 0.0,
    draws: int = 40_000,
    seed: int = 0,
    missing: tuple[str, ...] | None = None,
) -> Draws:
    """Models whose P err independently and normally, with these standard deviations."""
    rng = np.random.default_rng(seed)
    images = by_images * rng.standard_normal((draws, len(value)))
    seeds = by_seeds * rng.standard_normal((draws, len(value)))
    return Draws(
        models=pd.Index([f"m{i}" for i in range(len(value))]),
        value=np.array(value),
        performance=np.array(value) + images + seeds,
        costs={},
        images=images,
        seeds=np.full(len(value), by_seeds**2),
        missing=missing or ("",) * len(value),
        sampled=np.ones(len(value), dtype=bool),
        spread=None,
    )


def test_of_two_models_the_bounds_are_one_sided_normal() -> None:
    found = judge(_draws([0.80, 0.79]), margin=0.05)
    width = np.sqrt(2) * 0.01
    one_sided, two_sided = (stats.norm.ppf(q) for q in (0.95, 0.975))
    assert found["behind"].tolist() == pytest.approx([0, 0.01])
    expected = [-0.01 + one_sided * width, 0.01 + one_sided * width]
    assert found["at_most"].tolist() == pytest.approx(expected, abs=4e-4)
    # bounds from below hold for both orders of a pair
    assert found["at_least"].tolist() == [0, pytest.approx(max(0, 0.01 - two_sided * width))]
    assert found["verdict"].tolist() == [GOOD, GOOD]


def test_the_bounds_are_dunnetts_for_models_of_equal_error() -> None:
    """All distances to one model: the quantile of the greatest of normals with correlation ½."""
    k = 3
    law = stats.multivariate_normal(np.zeros(k), 0.5 * np.eye(k) + 0.5)
    critical = optimize.brentq(lambda c: law.cdf(np.full(k, c)) - 0.95, 1, 4, xtol=1e-6)
    assert critical == pytest.approx(2.062, abs=1e-3)  # Dunnett's table, k = 3, ∞
    found = judge(_draws([0.9, 0.86, 0.85, 0.84]))
    width = np.sqrt(2) * 0.01
    assert found["at_most"].iloc[1] == pytest.approx(0.04 + critical * width, abs=6e-4)


def test_a_model_far_behind_is_not_good_enough_and_a_close_one_may_be() -> None:
    found = judge(_draws([0.9, 0.895, 0.80], by_images=0.004), margin=0.02)
    assert found["verdict"].tolist() == [GOOD, GOOD, BAD]
    found = judge(_draws([0.9, 0.885, 0.80], by_images=0.004), margin=0.02)
    assert found["verdict"].tolist() == [GOOD, OPEN, BAD]


def test_how_many_more_images_or_runs_are_needed() -> None:
    """Behind by 0.01 of a margin of 0.02, with c · se = 0.01 the bound is just met."""
    drawn = _draws([0.90, 0.89], by_images=0.01)
    (_, images), (_, runs) = (judge(drawn, 0.02)[c].items() for c in ("more_images", "more_runs"))
    needed = (stats.norm.ppf(0.95) * np.sqrt(2) * 0.01 / 0.01) ** 2
    assert images[1] == pytest.approx(needed, rel=0.03)
    assert runs[1] == 1
    more = judge(_draws([0.90, 0.89], by_images=1e-5, by_seeds=0.01), 0.02)
    assert more["more_images"].iloc[1] == 1
    assert more["more_runs"].iloc[1] == pytest.approx(needed, rel=0.03)
    both = judge(_draws([0.90, 0.89], by_images=0.01, by_seeds=0.01), 0.02)
    assert both[["more_images", "more_runs"]].iloc[1].tolist() == pytest.approx(
        [2 * needed] * 2, rel=0.04
    )
    # just at the margin nothing would
    assert judge(_draws([0.90, 0.88]), 0.02)["more_images"].isna().iloc[1]


def test_models_of_unknown_error_are_left_open() -> None:
    found = judge(_draws([0.90, 0.895, 0.8], by_images=0.001, missing=("lost", "", "")), 0.02)
    assert found["verdict"].tolist() == [OPEN, GOOD, BAD]
    assert found["at_most"].isna().tolist() == [True, False, False]
    # the best model may be the one of unknown error
    assert found["behind"].iloc[1] == pytest.approx(0.005)
    behind = judge(_draws([0.95, 0.9, 0.8], by_images=0.001, missing=("lost", "", "")), 0.02)
    assert behind["verdict"].tolist() == [OPEN, BAD, BAD]
    nothing = judge(_draws([0.9, 0.8], missing=("lost", "lost")))
    assert set(nothing["verdict"]) == {OPEN}


@pytest.mark.parametrize("truth", [[0.8] * 8, [0.8, 0.79, 0.779, 0.779, 0.77, 0.75, 0.75, 0.7]])
def test_false_claims_are_as_rare_as_promised(truth: list[float]) -> None:
    """With a margin of 0.02, one claim of a study in twenty may be false, about any model."""
    rng, margin, n = np.random.default_rng(11), 0.02, 600
    best = max(truth)
    good = np.array(truth) >= best - margin
    false_good = false_bad = 0
    for study in range(n):
        value = np.array(truth) + 0.01 * rng.standard_normal(len(truth))
        verdicts = judge(_draws(list(value), draws=500, seed=study), margin)["verdict"]
        false_good += bool((verdicts[~good] == GOOD).any())
        false_bad += bool((verdicts[good] == BAD).any())
    most = stats.binom.ppf(0.999, n, 0.05)
    assert false_good <= most
    assert false_bad <= most


def test_one_model_is_the_best() -> None:
    found = judge(_draws([0.8]))
    assert found[["at_most", "at_least"]].to_numpy().tolist() == [[0, 0]]
    assert found["verdict"].tolist() == [GOOD]


@pytest.mark.parametrize(
    ("margin", "level", "error"),
    [
        (0.0, 0.95, "margin: 0 is not between 0 and 1"),
        (1.0, 0.95, "margin: 1 is not between 0 and 1"),
        (0.01, 1.0, "confidence: 1 is not a share"),
        (0.01, 0.2, "confidence: 0.2 is not a share"),
    ],
)
def test_impossible_terms_are_refused(margin: float, level: float, error: str) -> None:
    with pytest.raises(WrongUse, match=error):
        judge(_draws([0.8]), margin, level)


def test_a_saving_is_a_difference_and_a_ratio_with_intervals() -> None:
    rng = np.random.default_rng(12)
    cost = np.array([10.0, 40.0])
    energies = cost * np.exp(0.05 * rng.standard_normal((40_000, 2)))
    drawn = _draws([0.8, 0.9], draws=10)
    found = saving(
        Draws(**{**drawn.__dict__, "costs": {"energy_wh": energies}}), "energy_wh", cost, 0, 1
    )
    assert (found.amount, found.times) == (30, 4)
    off = np.exp(1.96 * 0.05 * np.sqrt(2))
    assert (found.times_low, found.times_high) == pytest.approx((4 / off, 4 * off), rel=0.01)
    assert found.amount_low == pytest.approx(30 - 1.96 * 0.05 * np.hypot(10, 40), abs=0.2)
    free = Draws(**{**drawn.__dict__, "costs": {"energy_wh": energies * [0, 1]}})
    assert saving(free, "energy_wh", cost * [0, 1], 0, 1).times is None


def test_the_alpha_for_which_pepr_agrees() -> None:
    p, r = np.array([0.80, 0.90, 0.60]), np.array([0.1, 1.0, 0.0])
    # against the second: 0.80 (α + 1) ≥ 0.90 (α + 0.1) up to α = 7.1, always against the third
    assert agreement(p, r, 0) == pytest.approx((1.0, 7.1))
    assert agreement(p, r, 1) == (pytest.approx(7.1), np.inf)
    assert agreement(p, r, 2) is None
    for alpha in (1.0, 7.0, 7.2):
        winner = int((alpha * p / (alpha + r)).argmax())
        low, high = agreement(p, r, winner) or (np.nan, np.nan)
        assert low <= alpha <= high
