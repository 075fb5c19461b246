"""How much the runs of one model differ, estimated from the runs of all models. Pure.

Two seeds say little about one model, but a hundred models with two seeds each say much about
models: G. K. Smyth, "Linear Models and Empirical Bayes Methods for Assessing Differential
Expression in Microarray Experiments", Statistical Applications in Genetics and Molecular Biology 3
(2004), whose notation this follows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import digamma, polygamma

from pepr_mlops.comparison.pepr import Floats

ASSUMED_SD = 0.01  # of P between runs, where no run was repeated
_FEWEST = 3  # models with several runs that say whether models differ in their spread
_FLOOR = 1e-5  # of the median; equal runs have no variance, whose logarithm would be infinite


@dataclass(frozen=True)
class Spread:
    """The standard deviation `sd` of P between runs of a model, with its degrees of freedom, in
    words where it is from, and the `metric` that is P, None if it is taken for any."""

    sd: float
    freedom: float
    source: str
    metric: str | None = None


ASSUMED = Spread(ASSUMED_SD, math.inf, "assumed")


@dataclass(frozen=True)
class Moderated:
    """Variances [models] between runs, each with its degrees of freedom."""

    variance: Floats
    freedom: Floats


def moderated(variances: Floats, freedom: Floats) -> Moderated:
    """The variances between runs of models, each drawn towards that of all of them.

    `variances` are those of each model's runs and `freedom` the numbers of its runs less one; where
    that is 0 the variance does not matter and the result is the prior. Smyth's Eq. for s̃² and its
    d₀ + d degrees of freedom, which are at most those of all models together, as in limma. With
    fewer than 3 models of several runs, or where they differ no more than chance has it, all share
    the pooled variance. Raises `ValueError` where no model has several runs.
    """
    several = freedom > 0
    total = float(freedom.sum())
    if total == 0:
        raise ValueError("no model has several runs")
    s2, d = variances[several], freedom[several]
    prior, prior_freedom = float((d * s2).sum() / total), math.inf
    if several.sum() >= _FEWEST and prior > 0:
        fitted = _prior(np.maximum(s2, _FLOOR * (np.median(s2) or prior)), d)
        if fitted is not None:
            prior, prior_freedom = fitted
    if math.isinf(prior_freedom):
        return Moderated(np.full(len(freedom), prior), np.full(len(freedom), total))
    own = np.where(several, variances, 0.0)
    variance = (prior_freedom * prior + freedom * own) / (prior_freedom + freedom)
    return Moderated(variance, np.clip(prior_freedom + freedom, 1.0, total))


def _prior(s2: Floats, d: Floats) -> tuple[float, float] | None:
    """Smyth's s₀² and d₀, None where d₀ is infinite."""
    e = np.log(s2) - digamma(d / 2) + np.log(d / 2)
    excess = float(e.var(ddof=1) - polygamma(1, d / 2).mean())
    if excess <= 0:
        return None
    half = _inverse_trigamma(excess)
    return float(np.exp(e.mean() + digamma(half) - np.log(half))), 2 * half


def _inverse_trigamma(x: float) -> float:
    """The y of which trigamma(y) is x, by Newton's method on 1 / trigamma (Smyth's appendix)."""
    y = 0.5 + 1 / x
    for _ in range(50):
        trigamma = float(polygamma(1, y))
        step = trigamma * (1 - trigamma / x) / float(polygamma(2, y))
        y += step
        if -step / y < 1e-10:
            break
    return y


def pooled(runs: pd.DataFrame, by: list[str], source: str) -> Spread | None:
    """The pooled spread of `performance` within groups of `runs` that have the same values in the
    columns `by`; None where no group has several runs, or none of them differ."""
    groups = runs.groupby(by, dropna=False)["performance"]
    counts = groups.size()
    freedom = int((counts - 1).sum())
    if freedom == 0:
        return None
    squares = float(((runs["performance"] - groups.transform("mean")) ** 2).sum())
    if squares == 0:
        return None
    return Spread(math.sqrt(squares / freedom), freedom, source)
