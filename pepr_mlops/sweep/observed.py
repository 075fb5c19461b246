"""What a frugal search looks for, what it has observed, and what it found: its words. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pepr_mlops.comparison import pepr
from pepr_mlops.errors import WrongUse
from pepr_mlops.sweep.prior import Prior, forecast

Floats = NDArray[np.float64]
State = Literal["finished", "discarded", "stopped", "waiting"]
_MISFIT = 0.5  # of the logarithm of a cost: a table that is so far off forecasts nothing
_CHEAPEST, _BETWEEN = 20, 8  # candidates by the prior that are probed, besides the dearest


@dataclass(frozen=True)
class Objective:
    """What a search looks for, and when it ends.

    The target is the `top` candidates with the highest αP / (α + R) after `epochs` epochs, where R
    is the cost by this `normalisation`; or, with a margin `within`, the cheapest candidate whose P
    is no more than the margin below the greatest P of all.

    With `certify` the search continues until training all of them would confirm its answer with
    this probability (`Verdict.holds`); with 1 until that is proven. `budget_share` limits what the
    training takes, as a share of what training all of them takes, and `budget` in the unit of
    `Observed.expense`. A search with a limit uses it up.
    """

    top: int = 5
    epochs: int = 10
    alpha: float = 1.0
    normalisation: Literal["minmax", "zero"] = "zero"
    within: float | None = None
    certify: float | None = None
    budget: float | None = None
    budget_share: float | None = None

    def __post_init__(self) -> None:
        for name in ("top", "epochs"):
            if getattr(self, name) < 1:
                raise WrongUse(f"{name}: {getattr(self, name)} is too few; give a number from 1")
        if not 1 <= self.alpha < np.inf:
            raise WrongUse(f"alpha: {self.alpha:g} is not 1 or more")
        if self.within is not None and not 0 < self.within < 1:
            raise WrongUse(
                f"within: {self.within:g} is no margin of P between 0 and 1; give one such as 0.01"
            )
        if self.within is not None and (self.top, self.alpha) != (1, 1):
            raise WrongUse("within: it looks for one model by P and cost; leave out top and alpha")
        if self.certify is not None and not 0 < self.certify <= 1:
            raise WrongUse(
                f"certify: {self.certify:g} is no probability; give one such as 0.95, or none for "
                "a proof"
            )
        if self.budget is not None and not 0 < self.budget < np.inf:
            raise WrongUse(f"budget_wh: {self.budget:g} is not above 0")
        if self.budget_share is not None and not 0 < self.budget_share <= 1:
            raise WrongUse(f"budget_percent: {100 * self.budget_share:g} is not above 0, up to 100")

    @property
    def limited(self) -> bool:
        return self.budget is not None or self.budget_share is not None

    def resource(self, cost: Floats) -> Floats:
        """R of candidates with these costs."""
        return pepr.scale(cost, *pepr.limits(cost, self.normalisation))

    @property
    def sought(self) -> float:
        """The probability that the answer holds up to which training goes on at a loss: none by
        default, and more than an estimate can give with a budget alone and for a proof."""
        if self.certify is None:
            return math.inf if self.limited else 0.0
        return self.certify if self.certify < 1 else math.inf


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
    `score` with that P, `bound` (the score with P = 1), `chance` and `state`: `finished`,
    `discarded` (by the bound), `stopped` (no longer worth its cost) or `waiting` (to be measured or
    trained). With a margin `score` and `bound` are P and 1.

    `top` are the best finished candidates, best first, or the answer with a margin; the `proven`
    ones stay in it whatever the others reach. The `possible` ones could still reach it by the
    bound, and the `promising` ones among these are worth training.

    `holds` is the estimated probability that training all candidates would confirm `top`, None
    until it is known; with a margin it would confirm that it is within it, not that it is the
    cheapest so. `chance` in the table is that with which a candidate reaches the k-th best
    score so far, or with a margin that with which a finished one is within it.

    `spent` and `exhaustive`, the expense of training all candidates to the end, have the unit of
    `Observed.expense`. `forecast_error` is the standard deviation of the logarithm of a cost that
    is forecast, None where none is; `exhaustive_range` has the ends of `exhaustive` if all were
    wrong by 1.96 of these.
    """

    table: pd.DataFrame
    top: list[str]
    proven: list[str]
    possible: list[str]
    promising: list[str]
    holds: float | None
    spent: float
    exhaustive: float
    exhaustive_range: tuple[float, float]
    forecast_error: float | None


@dataclass(frozen=True)
class Known:
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
    forecast_error: float | None
    spent: float

    @property
    def unmeasured(self) -> list[str]:
        return [self.names[i] for i in np.flatnonzero(self.needed)]

    @property
    def done(self) -> NDArray[np.bool_]:
        return np.asarray(self.epoch == self.curve.shape[1])

    @property
    def last(self) -> Floats:
        """P after the last epoch that was trained."""
        return self.curve[np.arange(len(self.names)), np.maximum(self.epoch - 1, 0)]

    def exhaustive_range(self) -> tuple[float, float]:
        error = 1.96 * (self.forecast_error or 0.0)
        guessed = float(self.expense[self.forecast].sum())
        measured = float(self.expense.sum()) - guessed
        return measured + guessed * math.exp(-error), measured + guessed * math.exp(error)

    def affordable(
        self, requests: Sequence[Request], objective: Objective, busy: Collection[str] = ()
    ) -> list[Request]:
        """Those that can be trained to the end within the budget, besides the candidates that are
        `busy` already: the epochs of a training that cannot be finished are wasted."""
        if not objective.limited:
            return list(requests)
        limits = [np.inf if objective.budget is None else objective.budget]
        if objective.budget_share is not None:
            limits.append(objective.budget_share * float(self.expense.sum()))
        row = {name: i for i, name in enumerate(self.names)}
        left = min(limits) * (1 + 1e-9) - self.spent  # sums of parts are not exact
        found = set()
        for one in sorted(requests, key=lambda one: one.candidate not in busy):
            i = row[one.candidate]
            price = self.expense[i] * (1 - self.epoch[i] / objective.epochs)
            if price <= left or one.candidate in busy:
                left -= price
                found.add(one.candidate)
        return [one for one in requests if one.candidate in found]


def known_of(
    candidates: Sequence[str],
    observed: Sequence[Observed],
    objective: Objective,
    prior: Prior | None,
) -> Known:
    """Raises `WrongUse` naming the candidate for an observation that is no finite number from 0, P
    outside [0, 1], and an epoch that is missing, repeated or beyond the last."""
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
    error = None
    if prior is not None and objective.certify != 1:
        table = prior.costs.reindex(names).astype(float)
        needed = missing & _to_measure(table)
        if missing.any() and not needed.any():
            least, greatest = np.nanmin(cost), np.nanmax(cost)
            cost, _ = forecast(table["cost"].to_numpy(), cost)
            expense, error = forecast(table["expense"].to_numpy(), expense)
            # R is never relative to a forecast.
            needed = np.isnan(cost + expense) | (missing & ~((cost >= least) & (cost <= greatest)))
            if error is not None and error > _MISFIT:
                needed = missing
    guessed = missing & ~np.isnan(cost)
    return Known(names, curve, epoch, cost, expense, needed, guessed, error, spent)


def _to_measure(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Which costs must be measured: of candidates that the table does not have, of the cheapest by
    it, which are trained first, of the dearest, which R is relative to, and of some between them,
    without which the sum of all costs is up to 18% off among the paper's data sets (with them
    8%)."""
    needed = np.array(table.isna().any(axis=1))
    known = np.flatnonzero(~needed)
    order = known[np.argsort(table["cost"].to_numpy()[known], kind="stable")]
    rest = order[_CHEAPEST:]
    steps = np.linspace(-1, len(rest) - 1, min(_BETWEEN + 1, len(rest)) + 1)[1:]
    needed[order[:_CHEAPEST]] = True
    needed[rest[steps.round().astype(int)]] = True
    return needed


def _check(one: Observed, objective: Objective) -> None:
    for name, value in (("cost", one.cost), ("expense", one.expense), ("spent", one.spent)):
        if not 0 <= value < math.inf:
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
