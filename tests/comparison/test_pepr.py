"""Scores, normalisation and curves, against numbers anyone can check by hand."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.interpolate import PchipInterpolator

from pepr_mlops.comparison.pepr import (
    Bounds,
    Reference,
    bounds,
    curve,
    normalise,
    outside,
    peak,
    pepr,
)
from pepr_mlops.errors import WrongUse

# The score ---------------------------------------------------------------------------------------


def test_the_score_is_performance_over_one_plus_resource() -> None:
    scores = pepr(pd.Series({"a": 0.8, "b": 0.9}), pd.Series({"b": 1.0, "a": 0.25}))
    assert scores.to_dict() == {"a": 0.8 / 1.25, "b": 0.45}  # joined by model, not by position


def test_alpha_tempers_the_resource() -> None:
    # αP / (α + R) = 4 · 0.9 / (4 + 0.5)
    assert pepr([0.9], [0.5], alpha=4).tolist() == [pytest.approx(0.8)]
    assert pepr([0.9], [0.5], alpha=1).tolist() == [pytest.approx(0.6)]


def test_several_resources_are_weighted() -> None:
    resources = pd.DataFrame({"E": [0.4, 0.0], "M": [0.2, 1.0]})
    scores = pepr([0.65, 0.9], resources, weights=[0.5, 0.5])
    assert scores.tolist() == pytest.approx([0.65 / 1.3, 0.6])
    scores = pepr([0.65, 0.9], resources, weights=[0.25, 0.75])
    assert scores.tolist() == pytest.approx([0.65 / 1.25, 0.9 / 1.75])


@pytest.mark.parametrize(
    ("performance", "resource", "options", "message"),
    [
        ({"a": 0.5, "b": 1.2}, [0, 0], {}, "performance: 1.2 of 'b' is not in [0, 1]"),
        ({"a": 0.5, "b": np.nan}, [0, 0], {}, "performance: nan of 'b'"),
        ({"a": -0.1, "b": -0.2}, [0, 0], {}, "performance: -0.1 of 'a' (and 1 more rows)"),
        ({"a": 0.5, "b": 0.5}, [0, 2], {}, "R: 2 of 'b' is not in [0, 1]"),
        ({"a": 0.5}, [0], {"alpha": 0.5}, "alpha: 0.5 is not 1 or more"),
        ({"a": 0.5}, [0], {"weights": [0.5]}, "weights: 0.5 sum to 0.5; make it 1"),
        ({"a": 0.5}, [0], {"weights": [0.5, 0.5]}, "weights: 2 for 1 resources"),
        ({"a": 0.5}, [0, 0], {}, "resources: 2 rows for 1 of performance"),
        ({}, [], {}, "performance: there are no models"),
    ],
)
def test_a_value_that_cannot_be_scored_is_refused_with_its_row(
    performance: dict[str, float], resource: list[float], options: dict[str, object], message: str
) -> None:
    p = pd.Series(performance, dtype=float)
    with pytest.raises(WrongUse, match=re.escape(message)):
        pepr(p, np.array(resource, dtype=float), **options)  # type: ignore[arg-type]


def test_weights_with_a_negative_one_are_refused() -> None:
    with pytest.raises(WrongUse, match=r"weights: 1\.5, -0\.5 has a negative"):
        pepr([0.5], np.zeros((1, 2)), weights=[1.5, -0.5])


# The four salient features of the paper's section 2 ----------------------------------------------


def test_feature_low_performance_is_insensitive_to_resources() -> None:
    spread = {p: np.ptp(pepr([p, p], [0.0, 1.0])) for p in (0.0, 0.1, 0.9)}
    assert spread[0.0] == 0
    assert spread[0.1] == pytest.approx(0.05)
    assert spread[0.9] == pytest.approx(0.45)


def test_feature_a_single_model_scores_its_performance() -> None:
    for method in ("minmax", "zero", "robust"):
        r = normalise([123.0], bounds([123.0], method))
        assert pepr([0.87], r).tolist() == [0.87]


def test_feature_of_two_models_the_dearer_scores_half() -> None:
    cost = [10.0, 250.0]
    scores = pepr([0.7, 0.9], normalise(cost, bounds(cost)))
    assert scores.tolist() == [0.7, 0.45]


def test_feature_guessing_at_no_cost_scores_its_chance() -> None:
    # of two classes: no cost, half right; beaten by any model of full cost that is always right
    assert pepr([0.5, 1.0], [0.0, 1.0]).tolist() == [0.5, 0.5]
    assert pepr([1 / 7], [0.0]).tolist() == [1 / 7]


# Normalisation -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("minmax", [0.0, 0.25, 1.0]),
        ("zero", [0.2, 0.4, 1.0]),
        # quantiles 0.25 and 0.75 of 2, 4, 10 are 3 and 7
        ("robust", [0.0, 0.25, 1.0]),
    ],
)
def test_normalisations(method: str, expected: list[float]) -> None:
    cost = pd.Series([2.0, 4.0, 10.0], ["a", "b", "c"])
    by = bounds(cost, method, (0.25, 0.75))  # type: ignore[arg-type]
    assert normalise(cost, by).to_dict() == pytest.approx(dict(zip("abc", expected, strict=True)))


@pytest.mark.parametrize("method", ["minmax", "zero", "robust"])
def test_equal_costs_are_no_cost(method: str) -> None:
    cost = [5.0, 5.0, 5.0]
    assert normalise(cost, bounds(cost, method)).tolist() == [0, 0, 0]  # type: ignore[arg-type]


def test_a_reference_clips_and_counts_what_lies_outside() -> None:
    by = Bounds(10.0, 20.0)
    cost = [5.0, 10.0, 15.0, 20.0, 40.0]
    assert normalise(cost, by).tolist() == [0, 0, 0.5, 1, 1]
    assert outside(cost, by) == 2


def test_a_reference_is_saved_with_its_origin() -> None:
    origin = {"comparison_set": "derma", "models": 131, "shared": {"epochs": "10"}}
    saved = Reference({"energy_wh": Bounds(1.5, 80.25)}, origin)
    again = Reference.from_dict(json.loads(json.dumps(saved.as_dict())))
    assert again == saved


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"bounds": {"E": 1}, "origin": {}},
        {"bounds": {}},
        {"bounds": {}, "origin": {"shared": None}},
        {"bounds": {}, "origin": {"shared": [1]}},
    ],
)
def test_anything_else_is_no_reference(content: object) -> None:
    with pytest.raises(WrongUse, match="reference: this is not a saved reference"):
        Reference.from_dict(content)


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        ({}, "the set is empty"),
        ({"a": 1.0, "b": -2.0}, "cost: -2 of 'b' is not a finite number from 0"),
        ({"a": np.inf}, "cost: inf of 'a'"),
        ({"a": 1.0, "b": np.nan}, "cost: nan of 'b'"),
    ],
)
def test_impossible_costs_name_the_row(cost: dict[str, float], message: str) -> None:
    series = pd.Series(cost, dtype=float)
    for work in (lambda: bounds(series), lambda: normalise(series, Bounds(0, 1))):
        with pytest.raises(WrongUse, match=re.escape(message)):
            work()


def test_bounds_must_be_a_range() -> None:
    with pytest.raises(WrongUse, match="bounds: 3 to 2 is not a range"):
        Bounds(3, 2)


def test_a_missing_reference_and_an_unknown_method_are_refused() -> None:
    with pytest.raises(WrongUse, match="reference takes saved bounds"):
        bounds([1.0, 2.0], "reference")
    with pytest.raises(WrongUse, match="'max' is not one of minmax, zero, robust, reference"):
        bounds([1.0, 2.0], "max")  # type: ignore[arg-type]


# The curve ---------------------------------------------------------------------------------------

# P = 0.5 + R - R²/2 on [0, 1]: the derivative of P / (1 + R) is zero where (1 - R)(1 + R) = P,
# that is R² + 2R - 1 = 0, so at R = √2 - 1, where the score is the slope of P, 2 - √2.
_R = np.linspace(0, 1, 1001)
_P = 0.5 + _R - _R**2 / 2


def test_the_curve_and_its_maximum() -> None:
    points = curve(_P[::-1], _R[::-1])
    assert points["R"].is_monotonic_increasing
    assert points["score"].to_numpy() == pytest.approx(_P / (1 + _R))
    top = peak(points)
    assert top.resource == pytest.approx(np.sqrt(2) - 1, abs=1e-3)
    assert top.score == pytest.approx(2 - np.sqrt(2), abs=1e-6)


def test_of_equal_maxima_the_cheapest_counts() -> None:
    top = peak(curve([0.6, 0.4, 0.3], [0.5, 0.0, 0.1]))  # 0.4, 0.4, 0.27
    assert (top.resource, top.performance, top.score) == (0.0, 0.4, 0.4)


@given(
    st.lists(st.floats(0, 1), min_size=3, max_size=8),
    st.lists(st.floats(0.05, 1), min_size=2, max_size=7),
)
def test_the_curve_is_an_integral_and_bounded(levels: list[float], gaps: list[float]) -> None:
    """PePR(R) = P(0) + ∫₀ᴿ P'(r)/(1+r) - P(r)/(1+r)² dr for increasing P; it lies between P/2 and
    P, and between P(0)/(1+R) and P(1)/(1+R)."""
    n = min(len(levels), len(gaps) + 1)
    r = np.concatenate([[0.0], np.cumsum(gaps[: n - 1])])
    r /= r[-1]
    p = np.sort(levels[:n])
    f = PchipInterpolator(r, p)  # monotone, once differentiable
    slope = f.derivative()
    grid = np.linspace(0, 1, 11)
    values = np.clip(f(grid), 0, 1)
    scores = curve(values, grid)["score"].to_numpy()
    for at, score in zip(grid, scores, strict=True):
        inner = [x for x in r if 0 < x < at]
        integral, _ = quad(
            lambda x: slope(x) / (1 + x) - f(x) / (1 + x) ** 2,
            0,
            at,
            points=inner or None,
            limit=200,
        )
        assert score == pytest.approx(f(0) + integral, abs=1e-6)
    assert (scores <= values + 1e-12).all()
    assert (scores >= values / 2 - 1e-12).all()
    assert (scores >= p[0] / (1 + grid) - 1e-12).all()
    assert (scores <= p[-1] / (1 + grid) + 1e-12).all()
