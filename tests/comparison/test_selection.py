"""Choosing under budgets, and Pareto sets, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pepr_mlops.comparison.selection import Budget, knee, pareto, select
from pepr_mlops.errors import WrongUse

MODELS = pd.DataFrame(
    {
        "model": ["small", "middle", "large", "huge", "odd"],
        "performance": [0.70, 0.80, 0.90, 0.91, 0.60],
        "energy_wh": [1.0, 2.0, 8.0, 30.0, 40.0],
        "memory_gb": [1.0, 5.0, 3.0, 9.0, np.nan],
    }
)


def test_the_best_within_all_budgets_and_the_runners_up() -> None:
    found = select(MODELS, [Budget("energy_wh", "max", 10), Budget("performance", "min", 0.7)])
    assert found.fitting["model"].tolist() == ["large", "middle", "small"]


def test_what_each_budget_excludes_and_what_dropping_it_brings() -> None:
    found = select(MODELS, [Budget("energy_wh", "max", 10), Budget("memory_gb", "max", 2)])
    assert found.fitting["model"].tolist() == ["small"]
    energy, memory = found.budgets.to_dict("records")
    assert energy["budget"] == "energy_wh ≤ 10"
    assert (energy["excluded"], energy["only"]) == (2, 0)
    assert pd.isna(energy["best"])
    assert (memory["excluded"], memory["only"]) == (4, 2)  # not known counts as outside
    assert (memory["best"], memory["needed"]) == ("large", 3.0)
    assert memory["gain"] == pytest.approx(0.2)


def test_nothing_fits() -> None:
    found = select(MODELS, [Budget("energy_wh", "max", 0.5)])
    assert found.fitting.empty
    (row,) = found.budgets.to_dict("records")
    assert (row["best"], row["needed"]) == ("huge", 30.0)
    assert pd.isna(row["gain"])  # there is nothing to gain over


def test_an_unknown_column_is_refused_with_the_nearest() -> None:
    with pytest.raises(WrongUse, match="energy_w: no such column; did you mean 'energy_wh'"):
        select(MODELS, [Budget("energy_w", "max", 1)])


def test_a_limit_must_be_finite() -> None:
    with pytest.raises(WrongUse, match="energy_wh: nan is no limit"):
        Budget("energy_wh", "max", float("nan"))


def test_the_pareto_set_of_two_objectives() -> None:
    front = pareto(MODELS, {"performance": "higher", "energy_wh": "lower"})
    assert front.tolist() == [True, True, True, True, False]


def test_the_pareto_set_of_three_objectives_keeps_equals() -> None:
    table = pd.DataFrame(
        {"p": [0.9, 0.9, 0.8, 0.7], "e": [5.0, 5.0, 5.0, 9.0], "m": [2.0, 2.0, 1.0, 3.0]}
    )
    better = {"p": "higher", "e": "lower", "m": "lower"}
    assert pareto(table, better).tolist() == [True, True, True, False]  # type: ignore[arg-type]


def test_the_pareto_set_equals_its_definition() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.integers(0, 6, (60, 3)), columns=list("pem"))
    gain = table.to_numpy() * [1, -1, -1]
    beaten = [any((o >= g).all() and (o > g).any() for o in gain) for g in gain]
    better = {"p": "higher", "e": "lower", "m": "lower"}
    assert pareto(table, better).tolist() == [not b for b in beaten]  # type: ignore[arg-type]


def test_the_knee_is_farthest_above_the_line_of_the_extremes() -> None:
    # scaled: (0, 0), (1/29, 10/21), (7/29, 20/21), (1, 1): heights 0, 0.442, 0.711, 0
    assert knee(MODELS.set_index("model"), "performance", "energy_wh") == "large"


def test_without_three_models_in_the_set_there_is_no_knee() -> None:
    assert knee(MODELS[:2], "performance", "energy_wh") is None


def test_missing_values_and_one_objective_are_refused() -> None:
    with pytest.raises(WrongUse, match="memory_gb: 4 has no finite value"):
        pareto(MODELS, {"performance": "higher", "memory_gb": "lower"})
    with pytest.raises(WrongUse, match="two or more"):
        pareto(MODELS, {"performance": "higher"})
    with pytest.raises(WrongUse, match="the set is empty"):
        pareto(MODELS[:0], {"performance": "higher", "energy_wh": "lower"})
