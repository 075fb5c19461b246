"""The search for the cheapest model that is good enough: chances, its order, its budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from pepr_mlops.errors import WrongUse
from pepr_mlops.sweep import finals as finals_module
from pepr_mlops.sweep.finals import Finals, upper_spread
from pepr_mlops.sweep.frugal import requests, verdict
from pepr_mlops.sweep.observed import Objective, Observed, Request, known_of
from pepr_mlops.sweep.replay import Curves, replay

NORMAL = norm.ppf((np.arange(400) + 0.5) / 400)


def seen(costs: dict[str, float], curves: dict[str, Sequence[float]]) -> list[Observed]:
    """Costs that are measured for nothing, and curves of P."""
    found = [Observed(name, 0, None, cost, cost, 0.0) for name, cost in costs.items()]
    for name, curve in curves.items():
        cost = costs[name]
        found += [Observed(name, e, p, cost, cost, cost / 10) for e, p in enumerate(curve, 1)]
    return found


# How good the best of the others may be ----------------------------------------------------------


def test_the_upper_spread_of_a_normal_distribution_is_its_standard_deviation() -> None:
    assert upper_spread(0.7 + 0.03 * NORMAL) == pytest.approx(0.03, rel=0.01)
    # of 3, 4 and 5 the upper half is 4 and 5, 0.5 above the median in the middle
    assert upper_spread(np.array([1.0, 3.0, 4.0, 4.0, 5.0])) == pytest.approx(1.4826 * 0)
    assert upper_spread(np.array([1.0, 2.0, 4.0, 5.0])) == pytest.approx(1.4826 * 1.5)


def test_with_all_trained_the_margin_is_certain() -> None:
    finals = np.array([0.80, 0.89, 0.90, 0.7])
    assert list(Finals.of(()).within(finals, 0, 0.01)) == [0, 1, 1, 0]


@pytest.mark.parametrize("others", [1, 10, 100])
def test_the_chance_is_that_no_other_is_above_the_margin(others: int) -> None:
    # 400 finals tell μ = 0.5 and w = 0.05 well, so it is Φ((P + 0.01 - μ) / w) to that power
    finals = 0.5 + 0.05 * NORMAL
    found = Finals.of(()).within(finals, others, 0.01)
    expected = norm.cdf((finals[-1] + 0.01 - 0.5) / 0.05) ** others
    assert found[-1] == pytest.approx(expected, abs=0.02)
    assert found[-40] == 0  # more than the margin below the best of those that are trained


def test_no_model_is_above_1_so_near_it_the_margin_is_certain() -> None:
    prior = Finals.of([(1, 0.5 + 0.05 * NORMAL)])
    for finals in (Finals.of(()), prior):
        assert list(finals.within(np.array([0.995]), 100, 0.01)) == [1]
        assert list(finals.within(np.array([0.9, 0.99, 1.0]), 100, 0.01)) == [0, 1, 1]


def test_equal_finals_leave_the_others_open_without_other_data_sets() -> None:
    for n in (1, 7, 20):
        assert list(Finals.of(()).within(np.full(n, 0.67), 5, 0.01)) == [0] * n
    half = np.array([0.5] * 10 + [0.8] * 9)  # a normal distribution reaches far above 0.8
    assert Finals.of(()).within(half, 100, 0.01).max() < 0.01


@pytest.mark.parametrize("failed", [[], [0.1], [0.1, 0.12, 0.5]])
def test_the_posterior_is_that_of_a_fine_grid(failed: list[float]) -> None:
    rng = np.random.default_rng(3)
    drawn = [rng.normal(0, 1, 100) - 5 * (rng.random(100) < 0.1) for _ in range(3)]
    finals = Finals.of([(1 / 3, 0.7 + 0.03 * z) for z in drawn])
    assert finals.width is not None
    own = np.array([*(0.8 + 0.02 * rng.normal(0, 1, 15)), *failed])
    widths = np.geomspace(0.002, 0.5, 400)[:, None]
    middles = np.linspace(0.4, 1.2, 801)
    density = np.interp(
        (own[:, None, None] - middles) / widths, finals_module._Z, finals.log_density
    )
    logs = density.sum(axis=0) - (len(own) + 4) * np.log(widths)
    logs -= 2 * (finals.width / widths) ** 2
    weight = np.exp(logs - logs.max())
    z = (own.max() + 0.01 - middles) / widths
    alone = (weight * np.interp(z, finals_module._Z, finals.below) ** 50).sum() / weight.sum()
    mixed = Finals(finals.below, finals.log_density, finals.width, ())
    assert mixed.within(own, 50, 0.01).max() == pytest.approx(alone, abs=0.03)


def test_dearer_models_that_were_better_elsewhere_lower_the_chance() -> None:
    rng = np.random.default_rng(1)
    rising = np.linspace(0.6, 0.8, 100) + rng.normal(0, 0.02, 100)
    mixed = rng.permutation(rising)
    few = np.linspace(0.65, 0.75, 10)
    chances = [Finals.of([(1, of)]).within(few, 90, 0.01)[-1] for of in (rising, mixed)]
    assert chances[0] < chances[1] - 0.05


@pytest.mark.parametrize("prior", [True, False])
def test_a_chance_is_the_share_of_searches_in_which_it_is_so(prior: bool) -> None:
    """200 data sets; where there is a prior, a few models are much worse than the rest."""
    rng = np.random.default_rng(7)

    def drawn(n: int) -> np.ndarray:
        z = rng.normal(0, 1, n) - prior * 5 * rng.exponential(size=n) * (rng.random(n) < 0.15)
        return np.asarray(rng.uniform(0.5, 0.7) + 0.03 * np.exp(rng.normal(0, 0.3)) * z)

    finals = Finals.of([(1 / 4, drawn(100)) for _ in range(4)] if prior else ())
    estimated, right = [], []
    for _ in range(200):
        own = drawn(60)
        n = int(rng.integers(10, 50))
        chance = finals.within(own[:n], 60 - n, 0.005)
        best = int(np.argmax(own[:n]))
        estimated.append(chance[best])
        right.append(own[best] >= own.max() - 0.005)
    assert np.mean(estimated) == pytest.approx(np.mean(right), abs=0.05)
    likely = np.array(estimated) > 0.7
    assert np.mean(np.array(right)[likely]) == pytest.approx(
        np.mean(np.array(estimated)[likely]), abs=0.1
    )


# The order ---------------------------------------------------------------------------------------

COSTS = {name: 1.0 + i for i, name in enumerate("abcdefgh")}
TARGET = Objective(top=1, within=0.01)


def test_candidates_are_trained_from_the_cheapest_up() -> None:
    assert requests("abc", [], TARGET, at_once=9) == [Request(name, 0) for name in "abc"]
    costs = {"a": 3.0, "b": 1.0, "c": 2.0}
    first = requests("abc", seen(costs, {}), TARGET, at_once=9)
    assert first == [Request(name, 10) for name in "bca"]
    assert requests("abc", seen(costs, {"b": [0.5] * 10}), TARGET) == [Request("c", 10)]


def test_the_answer_is_the_cheapest_that_holds_with_the_probability() -> None:
    # b is much better than the others of which there are many: none of the others will be
    curves = {name: [0.5 + 0.001 * i] * 10 for i, name in enumerate("abcdefg")} | {"b": [0.9] * 10}
    found = verdict("abcdefgh", seen(COSTS, curves), TARGET)
    assert found.top == ["b"]
    assert found.holds is not None
    assert found.holds > 0.8
    assert requests("abcdefgh", seen(COSTS, curves), TARGET) == []
    assert found.table.loc["h", "state"] == "stopped"
    assert found.proven == []
    proof = Objective(top=1, within=0.01, certify=1)
    assert requests("abcdefgh", seen(COSTS, curves), proof) == [Request("h", 10)]
    done = seen(COSTS, curves | {"h": [0.905] * 10})
    assert requests("abcdefgh", done, proof) == []
    last = verdict("abcdefgh", done, proof)
    assert (last.top, last.proven, last.holds) == (["b"], ["b"], 1)


def test_with_a_budget_poor_levels_are_set_aside() -> None:
    limited = Objective(top=1, within=0.01, budget_share=1)
    # the first five reached 0.5 to 0.9 after the second of ten epochs; g is below their median
    curves: dict[str, list[float]] = {n: [0.3, 0.5 + i / 10] for i, n in enumerate("abcde")}
    curves |= {
        n: [0.1, p] + [0.9] * 8 for n, p in zip("abcde", (0.5, 0.6, 0.7, 0.8, 0.9), strict=True)
    }
    now = seen(COSTS, {**curves, "f": [0.9, 0.4], "g": [0.1, 0.95]})
    found = requests("abcdefgh", now, limited, at_once=9)
    assert found == [Request("g", 10), Request("h", 2), Request("f", 10)]


def test_a_training_that_the_budget_cannot_end_is_not_begun() -> None:
    # a takes 1, b 2, c 3 of 36 in all; 0.1 of it are 3.6
    objective = Objective(top=1, within=0.01, budget_share=0.1)
    known = known_of("abcdefgh", seen(COSTS, {}), objective, None)
    all_of_them = [Request(name, 10) for name in "abcdefgh"]
    assert known.affordable(all_of_them, objective) == all_of_them[:2]
    in_wh = Objective(top=1, within=0.01, budget=2.5, budget_share=0.5)
    assert known.affordable(all_of_them, in_wh) == all_of_them[:1]
    known = known_of("abcdefgh", seen(COSTS, {"a": [0.5] * 5, "b": [0.5] * 10}), objective, None)
    # 0.5 and 2 are spent; the other half of a takes 0.5, and c 3
    assert known.affordable(all_of_them[:1], objective) == all_of_them[:1]
    assert known.affordable(all_of_them[2:], objective) == []


def test_the_budget_lasts_for_those_that_are_being_trained_first() -> None:
    # 3.6 in all: b is half trained for 1 and needs another; a would take 1, and c 3
    objective = Objective(top=1, within=0.01, budget_share=0.1)
    half = seen(COSTS, {"b": [0.5] * 5})
    free = requests("abcdefgh", half, objective, at_once=9)
    assert [one.candidate for one in free] == ["a", "b"]
    drifted = [Observed(o.candidate, o.epoch, o.performance, 6, 6, o.spent) for o in half[-5:]]
    dearer = half[:-5] + drifted  # b needs 3 more: of 40 in all 4 less 1 are left
    busy = requests("abcdefgh", dearer, objective, at_once=9, busy={"b"})
    assert [one.candidate for one in busy] == ["b"]
    little = Objective(top=1, within=0.01, budget_share=0.03)  # what a takes is not left
    with pytest.raises(
        WrongUse, match=r"a, which takes the least, takes 2\.\d+%; give --budget-percent \d+ or"
    ):
        requests("abcdefgh", dearer, little)
    # but b ends, whatever it takes
    assert [one.candidate for one in requests("abcdefgh", dearer, little, busy={"b"})] == ["b"]


@pytest.mark.parametrize("target", [{"within": 0.01}, {"alpha": 50.0}])
def test_without_budget_left_a_search_waits_for_nothing(target: dict[str, float]) -> None:
    ends = {"a": 0.5, "b": 0.6, "c": 0.55}
    now = seen(COSTS, {name: [0.3] * 9 + [end] for name, end in ends.items()})
    states = []
    for share in (0.2, 0.9):
        objective = Objective(top=1, budget_share=share, **target)
        states.append(verdict("abcdefgh", now, objective).table.loc["d":, "state"])
        assert bool(requests("abcdefgh", now, objective)) == (share == 0.9)
    assert set(states[0]) == {"stopped"}
    assert "waiting" in set(states[1])


def test_a_budget_is_used_for_pepr_too() -> None:
    names = [f"m{i}" for i in range(12)]
    rng = np.random.default_rng(0)
    p = pd.DataFrame(np.sort(rng.uniform(0.6, 0.9, (12, 10)), axis=1), names)
    cost = pd.Series(np.linspace(1, 12, 12), names)
    curves = Curves(p, cost, cost)
    little, much = (replay(curves, Objective(top=1, budget_share=b)) for b in (0.2, 0.6))
    assert little.spent <= 0.2
    assert little.spent <= much.spent <= 0.6
    assert len(much.finished) >= len(little.finished) >= 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"within": 0.0, "top": 1}, "within: 0 is no margin of P between 0 and 1"),
        ({"within": 1.5, "top": 1}, "within: 1.5 is no margin"),
        ({"within": float("nan"), "top": 1}, "within: nan is no margin"),
        ({"within": 0.01}, "leave out top and alpha"),
        ({"certify": 0.0}, "certify: 0 is no probability"),
        ({"certify": 1.1}, "certify: 1.1 is no probability"),
        ({"budget": -1.0}, "budget_wh: -1 is not above 0"),
        ({"budget_share": 2.0}, "budget_percent: 200 is not above 0, up to 100"),
    ],
)
def test_an_impossible_objective_is_named(wrong: dict[str, float], says: str) -> None:
    with pytest.raises(WrongUse, match=says):
        Objective(**wrong)  # type: ignore[arg-type]
