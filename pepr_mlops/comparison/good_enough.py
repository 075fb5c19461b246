"""Which models are good enough: no more than a margin below the best, whichever that is. Pure.

The best of many measured models is not surely the best: its P is the greatest partly by luck. For
each model the distance to the truly best is bounded from above by multiple comparisons with the
best (J. C. Hsu, "Simultaneous Confidence Intervals for All Distances from the 'Best'", Annals of
Statistics 9, 1981; for unequal errors D. G. Edwards, J. C. Hsu, JASA 78, 1983). The bounds hold for
all models at once, so that the cheapest good-enough model may be chosen by any rule. They need the
comparisons with one model only, the best, for each that may be it; bounds from below hold for all
pairs, since any model may be far behind any other. A model confidence set (P. R. Hansen, A. Lunde,
J. M. Nason, Econometrica 79, 2011) answers which models cannot be told from the best, but not which
are close to it, which is what saves cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from pepr_mlops.comparison.draws import Draws
from pepr_mlops.comparison.pepr import Floats
from pepr_mlops.errors import WrongUse

MARGIN = 0.01  # of P
LEVEL = 0.95
Verdict = Literal["good enough", "not good enough", "cannot tell"]
GOOD: Verdict = "good enough"
BAD: Verdict = "not good enough"
OPEN: Verdict = "cannot tell"
_MOST = 100  # times as many images or runs, which nobody will get


def check(margin: float, level: float) -> None:
    """Raise `WrongUse` for what is no margin of P, or no confidence."""
    if not 0 < margin < 1:
        raise WrongUse(f"margin: {margin:g} is not between 0 and 1; write 0.01 for one point")
    if not 0.5 <= level < 1:
        raise WrongUse(f"confidence: {level:g} is not a share from 0.5 to below 1, such as 0.95")


def judge(drawn: Draws, margin: float = MARGIN, level: float = LEVEL) -> pd.DataFrame:
    """How far each model is behind the best one, and whether that is good enough.

    One row per model of `drawn`: `behind`, the distance of its P to the greatest; `at_least` and
    `at_most`, bounds of its distance to the truly best P, each for all models at once with
    confidence `level`; `verdict`, and where it is open `more_images` and `more_runs`, by how much
    the images and the runs of each model would have to be multiplied to tell; these are missing
    where a hundred times as much would not. Models whose error is not known have no bounds and an
    open verdict, but any of them may be the best. Raises `WrongUse` for an impossible margin or
    level.
    """
    check(margin, level)
    known = np.array([not why for why in drawn.missing])
    value = drawn.value
    table = pd.DataFrame({"behind": value.max() - value}, drawn.models)
    table["at_least"] = table["at_most"] = table["more_images"] = table["more_runs"] = np.nan
    table["verdict"] = OPEN
    if not known.any() or not drawn.images.any(axis=0).all():
        return table
    pairs = _Pairs.of(drawn, level)
    at_most, at_least = pairs.bounds()
    table["at_most"], table["at_least"] = at_most, at_least
    table.loc[~known, ["at_most", "at_least"]] = np.nan
    table["verdict"] = np.select(
        [table["at_most"] <= margin, table["at_least"] > margin], [GOOD, BAD], OPEN
    )
    still_open = known & (table["verdict"] == OPEN).to_numpy()
    more = np.array(pairs.needed(margin))
    table.loc[still_open, ["more_images", "more_runs"]] = more[still_open]
    return table


@dataclass(frozen=True)
class _Pairs:
    """Distances of models from each that may be the best, [rivals, models]: as measured, their
    variances by images and by seeds, and the quantiles of their studentised errors: `above` for
    each rival, and `below` for all."""

    distance: Floats
    by_images: Floats
    by_seeds: Floats
    above: Floats
    below: float

    @classmethod
    def of(cls, drawn: Draws, level: float) -> _Pairs:
        value, images = drawn.value, drawn.images
        seeds, performance = drawn.seeds, drawn.performance
        # a model that is the best in no draw is hardly the best
        rivals = np.union1d(performance.argmax(axis=1), value.argmax())
        error = performance - value
        centred = images - images.mean(axis=0)
        covariance = centred[:, rivals].T @ centred / len(centred)
        variance = centred.var(axis=0)
        by_images = np.maximum(variance[rivals][:, None] + variance - 2 * covariance, 0.0)
        by_seeds = seeds[rivals][:, None] + seeds
        for own in (by_images, by_seeds):
            own[np.arange(len(rivals)), rivals] = 0.0
        width = np.sqrt(by_images + by_seeds)
        highest, lowest = [], np.full(len(error), -np.inf)
        for row, rival in enumerate(rivals):
            others = width[row] > 0
            off = (error[:, rival][:, None] - error[:, others]) / width[row, others]
            highest.append(np.quantile(off.max(axis=1), level) if others.any() else 0.0)
            if others.any():
                lowest = np.maximum(lowest, -off.min(axis=1))
        below = float(np.quantile(lowest, level)) if np.isfinite(lowest).all() else 0.0
        distance = value[rivals][:, None] - value
        return cls(distance, by_images, by_seeds, np.array(highest), below)

    @cached_property
    def width(self) -> Floats:
        return np.asarray(np.sqrt(self.by_images + self.by_seeds))

    def bounds(self) -> tuple[Floats, Floats]:
        """The greatest and the least distance to the best, [models]."""
        at_most = (self.distance + self.above[:, None] * self.width).max(axis=0)
        at_least = (self.distance - self.below * self.width).max(axis=0)
        return np.maximum(at_most, 0.0), np.maximum(at_least, 0.0)

    def needed(self, margin: float) -> list[tuple[float, float]]:
        """For each model how much more images and runs would tell, if its distance stays."""
        found = []
        nearest = (self.distance + self.above[:, None] * self.width).argmax(axis=0)
        for j, row in enumerate(nearest.tolist()):
            distance = float(self.distance[row, j])
            factor = float(self.above[row]) if distance <= margin else self.below
            target = (abs(margin - distance) / factor) ** 2 if factor else np.inf
            found.append(_more(target, float(self.by_images[row, j]), float(self.by_seeds[row, j])))
        return found


def _more(target: float, by_images: float, by_seeds: float) -> tuple[float, float]:
    """What makes the sum of two variances at most `target`: more images, else more runs, else as
    many more of both; NaN where it would take too much."""
    if target > by_seeds:
        found = by_images / (target - by_seeds), 1.0
    elif target > by_images:
        found = 1.0, by_seeds / (target - by_images)
    else:
        both = (by_images + by_seeds) / target if target > 0 else np.inf
        found = both, both
    return found if max(found) <= _MOST else (np.nan, np.nan)


@dataclass(frozen=True)
class Saving:
    """What one model costs less than another: `amount` in the unit of the cost and `times` (the
    other's cost over its own), each with its interval; `times` is missing where its cost is 0."""

    amount: float
    amount_low: float
    amount_high: float
    times: float | None
    times_low: float | None
    times_high: float | None


def saving(drawn: Draws, column: str, cost: Floats, choice: int, best: int) -> Saving:
    """What `choice` saves against `best`, places in `drawn`; `cost` are the mean costs, [models].

    The intervals are those of two costs that were named before: of confidence 95%.
    """
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    a, b = drawn.costs[column][:, choice], drawn.costs[column][:, best]
    low, high = np.quantile(b - a, tails)
    times: list[float | None] = [None, None, None]
    if cost[choice] > 0 and (a > 0).all():
        times = [float(cost[best] / cost[choice]), *np.quantile(b / a, tails).tolist()]
    return Saving(float(cost[best] - cost[choice]), float(low), float(high), *times)


def agreement(performance: Floats, resource: Floats, choice: int) -> tuple[float, float] | None:
    """The α from 1 for which `choice` has the greatest αP / (α + R), as an interval whose end may
    be infinite; None where there is none.

    For each other model α(P - P') ≥ P'R - PR', which is linear in α.
    """
    low, high = 1.0, np.inf
    gain = performance[choice] - performance
    price = performance * resource[choice] - performance[choice] * resource
    for a, b in zip(gain, price, strict=True):
        if a > 0:
            low = max(low, b / a)
        elif a < 0:
            high = min(high, b / a)
        elif b > 0:
            return None
    return (float(low), float(high)) if low <= high else None
