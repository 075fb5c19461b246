"""Intervals of scores and ranks within one comparison set, by the bootstrap. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pepr_mlops.comparison.pepr import QUANTILES, Bounds, Floats, Method, limits, scale

_DRAWN = 50_000  # runs drawn at a time, which stay in the cache of the processor
NOT_DRAWN = "not drawn"
_ROUNDING = 1e-12  # relative; what differs by less does not differ


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


def intervals(
    runs: pd.DataFrame,
    scoring: Scoring,
    *,
    error: Mapping[str, float],
    draws: int = 2000,
    level: float = 0.95,
    top: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """Percentile bootstrap of every model's score and rank within one comparison set.

    `runs` has one row per run with `model`, `performance` and the columns of `scoring.costs`.
    Each draw takes each model's runs with replacement (its seeds), adds to each cost the relative
    error of `error` (its standard deviation by column, such as 0.05 for energy; the costs of one
    run err together, since CO2e is made of energy), averages them per model, and normalises,
    scores and ranks the whole set again. A model with one run varies as the runs of the others do
    (`_as_others`), and by the error of its costs alone where each model has one run.

    One row per model: `ci_low`, `ci_high` of the score, `rank_low`, `rank_high`, `top_share`, the
    share of draws in which it is among the `top` best, and `no_interval`, which says why `ci_low`
    and `ci_high` are missing where no draw changes the score, and is empty elsewhere. The
    percentile bootstrap of a handful of seeds is narrower than the truth. Without draws everything
    is missing.
    """
    if draws == 0:
        return pd.DataFrame(
            np.nan,
            index=pd.Index(sorted(runs["model"].unique()), name="model"),
            columns=["ci_low", "ci_high", "rank_low", "rank_high", "top_share"],
        ).assign(no_interval=NOT_DRAWN)
    model, models = pd.factorize(runs["model"], sort=True)
    means = _drawn_means(runs, model, scoring.costs, error, draws, seed)
    scores = scoring.scores(means["performance"], means)
    ranks = pd.DataFrame(-scores).rank(axis=1, method="min").to_numpy()
    tail = (1 - level) / 2
    low, high = np.quantile(scores, [tail, 1 - tail], axis=0)
    rank_low, rank_high = np.quantile(
        ranks, [tail, 1 - tail], axis=0, method="closest_observation"
    ).astype(int)
    varies = high - low > _ROUNDING * high
    counts = np.bincount(model)
    if counts.max() > 1:
        alone = "one run, and the runs of other models do not differ"
    elif any(error.get(c) for c in scoring.costs):  # which moves no R that is held at 0 or 1
        alone = "one run, R fixed by the scale"
    else:
        alone = "one run, no error of its cost"
    why_none = np.where(counts == 1, alone, "its runs give one score")
    return pd.DataFrame(
        {
            "ci_low": np.where(varies, low, np.nan),
            "ci_high": np.where(varies, high, np.nan),
            "rank_low": rank_low,
            "rank_high": rank_high,
            "top_share": (ranks <= top).mean(axis=0),
            "no_interval": np.where(varies, "", why_none),
        },
        index=pd.Index(models, name="model"),
    )


def _drawn_means(
    runs: pd.DataFrame,
    model: NDArray[np.intp],
    costs: Sequence[str],
    error: Mapping[str, float],
    draws: int,
    seed: int,
) -> dict[str, Floats]:
    """Mean performance and costs by column, [draws, models]; `model` numbers that of each run."""
    rng = np.random.default_rng(seed)
    counts = np.bincount(model)
    columns = ["performance", *costs]
    means = {c: np.empty((draws, len(counts))) for c in columns}
    order = np.argsort(model, kind="stable")  # groupby would copy every frame
    ends = np.cumsum(counts)
    values = {c: np.split(runs[c].to_numpy(float)[order], ends[:-1]) for c in columns}
    for j, n in enumerate(counts):
        at_once = max(1, _DRAWN // n)
        for start in range(0, draws, at_once):
            some = slice(start, min(start + at_once, draws))
            shape = (some.stop - some.start, n)
            taken = rng.integers(0, n, shape)
            misread = rng.standard_normal(shape)  # all of a run's costs by one sensor
            for c in columns:
                drawn = values[c][j].take(taken)
                if error.get(c):
                    drawn *= 1 + error[c] * misread
                    np.maximum(drawn, 0, out=drawn)
                means[c][some, j] = drawn.mean(axis=1)
    alone = counts == 1
    if alone.any() and not alone.all():
        spread, freedom = pooled_spread(values, costs)
        moved = _as_others(spread, freedom, (draws, int(alone.sum())), rng)
        p = means["performance"]
        p[:, alone] = np.clip(p[:, alone] + moved[..., 0], 0, 1)
        for i, c in enumerate(costs, 1):
            means[c][:, alone] *= np.maximum(1 + moved[..., i], 0)
    return means


def pooled_spread(
    values: Mapping[str, Sequence[Floats]], costs: Sequence[str]
) -> tuple[Floats, int]:
    """How runs of one model differ: their covariance, pooled over the models with several runs.

    `values` are those of each model's runs by column. Rows and columns are `performance`, in its
    unit, and each cost relative to its mean over the model's runs: sum((n - 1) S) / sum(n - 1)
    of the n runs and the covariance S of each model. The second number is sum(n - 1), its degrees
    of freedom.
    """
    p = values["performance"]
    several = [j for j, runs in enumerate(p) if len(runs) > 1]
    apart = [[p[j] - p[j].mean() for j in several]]
    for c in costs:
        runs_and_mean = [(values[c][j], values[c][j].mean()) for j in several]
        apart.append([runs / (mean or 1) - (mean > 0) for runs, mean in runs_and_mean])
    table = np.array([np.concatenate(parts) for parts in apart])
    freedom = table.shape[1] - len(several)
    return table @ table.T / freedom, freedom


def _as_others(
    spread: Floats, freedom: int, shape: tuple[int, int], rng: np.random.Generator
) -> Floats:
    """Drawn distances of single runs from their model's mean, [draws, models, columns of `spread`].

    Multivariate t: where all models spread alike and normally, a run less its mean over the pooled
    standard deviation has Student's t distribution with the pooled degrees of freedom (G. Box,
    J. Hunter, W. Hunter 2005, Statistics for Experimenters, chapter 4). The uncertainty of the
    pooled spread is common to all models of one draw.
    """
    variances, directions = np.linalg.eigh(spread)
    root = directions * np.sqrt(np.maximum(variances, 0))
    wider = np.sqrt(freedom / rng.chisquare(freedom, shape[0]))
    drawn = rng.standard_normal((*shape, len(spread))) @ root.T
    return np.asarray(drawn * wider[:, None, None])


def interval_texts(rows: pd.DataFrame) -> tuple[list[str], list[str]]:
    """The intervals of `intervals` as people read them, of each row's score and of its rank.

    Where there is none it says why. The ranks are left out where no row has an interval.
    """
    known = bool(rows["ci_low"].notna().any())
    of_scores = [
        f"none: {why}" if why else f"{low:.4f}–{high:.4f}"
        for low, high, why in zip(rows["ci_low"], rows["ci_high"], rows["no_interval"], strict=True)
    ]
    ranks = zip(rows["rank_low"], rows["rank_high"], strict=True)
    return of_scores, [f"{a:.0f}–{b:.0f}" if known else "" for a, b in ranks]
