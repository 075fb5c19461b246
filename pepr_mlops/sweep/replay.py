"""Searches replayed over recorded learning curves: what they would have found and spent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pepr_mlops.comparison import pepr
from pepr_mlops.comparison.conditions import of_folds
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.names import PERFORMANCE, RESOURCES, ScoredOn, performance_on
from pepr_mlops.sweep.earlier_runs import recipe_of
from pepr_mlops.sweep.frugal import requests, verdict
from pepr_mlops.sweep.observed import Objective, Observed, Request
from pepr_mlops.sweep.prior import Prior

Search = Callable[..., list[Request]]  # with the arguments of `frugal.requests`
MEASURED = 1 / 20  # of the expense of an epoch, to measure the cost


@dataclass(frozen=True)
class Curves:
    """Candidates that were trained to the end, all indexed by their names.

    `performance` is P in [0, 1], one column per epoch in order; `cost` and `expense` are those of
    `Observed`, of the full training, with an equal part for each epoch.
    """

    performance: pd.DataFrame
    cost: pd.Series[float]
    expense: pd.Series[float]

    def __post_init__(self) -> None:
        for name in ("cost", "expense"):
            if not getattr(self, name).index.equals(self.performance.index):
                raise WrongUse(
                    f"{name}: its candidates differ from those of performance; align them"
                )
        if not self.performance.index.is_unique:
            raise WrongUse("performance: a candidate appears twice; give each once")

    def scores(self, objective: Objective) -> pd.DataFrame:
        """αP / (α + R) after each epoch, with R of the full training."""
        resource = pepr.normalise(self.cost, pepr.bounds(self.cost, objective.normalisation))
        return self.performance.apply(lambda p: pepr.pepr(p, resource, alpha=objective.alpha))


def curves_of(
    runs: pd.DataFrame, epochs: pd.DataFrame, cost: str, expense: str, p: str = PERFORMANCE
) -> Curves:
    """The curves of finished runs, one of each model.

    `runs` is a frame of runs, `epochs` their histories of the metric `p` as `read.load_epochs`,
    `cost` and `expense` columns of `runs`. Raises `WrongUse` for a model that appears twice and
    for a run whose history does not have every epoch from the first to the last.
    """
    models = runs.set_index("model")
    wide = epochs[epochs[p].notna()].pivot(index="run_id", columns="step", values=p)
    wide = wide.reindex(models["run_id"])
    steps = list(range(1, max(1, wide.shape[1]) + 1))
    full = wide.notna().all(axis=1) & (list(wide.columns) == steps)
    if not full.all():
        run_id = full.index[~full][0]
        remedy = "; use --decide-on test" if p != PERFORMANCE else ""
        raise WrongUse(
            f"replay: run {run_id} ({models.index[models['run_id'] == run_id][0]}) does not have "
            f"{p} of every epoch, which a replay needs{remedy}"
        )
    return Curves(wide.set_axis(models.index), models[cost], models[expense])


@dataclass(frozen=True)
class Recorded:
    """The curves of one seed of a comparison set, and the column of runs that a search spends.

    The curves are of P on the split `decide_on`; `test_p` is P on test after the last epoch, the
    index the model. `data` has the name and the digest of the data, and `recipe` the settings.
    """

    name: str
    data: frozenset[str]
    recipe: Mapping[str, str]
    spending: str
    energy_source: str
    curves: Curves
    decide_on: ScoredOn
    test_p: pd.Series[float]


def recorded(
    experiments: Sequence[str],
    letter: str,
    tracking_uri: str | None,
    decide_on: ScoredOn | None = None,
) -> list[Recorded]:
    """Finished runs to replay a search over, two models or more of each seed.

    A search spends energy, or time where no run's energy is known. Without `decide_on` it decides
    on validation where all runs of a seed logged P on it, otherwise on test. Raises `WrongUse` and
    `WorkFailed` as `comparison.prepare` and `curves_of`.
    """
    from pepr_mlops import comparison
    from pepr_mlops.data.medmnist import same_data
    from pepr_mlops.tracking import read

    runs = read.load_runs(experiments, tracking_uri=tracking_uri)
    if of_folds(runs).any():
        raise WrongUse(
            "replay: it has runs of a cross-validation, whose folds have no learning curve in "
            "common; name an experiment without --folds"
        )
    spending = "energy_wh" if runs["energy_wh"].notna().any() else "train_time_s"
    cost = RESOURCES[letter].column
    columns = tuple(dict.fromkeys((cost, spending)))
    question = comparison.Question(resources=columns, mixed="stratify", draws=0)
    sets = []
    for name, members in comparison.prepare(runs, question).members.items():
        for seed, own in members.groupby("seed", dropna=False):
            if own["model"].nunique() < 2:
                continue
            ids = list(own["run_id"])
            tested = own["performance_metric"].fillna(PERFORMANCE).iloc[0]
            validated = performance_on("val", tested)
            epochs = read.load_epochs(ids, [PERFORMANCE, validated], tracking_uri=tracking_uri)
            have = set(epochs.loc[epochs[validated].notna(), "run_id"])
            decider = decide_on or ("val" if have.issuperset(ids) else "test")
            p = validated if decider == "val" else PERFORMANCE
            title = name if pd.isna(seed) else f"{name}, seed {seed}"
            sources = " and ".join(sorted(own["energy_source"].dropna().unique()))
            source = sources if spending == "energy_wh" else "none"
            curves = curves_of(own, epochs, cost, spending, p)
            test_p = own.set_index("model")[PERFORMANCE]
            digest = own["data_digest"].dropna().unique()
            data = frozenset({*same_data(str(own["dataset"].iloc[0])), *digest})
            recipe = recipe_of(own)
            sets.append(Recorded(title, data, recipe, spending, source, curves, decider, test_p))
    if not sets:
        raise WorkFailed(f"replay: {', '.join(experiments)} has no two models of one seed")
    return sets


@dataclass(frozen=True)
class Found:
    """The outcome of a search.

    `finished` are the candidates that it trained to the end and `answer` the best of them, None of
    none; `holds` is the probability that the search gave its answer. `best` says whether the best
    of all is among them, and `hits` how many of the true top are. `spent` is a share of the expense
    of training all, and `regret` how far the mean score of its top is below that of the true top,
    NaN of fewer.

    With a margin `best` says whether the answer is within it and `hits` counts it; `regret` is by
    how much it is not, and `dearer` its cost over that of the cheapest that is, else None.
    """

    finished: list[str]
    answer: str | None
    best: bool
    hits: int
    spent: float
    regret: float
    holds: float | None = None
    dearer: float | None = None


def replay(
    curves: Curves, objective: Objective, prior: Prior | None = None, *, search: Search = requests
) -> Found:
    """Answer the requests of a search from the recorded curves until it has none.

    The search never sees P of an epoch that it did not request. To measure a cost takes `MEASURED`
    of an epoch in addition to the training.
    """
    table = curves.performance.to_numpy(float)
    rows = {str(name): i for i, name in enumerate(curves.performance.index)}
    observed: list[Observed] = []
    trained = np.zeros(len(rows), dtype=np.int64)
    cost, expense = curves.cost.to_numpy(float), curves.expense.to_numpy(float)
    while batch := search(list(rows), observed, objective, prior=prior):
        for request in batch:
            i, name = rows[request.candidate], request.candidate
            per_epoch = expense[i] / objective.epochs
            if request.epoch == 0:
                spent = MEASURED * per_epoch
                observed.append(Observed(name, 0, None, cost[i], expense[i], spent))
            for epoch in range(trained[i] + 1, request.epoch + 1):
                p = float(table[i, epoch - 1])
                observed.append(Observed(name, epoch, p, cost[i], expense[i], per_epoch))
            trained[i] = max(trained[i], request.epoch)
    last = verdict(list(rows), observed, objective, prior=prior)
    answer = last.top[0] if last.top else None
    return outcome(curves, objective, trained, last.spent, answer, last.holds)


def outcome(
    curves: Curves,
    objective: Objective,
    trained: NDArray[np.int64],
    spent: float,
    answer: str | None = None,
    holds: float | None = None,
) -> Found:
    """The outcome of a search that trained each candidate for `trained` epochs.

    `spent` is in the unit of `curves.expense`. A search without an `answer` of its own takes the
    best one that it finished.
    """
    names = curves.performance.index
    finished = names[trained == objective.epochs]
    share = spent / float(curves.expense.sum())
    done = [str(name) for name in finished]
    if objective.within is not None:
        final = curves.performance.iloc[:, -1]
        if answer is None and done:
            answer = str(final[finished].idxmax())
        lacks = np.nan if answer is None else final.max() - final[answer] - objective.within
        right = bool(lacks <= 1e-12)
        good = curves.cost[final >= final.max() - objective.within - 1e-12]
        dearer = float(curves.cost[answer] / good.min()) if right and good.min() > 0 else None
        return Found(done, answer, right, int(right), share, max(0.0, lacks), holds, dearer)
    final = curves.scores(objective).iloc[:, -1]
    if answer is None and done:
        answer = str(final[finished].idxmax())
    best = final.sort_values(ascending=False, kind="stable").index[: objective.top]
    own = final[finished].nlargest(objective.top)
    regret = float(final[best].mean() - own.mean()) if len(own) == len(best) else np.nan
    hits = int(best.isin(finished).sum())
    return Found(done, answer, bool(best[0] in finished), hits, share, regret, holds)
