"""Find the cheapest model that is good enough: whose P is within a margin of the best. Pure.

P hardly depends on the cost, and the first epochs hardly tell which model will be the best. So the
candidates are trained from the cheapest up, until one is good enough with the probability that is
sought (`finals`). With a budget, which ends earlier than that, breadth is worth more: a candidate
is looked at after a fifth of the epochs, and set aside while it is below the median of those seen
so far (median stopping: D. Golovin et al., "Google Vizier", KDD 2017).
"""

from __future__ import annotations

import math
from bisect import insort
from statistics import median

import numpy as np
import pandas as pd

from pepr_mlops.sweep.finals import Finals, Floats
from pepr_mlops.sweep.observed import Known, Objective, Request, State, Verdict
from pepr_mlops.sweep.prior import Prior, level

CONFIDENCE = 0.8  # of the answer, without `certify`
# The chance that an answer is wrong is raised to this power. Replayed with noise, each experiment
# of the paper with the two other families, what the model holds for 0.50, 0.80, 0.90, 0.95 and 0.98
# sure was right in 0.47, 0.80, 0.88, 0.90 and 0.92 (192 each): another family may differ more from
# these two than they do from each other.
_DOUBT = 0.7
_TRIAL = 5  # of the epochs one in so many before a candidate may be set aside
_SEEN = 5  # levels, before their median tells anything


def next_requests(known: Known, objective: Objective, prior: Prior | None) -> list[Request]:
    """The next requests, best first; none when the answer holds."""
    return _next(known, objective, _chances(known, objective, prior))


def _next(known: Known, objective: Objective, chances: Floats) -> list[Request]:
    sought = objective.sought or CONFIDENCE
    if known.done.all() or (chances >= sought).any():
        return []
    order = np.argsort(known.cost, kind="stable")
    epochs = objective.epochs
    if not objective.limited:
        return [Request(known.names[i], epochs) for i in order if known.epoch[i] < epochs]
    trial = max(1, round(epochs / _TRIAL))
    levels = level(known.curve, trial)
    seen: list[float] = []  # in ascending order
    now: list[Request] = []
    aside: list[Request] = []
    for i in order:
        poor = False
        if known.epoch[i] >= trial:
            insort(seen, float(levels[i]))
            poor = len(seen) >= _SEEN and levels[i] < median(seen)
        if known.epoch[i] < epochs:
            one = Request(known.names[i], trial if known.epoch[i] < trial else epochs)
            (aside if poor else now).append(one)
    return now + aside


def verdict(known: Known, objective: Objective, prior: Prior | None) -> Verdict:
    """The answer so far: the cheapest finished candidate that is within the margin with the
    probability sought, or the one with the greatest probability."""
    done = known.done
    chance = _chances(known, objective, prior)
    measured = not known.unmeasured
    n = len(known.names)
    resource = np.full(n, np.nan)
    if measured and n:
        resource = objective.resource(known.cost)
    left = [name for name, one in zip(known.names, done, strict=True) if not one]
    continues = not measured or bool(known.affordable(_next(known, objective, chance), objective))
    waits: State = "waiting" if continues else "stopped"
    table = pd.DataFrame(
        {
            "epoch": known.epoch,
            "P": known.last,
            "cost": known.cost,
            "forecast": known.forecast,
            "R": resource,
            "score": known.last,
            "bound": 1.0,
            "chance": chance,
            "state": ["finished" if one else waits for one in done],
        },
        index=pd.Index(known.names, name="candidate"),
    )
    top: list[str] = []
    if done.any() and measured:
        least = CONFIDENCE if objective.certify is None else objective.certify
        sure = chance >= min(least, float(np.nanmax(chance)))
        top = [known.names[np.argmin(np.where(sure, known.cost, np.inf))]]
    return Verdict(
        table=table,
        top=top,
        proven=[] if left else top,
        possible=left,
        promising=[],
        holds=float(table.loc[top[0], "chance"]) if top else None,
        spent=known.spent,
        exhaustive=float(known.expense.sum()),
        exhaustive_range=known.exhaustive_range(),
        forecast_error=known.forecast_error,
    )


def _chances(known: Known, objective: Objective, prior: Prior | None) -> Floats:
    """The probability of each finished candidate to be within the margin, NaN of the others."""
    margin = math.nan if objective.within is None else objective.within
    done, found = known.done, np.full(len(known.names), np.nan)
    if done.any():
        finals = Finals.of(()) if prior is None else prior.finals
        sure = finals.within(known.curve[done, -1], int((~done).sum()), margin)
        found[done] = 1 - (1 - sure) ** _DOUBT
    return found
