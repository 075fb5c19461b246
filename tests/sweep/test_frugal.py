"""The frugal search for the best by PePR: its rule by hand, its promises, the paper's curves."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rivals import halving, in_order, means, rivals

from pepr_mlops.errors import WrongUse
from pepr_mlops.sweep import frugal
from pepr_mlops.sweep.frugal import requests, verdict
from pepr_mlops.sweep.observed import Objective, Observed, Request, known_of
from pepr_mlops.sweep.replay import Curves, replay

ONE = Objective(top=1, epochs=1)


def probe(name: str, cost: float) -> Observed:
    return Observed(name, 0, None, cost, cost, cost / 100)


def trained(name: str, cost: float, *curve: float, epochs: int = 1) -> list[Observed]:
    return [Observed(name, e, p, cost, cost, cost / epochs) for e, p in enumerate(curve, 1)]


# a: R 0.1, score 0.9 / 1.1; b: R 0.2, score 0.8 / 1.2; c: R 1, at best 1 / 2
THREE = [probe("a", 1), probe("b", 2), probe("c", 10)]
DONE = [*THREE, *trained("a", 1, 0.9), *trained("b", 2, 0.8)]


# The rule by hand --------------------------------------------------------------------------------


def test_all_costs_are_measured_first_and_the_cheapest_are_trained_then() -> None:
    assert requests("abc", THREE[:1], ONE) == [Request("b", 0), Request("c", 0)]
    assert requests("abc", THREE, ONE) == [Request("a", 1)]
    assert requests("abc", THREE, ONE, at_once=9) == [Request("a", 1), Request("b", 1)]
    three = Objective(top=3, epochs=7)
    assert requests("abc", THREE, three, at_once=9) == [Request(name, 7) for name in "abc"]


def test_a_candidate_that_cannot_reach_the_top_is_discarded() -> None:
    assert requests("abc", DONE, ONE) == []
    found = verdict("abc", DONE, ONE)
    assert list(found.table["state"]) == ["finished", "finished", "discarded"]
    assert list(found.table["R"]) == pytest.approx([0.1, 0.2, 1])
    assert list(found.table["bound"]) == pytest.approx([1 / 1.1, 1 / 1.2, 1 / 2])
    assert list(found.table["score"][:2]) == pytest.approx([0.9 / 1.1, 0.8 / 1.2])
    assert (found.top, found.proven, found.possible) == (["a"], ["a"], [])
    assert found.spent == pytest.approx(0.13 + 1 + 2)
    assert found.exhaustive == 13


def test_alpha_makes_the_expensive_candidate_possible() -> None:
    # with α = 10 c could reach 10 / 11 = 0.909, a has 10 · 0.9 / 10.1 = 0.891
    found = verdict("abc", DONE, dataclasses.replace(ONE, alpha=10))
    assert found.table.loc["c", "bound"] == pytest.approx(10 / 11)
    assert (found.top, found.proven, found.possible) == (["a"], [], ["c"])


def test_certify_trains_candidates_that_are_not_worth_their_cost() -> None:
    # d costs a hundred times as much as a, b or c and is likely no better; with P = 1 and α = 2 its
    # score would be 2 / 3, more than the best, 2 · 0.61 / 2.01 = 0.607
    costs = {"a": 1.0, "b": 1.0, "c": 1.0, "d": 100.0}
    seen = [probe(name, cost) for name, cost in costs.items()]
    for name, p in zip("abc", (0.60, 0.60, 0.61), strict=True):
        seen += trained(name, 1, p)
    two = Objective(top=1, epochs=1, alpha=2)
    assert requests("abcd", seen, two) == []
    assert verdict("abcd", seen, two).table.loc["d", "state"] == "stopped"
    certify = dataclasses.replace(two, certify=1)
    assert requests("abcd", seen, certify) == [Request("d", 1)]
    assert verdict("abcd", seen, certify).table.loc["d", "state"] == "waiting"
    seen += trained("d", 100, 0.62)
    assert requests("abcd", seen, certify) == []
    assert verdict("abcd", seen, certify).proven == ["c"]


def test_the_index_is_the_score_at_which_continuing_is_worth_its_cost() -> None:
    outcomes = np.array([[0.8, 0.4]] * 3)
    price, left = np.array([0.1, 0.3, 0.1]), np.array([1, 1, 3])
    # (0.8 - 0.6) / 2 = 0.1; (0.8 - 0.3 + 0.4 - 0.3) / 2 = 0.3; (0.8 - 0.4 - 0.2) / 2 = 0.1
    assert frugal._index(outcomes, price, left) == pytest.approx([0.6, 0.3, 0.4])


def test_the_price_of_an_epoch_is_the_score_it_costs_the_search() -> None:
    # of 20 in all 4 are spent; half of c's 14 are 0.35 of them: s · 0.35 / (1 + 0.2)
    objective = Objective(top=1, epochs=2)
    seen = [Observed(n, 0, None, c, c, s) for n, c, s in (("a", 6, 1), ("c", 14, 3))]
    known = known_of(["a", "c"], seen, objective, None)
    assert frugal._prices(known, objective, 0.6)[1] == pytest.approx(0.6 * 0.35 / 1.2)


def test_outcomes_are_the_level_plus_the_gain_of_finished_candidates() -> None:
    # after epoch 2 the level is that epoch's P; a and b gained 0.1 and 0.3 on it, c has 0.5
    seen = [*trained("a", 1, 0, 0.4, 0, 0.5), *trained("b", 1, 0, 0.3, 0, 0.6)]
    seen += [*trained("c", 1, 0, 0.5), probe("d", 1)]
    known = known_of("abcd", seen, Objective(top=1, epochs=4), None)
    objective = Objective(top=1, epochs=4)
    gains = frugal._gains(known, objective, None)
    points = frugal._outcomes(known, objective, gains)
    assert np.median(points[2]) == pytest.approx(0.5 + 0.2)
    # sd 0.1414 · √1.5 = 0.1732; the upper quartile of Student's t of one degree is 1
    assert np.quantile(points[2], 0.75) == pytest.approx(0.7 + 0.1732, abs=0.003)
    assert points[3] == pytest.approx(np.quantile(points[:3], 1 - frugal._SHARES))
    # t of one degree is Cauchy's; the quartiles of c are 0.7 ± 0.1732, a quarter is above
    limit = np.array([0.7, 0.7, 0.7 + 0.1732, 0.7])
    chance = frugal._chances(known, objective, gains, limit)
    assert chance[2] == pytest.approx(0.25, abs=1e-3)
    # d is like a, b or c: P of a and b is 0.5 and 0.6 after the last epoch and a level of 0.25 and
    # 0.45 after it, with gains 0.25 and 0.15, so each is predicted by its own level
    assert chance[3] == pytest.approx(chance[:2].sum() / 3 + 0.5 / 3, abs=0.01)


def test_several_requests_are_ordered_best_first() -> None:
    # except for g, which cannot reach them, all cost next to nothing, f the most
    seen = [*(probe(name, 1 + i / 100) for i, name in enumerate("abcdef")), probe("g", 1000)]
    for one, curve in zip(seen[:3], ((0.5, 0.4), (0.5, 0.6), (0.7, 0.7)), strict=True):
        seen += trained(one.candidate, one.cost, *curve, epochs=2)
    two = Objective(top=1, epochs=2)
    many = requests("abcdefg", seen, two, at_once=5)
    assert many == [Request("d", 1), Request("e", 1), Request("f", 1)]
    assert requests("abcdefg", seen, two) == many[:1]


# Its promises ------------------------------------------------------------------------------------


def test_order_of_candidates_and_observations_does_not_matter() -> None:
    for seen in itertools.permutations(DONE):
        found = verdict("cab", seen, ONE)
        assert requests("bca", seen, ONE) == []
        pd.testing.assert_frame_equal(found.table, verdict("abc", DONE, ONE).table)
        assert found.spent == verdict("abc", DONE, ONE).spent


def test_a_failed_candidate_is_neither_compared_nor_requested_but_counts_as_spent() -> None:
    found = verdict("ab", DONE, ONE)  # c, the most expensive, failed: R of b is 1 now
    assert list(found.table.index) == ["a", "b"]
    assert list(found.table["R"]) == pytest.approx([0.5, 1])
    assert (found.spent, found.exhaustive) == (pytest.approx(3.13), 3)
    assert verdict("bc", DONE, ONE).top == ["b"]
    assert requests("", DONE, ONE) == []
    assert verdict("", [], ONE).top == []


def test_a_search_works_with_fewer_candidates_than_the_top() -> None:
    seen = [probe("a", 3)]
    assert requests("a", seen, ONE) == [Request("a", 1)]
    seen += trained("a", 3, 0.4)
    found = verdict("a", seen, Objective(top=5, epochs=1))
    assert requests("a", seen, Objective(top=5, epochs=1)) == []
    assert (found.top, found.proven, found.table.loc["a", "score"]) == (["a"], ["a"], 0.4)


def test_ties_are_broken_by_name_and_equals_are_not_trained_for_nothing() -> None:
    seen = [probe(name, 1) for name in "abc"]
    seen += [*trained("a", 1, 1.0), *trained("b", 1, 1.0)]
    found = verdict("cba", seen, ONE)
    assert requests("cba", seen, ONE) == []  # c can equal them, not surpass
    assert (found.top, found.proven) == (["a"], ["a"])
    assert found.table.loc["c", "state"] == "discarded"


def test_equal_finals_promise_no_certainty() -> None:
    probes = [*THREE[:2], probe("c", 4)]  # c could score 1 / 2 with R = 1
    seen = [*probes, *trained("a", 1, 0.25), *trained("b", 2, 0.25)]
    assert requests("abc", seen, ONE) == [Request("c", 1)]
    assert verdict("abc", seen, ONE).holds is None
    done = [*seen, *trained("c", 4, 0.25)]
    assert requests("abc", done, ONE) == []
    assert verdict("abc", done, ONE).holds == 1


def test_before_the_costs_are_known_everything_is_possible() -> None:
    found = verdict("ab", [probe("a", 1)], ONE)
    assert list(found.table["state"]) == ["waiting", "waiting"]
    assert found.possible == found.promising == ["a", "b"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Observed("x", 0, None, float("nan"), 1, 1), "x: cost nan is not a finite"),
        (Observed("x", 0, None, 1, -1, 1), "x: expense -1 is not"),
        (Observed("x", 0, None, 1, 1, float("inf")), "x: spent inf is not"),
        (Observed("x", 0, 0.5, 1, 1, 1), "x: epoch 0 has no performance"),
        (Observed("x", 1, None, 1, 1, 1), "x: performance None of epoch 1"),
        (Observed("x", 1, 90.0, 1, 1, 1), "x: performance 90.0 of epoch 1 .* not per cent"),
        (Observed("x", 2, 0.5, 1, 1, 1), "x: epoch 2 is not among 0 to 1"),
        (Observed("a", 1, 0.5, 1, 1, 1), "a: epoch 1 was observed twice"),
    ],
)
def test_wrong_observations_are_named(bad: Observed, message: str) -> None:
    with pytest.raises(WrongUse, match=message):
        requests("abcx", [*DONE, bad], ONE)


def test_a_missing_epoch_and_impossible_objectives_are_named() -> None:
    with pytest.raises(WrongUse, match="a: epoch 1 is missing"):
        requests("a", [Observed("a", 2, 0.5, 1, 1, 1)], Objective(epochs=3))
    for wrong in ({"top": 0}, {"epochs": 0}, {"alpha": 0.5}, {"alpha": float("nan")}):
        with pytest.raises(WrongUse, match=next(iter(wrong))):
            Objective(**wrong)  # type: ignore[arg-type]


@st.composite
def made(draw: st.DrawFn) -> tuple[Curves, Objective]:
    n, epochs = draw(st.integers(1, 8)), draw(st.integers(1, 4))
    share = st.sampled_from([i / 20 for i in range(21)])  # few values, so that there are ties
    p = draw(st.lists(st.lists(share, min_size=epochs, max_size=epochs), min_size=n, max_size=n))
    cost = draw(st.lists(st.integers(0, 30), min_size=n, max_size=n))
    expense = draw(st.lists(st.integers(1, 30), min_size=n, max_size=n))
    names = [f"m{i}" for i in range(n)]
    curves = Curves(
        pd.DataFrame(p, names), pd.Series(cost, names, float), pd.Series(expense, names, float)
    )
    alpha = draw(st.sampled_from([1.0, 3.0, 20.0]))
    return curves, Objective(draw(st.integers(1, 4)), epochs, alpha, certify=1)


@given(made())
def test_certify_always_ends_with_the_true_top_proven(case: tuple[Curves, Objective]) -> None:
    curves, objective = case
    last: list[Observed] = []

    def search(
        names: Sequence[str], observed: Sequence[Observed], objective: Objective, **rest: Any
    ) -> list[Request]:
        last[:] = observed
        return requests(names, observed, objective, **rest)

    replay(curves, objective, search=search)
    found = verdict(list(curves.cost.index), last, objective)
    truth = curves.scores(objective).iloc[:, -1].sort_values(ascending=False)
    best = truth.head(objective.top).to_numpy()
    assert truth[found.top].to_numpy() == pytest.approx(best)
    assert found.proven == found.top
    assert found.possible == []


# Replay ------------------------------------------------------------------------------------------

FOUR = Curves(
    pd.DataFrame([[0.9, 0.1], [0.8, 0.8], [0.7, 0.9], [0.6, 0.5]], list("abcd")),
    pd.Series([1.0, 2.0, 3.0, 4.0], list("abcd")),
    pd.Series([10.0, 20.0, 30.0, 40.0], list("abcd")),
)


def test_replay_charges_measurements_and_epochs() -> None:
    # each cost takes 1/20 of an epoch, half of 10 + 20 + 30 + 40, hence 2.5; then a is trained
    def only_a(
        names: Sequence[str], observed: Sequence[Observed], objective: Objective, **rest: Any
    ) -> list[Request]:
        if not observed:
            return [Request(name, 0) for name in names]
        return [] if observed[-1].epoch == 2 else [Request("a", 2)]

    found = replay(FOUR, Objective(top=2, epochs=2), search=only_a)
    assert found.spent == pytest.approx((2.5 + 10) / 100)
    assert (found.finished, found.best, found.hits) == (["a"], False, 0)


def test_halving_by_accuracy_and_by_score() -> None:
    # after one epoch a and b lead by both, and of all four that is half of 100, then 15 more
    order, top = np.arange(4), Objective(top=1, epochs=2)
    found = halving(FOUR, top, 0.65, order, by_score=True)
    # scores 0.8 / 1.5 and 0.9 / 1.75, so b is the best
    assert (found.finished, found.spent, found.best) == (["a", "b"], 0.65, True)
    assert halving(FOUR, top, 1.0, order, by_score=False).spent == 1.0
    # 0.6 affords no second epoch for two of four; of the first three one continues: 30 + 5
    assert halving(FOUR, top, 0.6, order, by_score=False).spent == pytest.approx(0.35)
    assert halving(FOUR, top, 0.01, order, by_score=False).finished == []


def test_candidates_in_an_order_are_trained_to_the_end_as_long_as_it_can_be_afforded() -> None:
    found = in_order(FOUR, Objective(top=2, epochs=2), 0.65, np.array([2, 0, 1, 3]))
    assert (found.finished, found.spent) == (["a", "b", "c"], 0.6)
    # b 0.8 / 1.5 and c 0.9 / 1.75 are the two best; of a, c and d a and c would be
    assert found.regret == 0
    found = in_order(FOUR, Objective(top=2, epochs=2), 0.5, np.array([2, 0, 3, 1]))
    assert found.finished == ["a", "c"]
    assert found.regret == pytest.approx((0.8 / 1.5 - 0.1 / 1.25) / 2)
    assert np.isnan(in_order(FOUR, Objective(top=2, epochs=2), 0.1, np.arange(4)).regret)


def test_every_rival_has_an_outcome_for_each_order() -> None:
    found = rivals(FOUR, Objective(top=1, epochs=2), seeds=3)
    assert {name: len(outcomes) for name, outcomes in found.items()} == {
        "frugal": 1,
        "no_prior": 1,
        "certified": 1,
        "cheapest": 1,
        "random": 3,
        "halving": 3,
        "pepr_halving": 3,
        "cheapest_halving": 1,
    }
    spent = [one.spent for one in found["random"]]
    assert means(found).loc["random", "spent"] == pytest.approx(sum(spent) / 3)


def test_curves_must_fit_together() -> None:
    with pytest.raises(WrongUse, match="cost: its candidates"):
        Curves(FOUR.performance, FOUR.cost.iloc[::-1], FOUR.expense)


# The measurements released with the paper --------------------------------------------------------

EPOCHS = [f"test_{i:02d}" for i in range(10)]
COSTS = {"E": "energy", "T": "train_time", "M": "memR"}
# experiment: hits of the top five and per cent of the energy, by the cost that R is made of
FOUND = {
    "derma": {"E": (4, 7.43), "T": (4, 7.47), "M": (5, 4.03)},
    "derma_pt": {"E": (5, 3.01), "T": (5, 3.01), "M": (5, 4.50)},
    "lidc": {"E": (5, 4.54), "T": (4, 4.22), "M": (5, 4.66)},
    "pneumonia": {"E": (5, 3.20), "T": (5, 3.29), "M": (5, 4.79)},
}


def recorded(folder: Path, experiment: str, cost: str) -> Curves:
    runs = pd.read_csv(folder / "all_results.csv")
    own = runs[runs["dataset"] == experiment].set_index("model")
    return Curves(own[EPOCHS], own[COSTS[cost]], own["energy"])


@pytest.mark.parametrize("cost", COSTS)
def test_the_papers_best_are_found_for_a_twentieth_of_the_energy(
    paper_results: Path, cost: str
) -> None:
    spent = []
    for experiment, expected in FOUND.items():
        found = replay(recorded(paper_results, experiment, cost), Objective())
        hits, percent = expected[cost]
        assert found.best, experiment
        assert found.hits == hits, experiment
        assert 100 * found.spent == pytest.approx(percent, abs=0.05), experiment
        spent.append(found.spent)
    assert np.mean(spent) <= 0.05
    assert max(spent) <= 0.08


def test_the_search_beats_halving_at_equal_energy_where_expensive_models_count(
    paper_results: Path,
) -> None:
    objective = Objective(alpha=2)
    for experiment in FOUND:
        curves = recorded(paper_results, experiment, "E")
        found = replay(curves, objective)
        assert found.best, experiment
        assert found.hits >= 4, experiment
        orders = [np.random.default_rng(seed).permutation(131) for seed in range(5)]
        orders.append(np.argsort(curves.cost.to_numpy()))  # the cheapest first
        for order in orders:
            assert halving(curves, objective, found.spent, order, by_score=True).hits <= found.hits


def test_exact_bound_certifies_the_papers_top(paper_results: Path) -> None:
    # with P = 1 all of R below 1 / 0.8821 - 1 = 0.134 could beat the fifth of pneumonia, 0.8821
    curves = recorded(paper_results, "pneumonia", "E")
    found = replay(curves, Objective(certify=1))
    possible = curves.cost / curves.cost.max() < 1 / 0.8821 - 1
    assert (found.best, found.hits) == (True, 5)
    assert len(found.finished) == possible.sum()
    assert found.spent == pytest.approx(0.09, abs=0.02)
