"""Strategies that the frugal search is compared with, replayed over learning curves. Pure."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pepr_mlops.sweep.observed import Objective
from pepr_mlops.sweep.prior import Prior
from pepr_mlops.sweep.replay import Curves, Found, outcome, replay


def in_order(
    curves: Curves, objective: Objective, budget: float, order: NDArray[np.int64]
) -> Found:
    """Candidates in this order, each trained to the end, as long as the next is affordable.

    `budget` is a share of what training all takes. Costs need not be measured beforehand.
    """
    expense = curves.expense.to_numpy(float)
    affordable = np.cumsum(expense[order]) <= budget * expense.sum()
    trained = np.zeros(len(order), dtype=np.int64)
    trained[order[affordable]] = objective.epochs
    return outcome(curves, objective, trained, float(expense[order[affordable]].sum()))


def halving(
    curves: Curves,
    objective: Objective,
    budget: float,
    order: NDArray[np.int64],
    *,
    by_score: bool,
) -> Found:
    """Successive halving (K. Jamieson, A. Talwalkar, AISTATS 2016) of the first in `order`.

    After 1, 2, 4, … epochs the better half is trained further, `objective.top` at least, by
    accuracy or by PePR score. As many candidates start as fit `budget`, a share of what training
    all takes; if all do, as much more than the half is trained further as fits. Costs need not be
    measured beforehand.
    """
    expense = curves.expense.to_numpy(float)
    ranked = (curves.scores(objective) if by_score else curves.performance).to_numpy(float)
    plans = [(len(order), share / 100) for share in range(100, 50, -1)]
    for count, share in [*plans, *((n, 0.5) for n in range(len(order), 0, -1))]:
        trained = _halved(ranked, order[:count], share, objective)
        spent = float((expense * trained).sum() / objective.epochs)
        if spent <= budget * expense.sum():
            return outcome(curves, objective, trained, spent)
    return outcome(curves, objective, np.zeros(len(order), dtype=np.int64), 0.0)


def _halved(
    ranked: NDArray[np.float64], start: NDArray[np.int64], share: float, objective: Objective
) -> NDArray[np.int64]:
    """Epochs that each candidate is trained for, if this share is trained further each time."""
    trained = np.zeros(len(ranked), dtype=np.int64)
    remaining, epoch = start, 1
    while True:
        trained[remaining] = epoch
        if epoch == objective.epochs:
            return trained
        best = remaining[np.argsort(-ranked[remaining, epoch - 1], kind="stable")]
        remaining = best[: max(objective.top, int(share * len(remaining)))]
        epoch = min(2 * epoch, objective.epochs)


def hyperband(
    curves: Curves, objective: Objective, budget: float, order: NDArray[np.int64]
) -> Found:
    """Hyperband (L. Li et al., JMLR 18, 2018) with η = 3 on the candidates in turn in this order.

    Three brackets share the budget: they first halve after 1, 3 and all epochs, and the best third
    by accuracy is trained for three times as many.
    """
    expense, p = curves.expense.to_numpy(float), curves.performance.to_numpy(float)
    trained = np.zeros(len(order), dtype=np.int64)
    begun, total = 0, expense.sum()
    for first in (1, 3, objective.epochs):
        plan = np.zeros_like(trained)
        for n in range(1, len(order) - begun + 1):
            tried = np.zeros_like(trained)
            remaining, epoch = order[begun : begun + n], min(first, objective.epochs)
            tried[remaining] = epoch
            while epoch < objective.epochs:
                best = remaining[np.argsort(-p[remaining, epoch - 1], kind="stable")]
                remaining = best[: max(1, len(remaining) // 3)]
                epoch = min(3 * epoch, objective.epochs)
                tried[remaining] = epoch
            if float((expense * tried).sum()) / objective.epochs > budget / 3 * total:
                break
            plan = tried
        begun += int((plan > 0).sum())
        trained += plan
    return outcome(curves, objective, trained, float((expense * trained).sum()) / objective.epochs)


def rivals(
    curves: Curves, objective: Objective, seeds: int, prior: Prior | None = None
) -> dict[str, list[Found]]:
    """The frugal search and its rivals, each with one outcome per seed or a single one.

    `frugal` is the rule of `frugal` with the `prior`, `no_prior` without, and `certified` the same
    until the top is proven. The others may spend as much as `frugal` did: the cheapest candidates
    one by one (`cheapest`), `random` search, and successive halving by accuracy (`halving`)
    and by PePR (`pepr_halving`) from candidates in a random order, and by PePR from the cheapest
    (`cheapest_halving`). Only the first three pay for measuring costs.
    """
    one = replay(curves, objective, prior)
    orders = [np.random.default_rng(seed).permutation(len(curves.cost)) for seed in range(seeds)]
    cheapest = np.argsort(curves.cost.to_numpy(), kind="stable")

    def halved(order: NDArray[np.int64], by_score: bool) -> Found:
        return halving(curves, objective, one.spent, order, by_score=by_score)

    return {
        "frugal": [one],
        "no_prior": [replay(curves, objective)],
        "certified": [replay(curves, replace(objective, certify=1.0))],
        "cheapest": [in_order(curves, objective, one.spent, cheapest)],
        "random": [in_order(curves, objective, one.spent, order) for order in orders],
        "halving": [halved(order, False) for order in orders],
        "pepr_halving": [halved(order, True) for order in orders],
        "cheapest_halving": [halved(cheapest, True)],
    }


def means(outcomes: dict[str, list[Found]]) -> pd.DataFrame:
    """Means over the outcomes of each search: `best` (the share that found it), `hits`, `spent`,
    and `regret` over those that finished as many as the top."""
    figures = ["best", "hits", "spent", "regret"]
    rows = {
        name: pd.DataFrame([asdict(one) for one in of])[figures].astype(float).mean()
        for name, of in outcomes.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("strategy")
