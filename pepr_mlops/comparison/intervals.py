"""Intervals of P, scores and ranks within one comparison set. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pepr_mlops.comparison.draws import Draws
from pepr_mlops.comparison.pepr import QUANTILES, Bounds, Floats, Method, limits, scale

NOT_DRAWN = "not drawn"
_LIMITS = ("p_low", "p_high", "ci_low", "ci_high")
_RANKS = ("rank_low", "rank_high", "top_share")


@dataclass(frozen=True)
class Scoring:
    """How a comparison set is scored: what the bootstrap repeats on every draw.

    `reference` has frozen bounds by cost column; with none the bounds are found by `method`.
    """

    costs: Sequence[str]
    weights: Sequence[float]
    method: Method = "minmax"
    alpha: float = 1.0
    quantiles: tuple[float, float] = QUANTILES
    reference: Mapping[str, Bounds] | None = None

    def scores(self, performance: Floats, costs: Mapping[str, Floats]) -> Floats:
        """Scores of many sets at once, one set along the last axis."""
        total = np.zeros_like(performance)
        for column, weight in zip(self.costs, self.weights, strict=True):
            values = costs[column]
            if self.reference is None:
                low, high = limits(values, self.method, self.quantiles)
                total += weight * scale(values, low[..., None], high[..., None])
            else:
                bounds = self.reference[column]
                total += weight * scale(values, bounds.low, bounds.high)
        return self.alpha * performance / (self.alpha + total)


def intervals(drawn: Draws, scoring: Scoring, *, level: float = 0.95, top: int = 5) -> pd.DataFrame:
    """Percentile intervals of P, score and rank within one comparison set.

    Each draw is normalised, scored and ranked as the measurement was. One row per model of `drawn`:
    `p_low`, `p_high` of P, `ci_low`, `ci_high` of the score, `rank_low`, `rank_high`, `top_share`,
    the share of draws in which it is among the `top` best, and `no_interval`, which says why they
    are missing and is empty where they are not. Ranks are missing where no model's error by the
    images is known.
    """
    scores = scoring.scores(drawn.performance, drawn.costs)
    ranks = pd.DataFrame(-scores).rank(axis=1, method="min").to_numpy()
    tails = [(1 - level) / 2, (1 + level) / 2]
    known = np.array([not why for why in drawn.missing])
    places = np.quantile(ranks, tails, axis=0, method="closest_observation")
    limits = [*np.quantile(drawn.performance, tails, axis=0), *np.quantile(scores, tails, axis=0)]
    found = {
        name: np.where(known, values, np.nan) for name, values in zip(_LIMITS, limits, strict=True)
    } | {
        name: np.where(drawn.images.any(axis=0).all(), values, np.nan)
        for name, values in zip(_RANKS, [*places, (ranks <= top).mean(axis=0)], strict=True)
    }
    return pd.DataFrame(found, drawn.models).assign(no_interval=list(drawn.missing))


def not_drawn(models: pd.Index) -> pd.DataFrame:
    """The columns of `intervals` where nothing was drawn."""
    return pd.DataFrame(np.nan, models, [*_LIMITS, *_RANKS]).assign(no_interval=NOT_DRAWN)


def interval_texts(rows: pd.DataFrame, what: str = "ci") -> list[str]:
    """The intervals of `intervals` as people read them: of the scores (`ci`) or of P (`p`); where
    there is none, why."""
    columns = (rows[f"{what}_low"], rows[f"{what}_high"], rows["no_interval"])
    return [
        f"none: {why}" if why else f"{low:.4f}–{high:.4f}"
        for low, high, why in zip(*columns, strict=True)
    ]


def rank_texts(rows: pd.DataFrame) -> list[str]:
    """The intervals of the ranks as people read them, empty where there is none."""
    return [
        "" if a != a else f"{a:.0f}" if a == b else f"{a:.0f}–{b:.0f}"
        for a, b in zip(rows["rank_low"], rows["rank_high"], strict=True)
    ]
