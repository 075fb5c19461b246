"""Find the best candidates by PePR without training them all. Pure.

The cost of every candidate is measured on a few steps first, or forecast from those that are, which
gives R and a bound of the score: αP / (α + R) with P = 1. Candidates whose bound is below the k-th
best score are discarded. Each of the others is like a closed box: opening it (training it to the
end) has a cost and may reveal a better score. M. L. Weitzman ("Optimal Search for the Best
Alternative", Econometrica 47, 1979) showed that the boxes should be opened in the order of their
*index*, the score at which opening is worth just its cost, until no index exceeds the score in
hand.

The cost of opening, in units of score, follows from PePR itself: a search that ends with the k-th
best score s after spending the share x of training everything is worth αs / (α + x), so spending
dx more is worth it for a gain of s · dx / (α + x).

No state is kept between calls: the next requests are a function of all observations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import polygamma, stdtrit

from pepr_mlops.comparison import pepr
from pepr_mlops.errors import WrongUse
from pepr_mlops.sweep.prior import Prior, contenders, forecast, level

Floats = NDArray[np.float64]
State = Literal["finished", "discarded", "stopped", "waiting"]
_POINTS = 128  # equally probable values that stand for a distribution of P
_SHARES = (np.arange(_POINTS) + 0.5) / _POINTS
_PROBED = 20  # of the cheapest candidates by the prior, and the dearest
_CENTRE, _SCATTER = 1.0, 4.0  # finished candidates that a prior counts as, at most


@dataclass(frozen=True)
class Objective:
    """The target: the `top` candidates with the highest αP / (α + R) after `epochs` epochs.

    R is cost / greatest cost (normalisation `zero`). With `certify` the search continues until no
    candidate outside the top could be in it even with P = 1.
    """

    top: int = 5
    epochs: int = 10
    alpha: float = 1.0
    certify: bool = False

    def __post_init__(self) -> None:
        for name in ("top", "epochs"):
            if getattr(self, name) < 1:
                raise WrongUse(f"{name}: {getattr(self, name)} is too few; give a number from 1")
        if not 1 <= self.alpha < np.inf:
            raise WrongUse(f"alpha: {self.alpha:g} is not 1 or more")


@dataclass(frozen=True)
class Request:
    """Train `candidate` from its last checkpoint until after `epoch`; epoch 0 only measures its
    cost on a few steps."""

    candidate: str
    epoch: int


@dataclass(frozen=True)
class Observed:
    """A candidate after `epoch` epochs, 0 for the measurement of its cost.

    `performance` is P in [0, 1] after that epoch, on the split that decides, None with epoch 0.
    `cost` determines R, and `expense` is the resource that the search saves; both are forecasts for
    the full training, each in its own unit, and equal where both are energy. `spent` is the part of
    the expense that this epoch or measurement used.
    """

    candidate: str
    epoch: int
    performance: float | None
    cost: float
    expense: float
    spent: float


@dataclass(frozen=True)
class Verdict:
    """The results of a search so far.

    `table` has a row per candidate, the index its name: `epoch` (the last one trained), `P` after
    it, `cost` (as observed last), `forecast` (whether the cost is from the prior instead), `R`,
    `score` with that P, `bound` (the score with P = 1), `chance` (the estimated probability that
    its score reaches the k-th best so far) and `state`: `finished`, `discarded` (by the bound),
    `stopped` (no longer worth its cost) or `waiting` (to be measured or trained).
    `top` are the best finished candidates, best first; the `proven` ones stay in the top whatever
    the others reach. The `possible` ones could still reach the top by the bound, and the
    `promising` ones among these are worth training. `spent` and `exhaustive`, the expense of
    training all candidates to the end, have the unit of `Observed.expense`.
    """

    table: pd.DataFrame
    top: list[str]
    proven: list[str]
    possible: list[str]
    promising: list[str]
    spent: float
    exhaustive: float


def requests(
    candidates: Sequence[str],
    observed: Sequence[Observed],
    objective: Objective,
    *,
    at_once: int = 1,
    prior: Prior | None = None,
) -> list[Request]:
    """The next requests, best first; an empty list ends the search.

    `candidates` can still be trained; observations of others, which failed, count as spent. First
    every cost is measured; with a `prior` only those of the cheapest and the dearest by it and of
    those it does not know, unless `objective.certify`. Then the `objective.top` cheapest candidates
    are trained to the end, then the candidates worth their cost get one more epoch, `at_once` of
    them together. The requests of one call do not depend on each other.

    Raises `WrongUse` naming the candidate for an observation that is no finite number from 0, P
    outside [0, 1], and an epoch that is missing, repeated or beyond the last.
    """
    known = _known(candidates, observed, objective, prior)
    if known.unmeasured:
        return [Request(name, 0) for name in known.unmeasured]
    judged = _judge(known, objective, prior)
    live = np.flatnonzero(known.epoch < objective.epochs)
    if judged.lacking > 0:
        live = live[judged.bound[live] > judged.kth]
        first = live[np.argsort(known.cost[live], kind="stable")][: judged.lacking]
        return [Request(known.names[i], objective.epochs) for i in first]
    live = live[np.argsort(-judged.worth[live], kind="stable")]
    best = live[judged.worth[live] > judged.kth]
    if len(best):
        return [Request(known.names[i], int(known.epoch[i]) + 1) for i in best[:at_once]]
    if not objective.certify:
        return []
    unproven = live[judged.bound[live] > judged.kth]
    return [Request(known.names[i], objective.epochs) for i in unproven[:at_once]]


def verdict(
    candidates: Sequence[str],
    observed: Sequence[Observed],
    objective: Objective,
    *,
    prior: Prior | None = None,
) -> Verdict:
    """The results so far, for people. Arguments as `requests`."""
    known = _known(candidates, observed, objective, prior)
    n = len(known.names)
    judged = _judge(known, objective, prior)
    last = known.curve[np.arange(n), np.maximum(known.epoch - 1, 0)]
    done = known.epoch == objective.epochs
    possible = ~done & ~(judged.bound <= judged.kth)
    promising = possible & (judged.worth > judged.kth)
    states: list[State] = [
        "finished" if d else "discarded" if not p else "waiting" if w else "stopped"
        for d, p, w in zip(done, possible, promising | objective.certify, strict=True)
    ]
    table = pd.DataFrame(
        {
            "epoch": known.epoch,
            "P": last,
            "cost": known.cost,
            "forecast": known.forecast,
            "R": judged.resource,
            "score": judged.bound * last,
            "bound": judged.bound,
            "chance": judged.chance,
            "state": states,
        },
        index=pd.Index(known.names, name="candidate"),
    )
    finished = table[done].sort_values("score", ascending=False, kind="stable")
    top = list(finished.index[: objective.top])
    rivals = table["score"].where(done, table["bound"]).fillna(np.inf)
    return Verdict(
        table=table,
        top=top,
        proven=[]
        if known.forecast.any()
        else [t for t in top if (rivals > rivals[t]).sum() < objective.top],
        possible=list(table.index[possible]),
        promising=list(table.index[promising]),
        spent=known.spent,
        exhaustive=float(known.expense.sum()),
    )


# What was observed -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Known:
    """Observations by candidate, in the order of their names: `curve` is P, one column per epoch,
    NaN where it was not trained; cost and expense are NaN until they are measured, or `forecast`
    from the prior. Those that are `needed` must be measured before anything is trained."""

    names: list[str]
    curve: Floats
    epoch: NDArray[np.int64]
    cost: Floats
    expense: Floats
    needed: NDArray[np.bool_]
    forecast: NDArray[np.bool_]
    spent: float

    @property
    def unmeasured(self) -> list[str]:
        return [self.names[i] for i in np.flatnonzero(self.needed)]


def _known(
    candidates: Sequence[str],
    observed: Sequence[Observed],
    objective: Objective,
    prior: Prior | None,
) -> _Known:
    names = sorted(set(candidates))  # so that neither order nor repetition matters
    rows = {name: i for i, name in enumerate(names)}
    curve = np.full((len(names), objective.epochs), np.nan)
    epoch = np.zeros(len(names), dtype=np.int64)
    cost, expense = np.full(len(names), np.nan), np.full(len(names), np.nan)
    seen: set[tuple[str, int]] = set()
    for one in sorted(observed, key=lambda o: (o.candidate, o.epoch)):
        _check(one, objective)
        if (one.candidate, one.epoch) in seen:
            raise WrongUse(f"{one.candidate}: epoch {one.epoch} was observed twice; give it once")
        seen.add((one.candidate, one.epoch))
        if one.epoch > 1 and (one.candidate, one.epoch - 1) not in seen:
            raise WrongUse(f"{one.candidate}: epoch {one.epoch - 1} is missing; give each epoch")
        if one.candidate not in rows:
            continue
        i = rows[one.candidate]
        cost[i], expense[i], epoch[i] = one.cost, one.expense, one.epoch
        if one.performance is not None:
            curve[i, one.epoch - 1] = one.performance
    spent = math.fsum(one.spent for one in observed)  # the same in any order
    needed = missing = np.isnan(cost)
    if prior is not None and not objective.certify:
        table = prior.costs.reindex(names).astype(float)
        needed = missing & _ends(table)
        if not needed.any():
            greatest = np.nanmax(cost, initial=0.0)
            cost = forecast(table["cost"].to_numpy(), cost)
            expense = forecast(table["expense"].to_numpy(), expense)
            # R is never relative to a forecast.
            needed = np.isnan(cost + expense) | (missing & (cost > greatest))
    return _Known(names, curve, epoch, cost, expense, needed, missing & ~np.isnan(cost), spent)


def _ends(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Which costs must be measured: of candidates that the table does not have, of the cheapest by
    it, and of the dearest, which R is relative to."""
    needed = np.array(table.isna().any(axis=1))
    known = np.flatnonzero(~needed)
    order = known[np.argsort(table["cost"].to_numpy()[known], kind="stable")]
    needed[[*order[:_PROBED], *order[-1:]]] = True
    return needed


def _check(one: Observed, objective: Objective) -> None:
    for name in ("cost", "expense", "spent"):
        value = getattr(one, name)
        if not 0 <= value < np.inf:
            raise WrongUse(f"{one.candidate}: {name} {value:g} is not a finite number from 0")
    if not 0 <= one.epoch <= objective.epochs:
        raise WrongUse(f"{one.candidate}: epoch {one.epoch} is not among 0 to {objective.epochs}")
    if one.epoch == 0 and one.performance is not None:
        raise WrongUse(f"{one.candidate}: epoch 0 has no performance; give None")
    if one.epoch > 0 and (one.performance is None or not 0 <= one.performance <= 1):
        raise WrongUse(
            f"{one.candidate}: performance {one.performance} of epoch {one.epoch} is not in "
            "[0, 1]; give a share, not per cent"
        )


# The rule ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Judged:
    """By candidate: R, the bound, the estimated chance to end above the k-th best score `kth`
    and the index `worth`. R and bound are NaN until all costs are measured; the chance is NaN and
    the index infinite until `lacking` more candidates are finished."""

    resource: Floats
    bound: Floats
    chance: Floats
    worth: Floats
    kth: float
    lacking: int


def _judge(known: _Known, objective: Objective, prior: Prior | None) -> _Judged:
    n = len(known.names)
    unknown, infinite = np.full(n, np.nan), np.full(n, np.inf)
    if n == 0 or known.unmeasured:
        return _Judged(unknown, unknown, unknown, infinite, -np.inf, lacking=n)
    resource = pepr.normalise(known.cost, pepr.bounds(known.cost, "zero")).to_numpy()
    bound = pepr.pepr(np.ones(n), resource, alpha=objective.alpha).to_numpy()
    done = known.epoch == objective.epochs
    scores = np.sort((known.curve[:, -1] * bound)[done])[::-1]
    kth = float(scores[objective.top - 1]) if len(scores) >= objective.top else -np.inf
    lacking = max(objective.top, 2) - len(scores)  # two, to know how much P scatters
    if lacking > 0:
        return _Judged(resource, bound, unknown, infinite, kth, lacking)
    outcomes = _outcomes(known, objective, prior) * bound[:, None]
    worth = _index(outcomes, _prices(known, objective, kth), objective.epochs - known.epoch)
    chance = (outcomes > kth).mean(axis=1)
    chance[done] = (known.curve[:, -1] * bound >= kth)[done]
    return _Judged(resource, bound, chance, worth, kth, 0)


def _prices(known: _Known, objective: Objective, kth: float) -> Floats:
    """The cost of an epoch of each candidate in units of score: s · dx / (α + x), s the k-th best
    score and x the share spent of the cost of training all of them."""
    exhaustive = known.expense.sum()
    if exhaustive == 0:
        return np.zeros(len(known.names))
    epoch = known.expense / exhaustive / objective.epochs
    return np.asarray(kth * epoch / (objective.alpha + known.spent / exhaustive))


def _outcomes(known: _Known, objective: Objective, prior: Prior | None) -> Floats:
    """Equally probable values of P after the last epoch, one row per candidate, descending.

    Accuracy fluctuates from epoch to epoch, so a curve is summarised by its `level`. The gain, P
    after the last epoch less the level after e epochs, is known for the finished candidates; for
    another one Student's t predicts it from them, with a prior from the contenders among them. An
    untrained candidate is like one drawn from the trained ones, each of which could have ended
    differently, so predicted values are used for finished ones too. With fewer than three epochs
    the level is the last P; there Student's t predicts P of an untrained candidate from that of the
    finished ones.
    """
    done = known.epoch == objective.epochs
    final = known.curve[done, -1]
    points = np.empty((len(known.names), _POINTS))
    for epoch in np.unique(known.epoch[known.epoch > 0]):
        levels, rows = level(known.curve, epoch), known.epoch == epoch
        gains = final - levels[done]
        if prior is None:
            gain = _predicted(gains)
        else:
            gains = gains[contenders(levels[done])]
            gain = _expected(gains, *prior.at(epoch / objective.epochs))
        points[rows] = np.clip(levels[rows, None] + gain, 0, 1)
    trained = known.epoch > 0
    if objective.epochs < 3:
        points[~trained] = np.clip(_predicted(final), 0, 1)
    else:
        points[~trained] = np.quantile(points[trained], 1 - _SHARES)
    return points


def _predicted(values: Floats) -> Floats:
    """Equally probable values of the next one after these of a normal distribution, descending."""
    n = len(values)
    student = stdtrit(n - 1, 1 - _SHARES)  # quantiles of its t distribution
    return np.asarray(values.mean() + values.std(ddof=1) * np.sqrt(1 + 1 / n) * student)


def _expected(values: Floats, centre: float, scatter: float) -> Floats:
    """As `_predicted`, with a prior: it counts as `_CENTRE` values at the `centre` and as
    `_SCATTER` degrees of freedom with this standard deviation.

    That of a normal distribution with conjugate priors (A. Gelman et al., "Bayesian Data Analysis",
    section 3.3), but the distance of centre and mean is left out of the variance: a prior with a
    wrong centre would make the search expect a huge scatter. A prior that the values contradict
    counts less: by the square of the distance in standard deviations where that exceeds 1, which is
    the variance with which the distance is most probable.
    """
    n, mean = len(values), float(values.mean())
    squares = float(((values - mean) ** 2).sum())
    freedom = _SCATTER
    if squares > 0:
        distance = math.log(squares / (n - 1) / scatter**2)  # variance of the log of a χ²
        expected = polygamma(1, freedom / 2) + polygamma(1, (n - 1) / 2)
        freedom /= max(1.0, distance**2 / float(expected))
    variance = (freedom * scatter**2 + squares) / (freedom + n - 1)
    weight = _CENTRE
    weight /= max(1.0, (mean - centre) ** 2 / (variance * (1 / weight + 1 / n)))
    middle = (weight * centre + n * mean) / (weight + n)
    student = stdtrit(freedom + n - 1, 1 - _SHARES)
    return np.asarray(middle + np.sqrt(variance * (1 + 1 / (weight + n))) * student)


def _index(outcomes: Floats, price: Floats, left: NDArray[np.int64]) -> Floats:
    """Weitzman's index of each row: the score z in hand at which continuing is worth its price.

    One more epoch is always paid for, those after it only where the outcome S exceeds z, as if one
    epoch revealed it: price = E[max(S - z - price · (left - 1), 0)]. The right side is the maximum
    over the sets of the j best of the equally probable outcomes, hence z is the maximum over j of
    their mean, less the later epochs, less the next one over the share of the set.
    """
    count = np.arange(1, outcomes.shape[1] + 1)
    means = np.cumsum(outcomes, axis=1) / count
    once = price[:, None] * outcomes.shape[1] / count
    return np.asarray((means - once).max(axis=1) - price * (left - 1))
