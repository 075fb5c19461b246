"""What data sets on which many models were trained tell about a search on another. Pure.

How dear one model is against another hardly depends on the data, so a table forecasts costs. How
much P still rises after some epochs depends on the models that are compared: those with a poor
level gain much more and scatter twice as much as those that can win. Only *contenders* count, the
better half by their level.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pepr_mlops.errors import WrongUse
from pepr_mlops.sweep.finals import MAD, Finals, Floats

COSTS = ("energy_wh", "train_time_s", "memory_gb")
LEAST_MODELS, LEAST_EPOCHS = 8, 3  # of a data set that tells anything
# Settings that change how models learn; a data set trained with others counts less.
RECIPE = ("pretrained", "epochs", "image_size", "batch_size", "lr")
_LISTS = ("models", "finals", "centre", "scatter")
_EXACT = 1e-4  # P is not known any better


def level(curves: Floats, epoch: int) -> Floats:
    """P of each candidate after `epoch` epochs, (n, epochs) to (n,): the mean over the later half,
    since P fluctuates from epoch to epoch."""
    return np.asarray(curves[:, epoch // 2 : epoch].mean(axis=1))


def contenders(levels: Floats) -> NDArray[np.intp]:
    """Indices of the better half by level, two at least."""
    n = max(min(2, len(levels)), -(-len(levels) // 2))
    return np.argsort(-levels, kind="stable")[:n]


@dataclass(frozen=True)
class Earlier:
    """What is kept of one data set.

    `family` is the name of the data, which several data sets may share, and `recipe` has the
    settings of `RECIPE` that are known. `finals` is P of each of the `models` after the last epoch.
    After each epoch the gain, P after the last one less the level, has this `centre` and `scatter`
    (standard deviation) over the contenders. `costs` has the natural logarithm of each of `COSTS`
    of each model, None where it is not known.
    """

    family: str
    name: str
    recipe: Mapping[str, str]
    models: tuple[str, ...]
    finals: tuple[float, ...]
    centre: tuple[float, ...]
    scatter: tuple[float, ...]
    costs: Mapping[str, tuple[float | None, ...]]

    @classmethod
    def of(
        cls,
        family: str,
        name: str,
        recipe: Mapping[str, str],
        curves: pd.DataFrame,
        costs: pd.DataFrame,
    ) -> Earlier:
        """From P after every epoch, (models × epochs), and the `COSTS` of the same models.

        Centre and scatter are the median and the scaled median absolute deviation. Raises
        `WrongUse` for fewer models or epochs than tell anything, and for P outside [0, 1].
        """
        p = curves.to_numpy(float)
        if len(p) < LEAST_MODELS or p.shape[1] < LEAST_EPOCHS:
            raise WrongUse(
                f"prior: {name} has {len(p)} models and {p.shape[1]} epochs; it needs "
                f"{LEAST_MODELS} models and {LEAST_EPOCHS} epochs"
            )
        if not ((p >= 0) & (p <= 1)).all():
            raise WrongUse(f"prior: {name} has no P in [0, 1] of every epoch")
        centre, scatter = [], []
        for epoch in range(1, p.shape[1] + 1):
            levels = level(p, epoch)
            gain = (p[:, -1] - levels)[contenders(levels)]
            middle = float(np.median(gain))
            centre.append(middle)
            scatter.append(max(_EXACT, MAD * float(np.median(np.abs(gain - middle)))))
        logs = np.log(costs[list(COSTS)].astype(float).where(costs[list(COSTS)] > 0))
        known = {
            c: tuple(None if np.isnan(v) else round(float(v), 4) for v in logs[c]) for c in COSTS
        }
        models = tuple(str(model) for model in curves.index)
        return cls(
            family,
            name,
            dict(recipe),
            models,
            tuple(round(float(one), 5) for one in p[:, -1]),
            tuple(round(one, 5) for one in centre),
            tuple(round(one, 5) for one in scatter),
            known,
        )


@dataclass(frozen=True)
class Prior:
    """What a search on other data expects.

    `gain` is indexed by the share of the epochs that a candidate was trained for, with the columns
    `centre` and `scatter` of what it still gains; it counts as one candidate that was trained to
    the end for the centre, and as four for the scatter. `costs` has the logarithms of `cost` and
    `expense` (`Observed`) of each known model, up to a constant. `families` has the share of each
    that it is from. `finals` is how good the best of many models is.
    """

    gain: pd.DataFrame
    costs: pd.DataFrame
    families: Mapping[str, float]
    finals: Finals = field(default_factory=lambda: Finals.of(()))

    def at(self, share: float) -> tuple[float, float]:
        """Centre and scatter of the gain after this share of the epochs."""
        known, centre, scatter = self._gain
        return (
            float(np.interp(share, known, centre)),
            float(np.exp(np.interp(share, known, scatter))),
        )

    @cached_property
    def _gain(self) -> tuple[Floats, Floats, Floats]:
        """Shares, centres and the logarithms of the scatters."""
        centre, scatter = self.gain[["centre", "scatter"]].to_numpy(float).T
        return self.gain.index.to_numpy(float), centre, np.log(scatter)


def prior_of(
    earlier: Sequence[Earlier],
    without: Collection[str],
    cost: str = "energy_wh",
    expense: str = "energy_wh",
    recipe: Mapping[str, str] | None = None,
) -> Prior | None:
    """The prior from data sets, but none of a family or with a name in `without`, which a search is
    on; None where that leaves nothing. Cost and expense are two of `COSTS`.

    Each family has the same weight, shared by its data sets; each setting in which a data set
    differs from the `recipe` of the search halves its weight.
    """
    used = [one for one in earlier if not {one.family, one.name} & set(without)]
    if not used:
        return None
    families = [one.family for one in used]
    own = recipe or {}
    differ = [sum(own.get(k, v) != v for k, v in one.recipe.items()) for one in used]
    weights = np.array(
        [0.5**n / families.count(family) for n, family in zip(differ, families, strict=True)]
    )
    weights /= weights.sum()
    shares = np.unique(np.concatenate([_shares(one) for one in used]))
    centres = [np.interp(shares, _shares(one), one.centre) for one in used]
    scatters = [np.interp(shares, _shares(one), np.log(one.scatter)) for one in used]
    gain = pd.DataFrame(
        {"centre": weights @ np.array(centres), "scatter": np.exp(weights @ np.array(scatters))},
        index=pd.Index(shares, name="share"),
    )
    names = {"cost": cost, "expense": expense}
    costs = pd.DataFrame({column: _table(used, weights, name) for column, name in names.items()})
    finals = []
    for one, weight in zip(used, weights, strict=True):
        order = np.argsort(np.array(one.costs[cost], float), kind="stable")  # unknown ones last
        finals.append((float(weight), np.array(one.finals)[order]))
    by_family = pd.Series(weights, families).groupby(level=0, sort=False).sum()
    return Prior(gain, costs, by_family.to_dict(), Finals.of(finals))


def forecast(table: Floats, known: Floats) -> tuple[Floats, float | None]:
    """The cost of every candidate: `known` where it is no NaN, else by the `table` of logarithms;
    and the standard deviation of the logarithm of such a cost, None where it is not known.

    A straight line through the logarithms of the known costs over those of the table; its slope is
    drawn to 1 by one observation at a distance of a factor e. What neither has is NaN.
    """
    both = ~np.isnan(table) & (known > 0)
    if not both.any():
        return known, None
    x, ratio = table[both], np.log(known[both]) - table[both]
    dx = x - x.mean()
    slope = 1 + (dx * (ratio - ratio.mean())).sum() / ((dx**2).sum() + 1)
    line = x.mean() + ratio.mean() + slope * (table - x.mean())
    off = np.log(known[both]) - line[both]
    error = float(np.sqrt((off**2).sum() / (len(off) - 2))) if len(off) > 2 else None
    return np.where(np.isnan(known), np.exp(line), known), error


def as_json(earlier: Sequence[Earlier]) -> list[dict[str, Any]]:
    return [asdict(one) for one in earlier]


def from_json(content: Any, source: str) -> list[Earlier]:
    """The data sets of a file of priors. Raises `WrongUse`, naming the `source`, for another file,
    for too few models or epochs, for values that are missing, not finite or not of every model and
    epoch, and for P outside [0, 1]."""
    found = []
    data_sets = content.get("data_sets") if isinstance(content, dict) else None
    for at, one in enumerate(data_sets if isinstance(data_sets, list) else []):
        try:
            costs = {cost: tuple(one["costs"][cost]) for cost in COSTS}
            fields = {name: tuple(one[name]) for name in _LISTS}
            recipe = {str(name): str(value) for name, value in one.get("recipe", {}).items()}
            made = Earlier(str(one["family"]), str(one["name"]), recipe, costs=costs, **fields)
            _check(made)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise WrongUse(f"prior: {source}: data set {at} cannot be used ({error})") from error
        found.append(made)
    if not found:
        raise WrongUse(f"prior: {source} has no data sets; benchmarks/prior.py writes such a file")
    return found


def _check(one: Earlier) -> None:
    """Raise `ValueError` for what `Earlier.of` would not make."""
    models, epochs = len(one.models), len(one.centre)
    if models < LEAST_MODELS or epochs < LEAST_EPOCHS:
        raise ValueError(
            f"it has {models} models and {epochs} epochs; it needs {LEAST_MODELS} models and "
            f"{LEAST_EPOCHS} epochs"
        )
    if len(set(one.models)) < models:
        raise ValueError("models: one appears twice")
    numbers = [*one.finals, *one.centre, *one.scatter]
    numbers += [value for of in one.costs.values() for value in of if value is not None]
    complete = epochs == len(one.scatter)
    complete &= all(len(of) == models for of in (one.finals, *one.costs.values()))
    if not complete or not np.isfinite(numbers).all() or min(one.scatter) <= 0:
        raise ValueError("a value is missing, or no finite number")
    if not all(0 <= p <= 1 for p in one.finals):
        raise ValueError("finals: P is not in [0, 1]; give shares, not per cent")


def _shares(one: Earlier) -> Floats:
    return np.arange(1, len(one.centre) + 1) / len(one.centre)


def _table(used: Sequence[Earlier], weights: Floats, cost: str) -> pd.Series[float]:
    """The logarithm of a cost of each model, up to a constant.

    Data sets differ by a factor, and may not have all models: the factors are those with which the
    models agree best (least squares, by turns).
    """
    logs = pd.DataFrame(
        {i: pd.Series(one.costs[cost], one.models, float) for i, one in enumerate(used)}
    )
    known = logs.notna() * weights
    factors = pd.Series(0.0, logs.columns)
    for _ in range(100):
        models = (logs.sub(factors) * known).sum(axis=1) / known.sum(axis=1)
        factors = logs.sub(models, axis=0).mean()
        factors -= factors.mean()
    return models
