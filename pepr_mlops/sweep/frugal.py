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
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import polygamma, stdtr, stdtrit

from pepr_mlops.errors import WrongUse
from pepr_mlops.sweep import within
from pepr_mlops.sweep.observed import (
    Floats,
    Known,
    Objective,
    Observed,
    Request,
    State,
    Verdict,
    known_of,
)
from pepr_mlops.sweep.prior import Prior, contenders, level

_POINTS = 128  # equally probable values that stand for a distribution of P
_SHARES = (np.arange(_POINTS) + 0.5) / _POINTS
_CENTRE, _SCATTER = 1.0, 4.0  # finished candidates that a prior counts as, at most


def requests(
    candidates: Sequence[str],
    observed: Sequence[Observed],
    objective: Objective,
    *,
    at_once: int = 1,
    prior: Prior | None = None,
    busy: Collection[str] = (),
) -> list[Request]:
    """The next requests, best first; an empty list ends the search.

    `candidates` can still be trained; observations of others, which failed, count as spent. First
    every cost is measured; with a `prior` only those of the cheapest, of some of the others and of
    those it does not know, unless `objective.certify` wants a proof. Then the `objective.top`
    cheapest candidates are trained to the end, then the candidates worth their cost get one more
    epoch; with a margin see `within.next_requests`. At most `at_once` are trained together, and the
    requests of one call do not depend on each other. Those that are `busy` are being trained, so
    the budget must last for them first.

    Raises `WrongUse` naming the candidate for an observation that is no finite number from 0, P
    outside [0, 1], an epoch that is missing, repeated or beyond the last, and for a budget that is
    below what the cheapest takes.
    """
    known = known_of(candidates, observed, objective, prior)
    if known.unmeasured:
        return [Request(name, 0) for name in known.unmeasured]
    if objective.within is not None:
        found = within.next_requests(known, objective, prior)
    else:
        found = _next(known, objective, _judge(known, objective, prior))
    paid = known.affordable(found, objective, busy)
    if found and not paid and not known.done.any() and not busy:
        least = int(np.argmin(known.expense))
        total = known.expense.sum()
        percent = math.ceil(100 * (known.spent + known.expense[least]) / total)
        remedy = f"give --budget-percent {percent} or more, or as much --budget-wh"
        raise WrongUse(
            f"budget: probes took {known.spent / total:.2%} of what training all takes, and "
            f"{known.names[least]}, which takes the least, takes {known.expense[least] / total:.2%}"
            f"; {remedy if percent <= 100 else 'search without a budget, or train all of them'}"
        )
    return paid[:at_once]


def _next(known: Known, objective: Objective, judged: _Judged) -> list[Request]:
    """The requests of the rule for PePR, as if there were no budget."""
    live = np.flatnonzero(known.epoch < objective.epochs)
    if judged.lacking > 0:
        live = live[judged.bound[live] > judged.kth]
        first = live[np.argsort(known.cost[live], kind="stable")][: judged.lacking]
        return [Request(known.names[i], objective.epochs) for i in first]
    live = live[np.argsort(-judged.worth[live], kind="stable")]
    best, proof = live[judged.worth[live] > judged.kth], False
    if not len(best) and judged.holds < objective.sought:
        best, proof = live[judged.bound[live] > judged.kth], objective.certify == 1
    return [
        Request(known.names[i], objective.epochs if proof else int(known.epoch[i]) + 1)
        for i in best
    ]


def verdict(
    candidates: Sequence[str],
    observed: Sequence[Observed],
    objective: Objective,
    *,
    prior: Prior | None = None,
) -> Verdict:
    """The results so far, for people. Arguments as `requests`."""
    known = known_of(candidates, observed, objective, prior)
    if objective.within is not None:
        return within.verdict(known, objective, prior)
    judged = _judge(known, objective, prior)
    done, last = known.done, known.last
    possible = ~done & ~(judged.bound <= judged.kth)
    promising = possible & (judged.worth > judged.kth)
    continues = promising | (judged.holds < objective.sought)
    if not known.unmeasured and not known.affordable(_next(known, objective, judged), objective):
        continues[:] = False
    states: list[State] = [
        "finished" if d else "discarded" if not p else "waiting" if w else "stopped"
        for d, p, w in zip(done, possible, continues, strict=True)
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
    proven = [t for t in top if (rivals > rivals[t]).sum() < objective.top]
    return Verdict(
        table=table,
        top=top,
        proven=[] if known.forecast.any() else proven,
        possible=list(table.index[possible]),
        promising=list(table.index[promising]),
        holds=judged.holds if judged.lacking <= 0 else None,
        spent=known.spent,
        exhaustive=float(known.expense.sum()),
        exhaustive_range=known.exhaustive_range(),
        forecast_error=known.forecast_error,
    )


# The rule ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Judged:
    """By candidate: R, the bound, the estimated chance to end above the k-th best score `kth`
    and the index `worth`; and `holds`, the estimated probability that none of them does. R and
    bound are NaN until all costs are measured; the chance is NaN, the index infinite and `holds` 0
    until `lacking` more candidates are finished."""

    resource: Floats
    bound: Floats
    chance: Floats
    worth: Floats
    kth: float
    holds: float
    lacking: int


def _judge(known: Known, objective: Objective, prior: Prior | None) -> _Judged:
    n = len(known.names)
    unknown, infinite = np.full(n, np.nan), np.full(n, np.inf)
    if n == 0 or known.unmeasured:
        return _Judged(unknown, unknown, unknown, infinite, -np.inf, 0.0, lacking=n)
    resource = objective.resource(known.cost)
    bound = objective.alpha / (objective.alpha + resource)
    done = known.done
    scores = np.sort((known.curve[:, -1] * bound)[done])[::-1]
    kth = float(scores[objective.top - 1]) if len(scores) >= objective.top else -np.inf
    lacking = max(objective.top, 2) - len(scores)  # two, to know how much P scatters
    if lacking <= 0 and np.ptp(known.curve[done, -1]) == 0 and (~done & (bound > kth)).any():
        lacking = 1  # which equal ones do not tell either
    if lacking > 0:
        return _Judged(resource, bound, unknown, infinite, kth, 0.0, lacking)
    gains = _gains(known, objective, prior)
    outcomes = _outcomes(known, objective, gains) * bound[:, None]
    worth = _index(outcomes, _prices(known, objective, kth), objective.epochs - known.epoch)
    # Contenders alone, with a prior, find the best sooner, but make the others look too hopeless:
    # what they are believed to reach is right less often than it says.
    honest = gains if prior is None else _gains(known, objective, None)
    chance = _chances(known, objective, honest, kth / bound)
    holds = float(np.prod(1 - chance[~done]))
    chance[done] = (known.curve[:, -1] * bound >= kth)[done]
    return _Judged(resource, bound, chance, worth, kth, holds, 0)


def _prices(known: Known, objective: Objective, kth: float) -> Floats:
    """The cost of an epoch of each candidate in units of score: s · dx / (α + x), s the k-th best
    score and x the share spent of the cost of training all of them."""
    exhaustive = known.expense.sum()
    if exhaustive == 0:
        return np.zeros(len(known.names))
    epoch = known.expense / exhaustive / objective.epochs
    return np.asarray(kth * epoch / (objective.alpha + known.spent / exhaustive))


def _gains(known: Known, objective: Objective, prior: Prior | None) -> dict[int, Student]:
    """What is still to be gained, by the epochs that a candidate was trained for.

    Accuracy fluctuates from epoch to epoch, so a curve is summarised by its `level`. The gain, P
    after the last epoch less the level after e epochs, is known for the finished candidates; for
    another one Student's t predicts it from them, with a prior from the contenders among them. With
    fewer than three epochs the level is the last P, and after 0 epochs it predicts P itself.
    """
    done = known.done
    final = known.curve[done, -1]
    found = {0: _predicted(final)}
    for epoch in map(int, np.unique(known.epoch[known.epoch > 0])):
        levels = level(known.curve, epoch)[done]
        if prior is None:
            found[epoch] = _predicted(final - levels)
        else:
            gains = (final - levels)[contenders(levels)]
            found[epoch] = _expected(gains, *prior.at(epoch / objective.epochs))
    return found


def _outcomes(known: Known, objective: Objective, gains: dict[int, Student]) -> Floats:
    """Equally probable values of P after the last epoch, one row per candidate, descending.

    An untrained candidate is like one drawn from the trained ones, each of which could have ended
    differently, so predicted values are used for finished ones too.
    """
    points = np.empty((len(known.names), _POINTS))
    for epoch, gain in gains.items():
        rows = known.epoch == epoch
        levels = level(known.curve[rows], epoch)[:, None] if epoch else 0.0
        points[rows] = np.clip(levels + gain.quantiles(1 - _SHARES), 0, 1)
    trained = known.epoch > 0
    if objective.epochs >= 3:
        points[~trained] = np.quantile(points[trained], 1 - _SHARES)
    return points


def _chances(
    known: Known, objective: Objective, gains: dict[int, Student], limit: Floats
) -> Floats:
    """The probability of each candidate to end with P above its limit.

    As `_outcomes`, but exact: of many candidates with a small chance each, one may well succeed.
    """
    chance = np.zeros(len(known.names))
    reachable = limit < 1
    grid = np.linspace(limit.min(initial=1), 1, 65)
    untrained, n = np.zeros(len(grid)), 0
    for epoch, gain in gains.items():
        rows = (known.epoch == epoch) & reachable
        if epoch == 0:
            chance[rows] = gain.above(limit[rows])
            continue
        chance[rows] = gain.above(limit[rows] - level(known.curve[rows], epoch))
        levels = level(known.curve[known.epoch == epoch], epoch)
        untrained += gain.above(grid[:, None] - levels).sum(axis=1)
        n += len(levels)
    if objective.epochs >= 3:
        rows = (known.epoch == 0) & reachable
        chance[rows] = np.interp(limit[rows], grid, untrained / n)
    return chance


@dataclass(frozen=True)
class Student:
    """Student's t distribution of a value, with its median, scale and degrees of freedom."""

    middle: float
    scale: float
    freedom: float

    def quantiles(self, shares: Floats) -> Floats:
        return np.asarray(self.middle + self.scale * stdtrit(self.freedom, shares))

    def above(self, limit: Floats) -> Floats:
        """The probability of more than the limit."""
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = (self.middle - limit) / self.scale
        return np.asarray(stdtr(self.freedom, np.nan_to_num(distance, nan=-np.inf)))


def _predicted(values: Floats) -> Student:
    """The next value after these of a normal distribution."""
    n = len(values)
    scale = values.std(ddof=1) * np.sqrt(1 + 1 / n)
    return Student(float(values.mean()), float(scale), n - 1)


def _expected(values: Floats, centre: float, scatter: float) -> Student:
    """As `_predicted`, with a prior: it counts as `_CENTRE` values at the `centre` and as
    `_SCATTER` degrees of freedom with this standard deviation.

    That of a normal distribution with conjugate priors (A. Gelman et al., "Bayesian Data Analysis",
    section 3.3), but the distance of centre and mean is left out of the variance: a prior with a
    wrong centre would make the search expect a huge scatter. A prior that the values contradict
    counts less: by the square of the distance in standard deviations where that exceeds 1, which is
    the variance with which the distance is most probable. And where the values scatter less than
    the prior says, the logarithms of the variances are averaged: however little it counts, a far
    too wide prior would keep the mean of the variances wide.
    """
    n, mean = len(values), float(values.mean())
    squares = float(((values - mean) ** 2).sum())
    freedom = _SCATTER
    excess = math.log(squares / (n - 1) / scatter**2) if squares > 0 else 0.0
    if excess:
        expected = polygamma(1, freedom / 2) + polygamma(1, (n - 1) / 2)  # variance of log χ²
        freedom /= max(1.0, excess**2 / float(expected))
    variance = (freedom * scatter**2 + squares) / (freedom + n - 1)
    if excess < 0:
        variance = scatter**2 * math.exp(excess * (n - 1) / (freedom + n - 1))
    weight = _CENTRE
    weight /= max(1.0, (mean - centre) ** 2 / (variance * (1 / weight + 1 / n)))
    middle = (weight * centre + n * mean) / (weight + n)
    return Student(middle, math.sqrt(variance * (1 + 1 / (weight + n))), freedom + n - 1)


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
