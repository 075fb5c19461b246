"""Searches replayed over recorded learning curves: what would they have found and spent? Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pepr_mlops import score
from pepr_mlops.errors import WrongUse
from pepr_mlops.names import PERFORMANCE
from pepr_mlops.sweep.frugal import Objective, Observed, Request, requests

Search = Callable[[Sequence[str], Sequence[Observed], Objective], list[Request]]
MEASURED = 1 / 20  # of an epoch, that a measurement of the cost takes


@dataclass(frozen=True)
class Curves:
    """Candidates that were trained to the end, all indexed by their names.

    `performance` is P in [0, 1], one column per epoch in their order; `cost` and `expense` are
    those of `Observed`, of the whole training, which every epoch has an equal part of.
    """

    performance: pd.DataFrame
    cost: pd.Series[float]
    expense: pd.Series[float]

    def __post_init__(self) -> None:
        for name in ("cost", "expense"):
            if not getattr(self, name).index.equals(self.performance.index):
                raise WrongUse(f"{name}: its candidates are not those of performance; align them")
        if not self.performance.index.is_unique:
            raise WrongUse("performance: a candidate appears twice; give each once")

    def scores(self, alpha: float) -> pd.DataFrame:
        """αP / (α + R) after each epoch, with R of the whole training."""
        resource = score.normalise(self.cost, score.bounds(self.cost, "zero"))
        return self.performance.apply(lambda p: score.pepr(p, resource, alpha=alpha))


def recorded(runs: pd.DataFrame, epochs: pd.DataFrame, cost: str, expense: str) -> Curves:
    """The curves of finished runs, one of each model.

    `runs` is a frame of runs, `epochs` their histories of `performance` as `query.load_epochs`,
    `cost` and `expense` columns of `runs`. Raises `WrongUse` for a model that appears twice and
    for a run whose history is not that of whole epochs from the first to the last.
    """
    of = runs.set_index("model")
    wide = epochs[epochs[PERFORMANCE].notna()].pivot(
        index="run_id", columns="step", values=PERFORMANCE
    )
    wide = wide.reindex(of["run_id"])
    whole = wide.notna().all(axis=1) & (list(wide.columns) == list(range(1, wide.shape[1] + 1)))
    if not whole.all():
        run_id = whole.index[~whole][0]
        raise WrongUse(
            f"replay: run {run_id} ({of.index[of['run_id'] == run_id][0]}) does not have "
            f"{PERFORMANCE} of every epoch, which a replay needs"
        )
    return Curves(wide.set_axis(of.index), of[cost], of[expense])


@dataclass(frozen=True)
class Found:
    """The outcome of a search: `finished` candidates, whether the best of all is among them, how
    many of the true top are, and the share `spent` of what training all of them takes."""

    finished: list[str]
    best: bool
    hits: int
    spent: float


def replay(curves: Curves, search: Search, objective: Objective) -> Found:
    """Answer the requests of a search from the recorded curves until it has none.

    It never sees P of an epoch it did not ask for. A measurement of the cost takes `MEASURED` of
    an epoch, which training afterwards does not get back.
    """
    table = curves.performance.to_numpy(float)
    rows = {str(name): i for i, name in enumerate(curves.performance.index)}
    observed: list[Observed] = []
    trained = np.zeros(len(rows), dtype=np.int64)
    cost, expense = curves.cost.to_numpy(float), curves.expense.to_numpy(float)
    while asked := search(list(rows), observed, objective):
        for request in asked:
            i, name = rows[request.candidate], request.candidate
            epoch_s = expense[i] / objective.epochs
            if request.epoch == 0:
                spent = MEASURED * epoch_s
                observed.append(Observed(name, 0, None, cost[i], expense[i], spent))
            for epoch in range(trained[i] + 1, request.epoch + 1):
                p = float(table[i, epoch - 1])
                observed.append(Observed(name, epoch, p, cost[i], expense[i], epoch_s))
            trained[i] = max(trained[i], request.epoch)
    return _found(curves, objective, trained, sum(o.spent for o in observed))


def random_search(curves: Curves, objective: Objective, budget: float, seed: int) -> Found:
    """Candidates in a random order, each trained to the end, as long as the next is affordable.

    `budget` is a share of what training all takes. Costs need not be measured beforehand.
    """
    order = np.random.default_rng(seed).permutation(len(curves.cost))
    expense = curves.expense.to_numpy(float)
    affordable = np.cumsum(expense[order]) <= budget * expense.sum()
    trained = np.zeros(len(order), dtype=np.int64)
    trained[order[affordable]] = objective.epochs
    return _found(curves, objective, trained, float(expense[order[affordable]].sum()))


def halving(
    curves: Curves,
    objective: Objective,
    budget: float,
    order: NDArray[np.int64],
    *,
    by_score: bool,
) -> Found:
    """Successive halving (K. Jamieson, A. Talwalkar, AISTATS 2016) of the first in `order`.

    After 1, 2, 4, … epochs the better half goes on, `objective.top` at least, by accuracy or by
    PePR score. As many candidates start as fit `budget`, a share of what training all takes; if
    all do, as much more than the half goes on as fits. Costs need not be measured beforehand.
    """
    expense = curves.expense.to_numpy(float)
    ranked = (curves.scores(objective.alpha) if by_score else curves.performance).to_numpy(float)
    plans = [(len(order), share / 100) for share in range(100, 50, -1)]
    for count, share in [*plans, *((n, 0.5) for n in range(len(order), 0, -1))]:
        trained = _halved(ranked, order[:count], share, objective)
        spent = float((expense * trained).sum() / objective.epochs)
        if spent <= budget * expense.sum():
            return _found(curves, objective, trained, spent)
    return _found(curves, objective, np.zeros(len(order), dtype=np.int64), 0.0)


def _halved(
    ranked: NDArray[np.float64], start: NDArray[np.int64], share: float, objective: Objective
) -> NDArray[np.int64]:
    """Epochs that each candidate is trained for, if this share goes on each time."""
    trained = np.zeros(len(ranked), dtype=np.int64)
    kept, epoch = start, 1
    while True:
        trained[kept] = epoch
        if epoch == objective.epochs:
            return trained
        best = kept[np.argsort(-ranked[kept, epoch - 1], kind="stable")]
        kept = best[: max(objective.top, int(share * len(kept)))]
        epoch = min(2 * epoch, objective.epochs)


def rivals(curves: Curves, objective: Objective, seeds: int) -> dict[str, list[Found]]:
    """The frugal search beside others, each with one outcome per seed or a single one.

    `frugal` is the rule of `frugal`, `certified` the same until the top is proven. The others may
    spend as much as `frugal` did: `random` search, and successive halving by accuracy (`halving`)
    and by PePR (`pepr_halving`) from candidates in a random order, and by PePR from the cheapest
    (`cheapest_halving`). Only the first two pay for measuring costs.
    """
    one = replay(curves, requests, objective)
    orders = [np.random.default_rng(seed).permutation(len(curves.cost)) for seed in range(seeds)]
    cheapest = np.argsort(curves.cost.to_numpy(), kind="stable")

    def halved(order: NDArray[np.int64], by_score: bool) -> Found:
        return halving(curves, objective, one.spent, order, by_score=by_score)

    return {
        "frugal": [one],
        "certified": [replay(curves, requests, replace(objective, certify=True))],
        "random": [random_search(curves, objective, one.spent, seed) for seed in range(seeds)],
        "halving": [halved(order, False) for order in orders],
        "pepr_halving": [halved(order, True) for order in orders],
        "cheapest_halving": [halved(cheapest, True)],
    }


def means(outcomes: dict[str, list[Found]]) -> pd.DataFrame:
    """Means over the outcomes of each search: `best` (the share that found it), `hits`, `spent`."""
    figures = ["best", "hits", "spent"]
    rows = {
        name: pd.DataFrame([asdict(one) for one in of])[figures].astype(float).mean()
        for name, of in outcomes.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("strategy")


def _found(curves: Curves, objective: Objective, trained: NDArray[np.int64], spent: float) -> Found:
    names = curves.performance.index
    final = curves.scores(objective.alpha).iloc[:, -1]
    best = final.sort_values(ascending=False, kind="stable").index[: objective.top]
    finished = names[trained == objective.epochs]
    return Found(
        finished=[str(name) for name in finished],
        best=bool(best[0] in finished),
        hits=int(best.isin(finished).sum()),
        spent=spent / float(curves.expense.sum()),
    )
