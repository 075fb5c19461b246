"""PePR: performance per resource unit, its normalisation and its curve. Pure.

Equations and section numbers are those of R. Selvan, B. Pepin, C. Igel, G. Samuel, E. B. Dam,
"PePR: Performance Per Resource Unit as a Metric to Promote Small-Scale Deep Learning in Medical
Image Analysis", NLDL 2025.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pepr_mlops.errors import WrongUse

Floats = NDArray[np.float64]
Method = Literal["minmax", "zero", "robust", "reference"]
METHODS: tuple[Method, ...] = get_args(Method)
QUANTILES = (0.05, 0.95)  # what `robust` takes for the least and the greatest cost
# Relative. Means of equal costs over different numbers of seeds differ by rounding, which must not
# become the range of a normalisation.
_EQUAL = 1e-12


@dataclass(frozen=True)
class Bounds:
    """The costs that become R = 0 and R = 1, in the cost's own unit."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (0 <= self.low <= self.high < math.inf):
            raise WrongUse(
                f"bounds: {self.low:g} to {self.high:g} is not a range of costs; give two finite "
                "numbers from 0, the lower first"
            )


def bounds(
    cost: ArrayLike, method: Method = "minmax", quantiles: tuple[float, float] = QUANTILES
) -> Bounds:
    """What `cost`, one non-negative number per model, is normalised by.

    `minmax` is Eq. 1 of the paper: its least and greatest cost. `zero` starts at no cost at all,
    which is what the paper's Table 1 was computed with. `robust` takes two quantiles, so that one
    extreme model does not set the scale (the paper's footnote 4). Where all models cost the same,
    or there is one, that cost is both bounds and R is 0.

    Raises `WrongUse` for an empty set, a negative or non-finite cost, naming the row, and for
    `reference`, whose bounds are given and not found.
    """
    low, high = limits(_costs(cost).to_numpy(), method, quantiles)
    return Bounds(float(low), float(high))


def normalise(cost: ArrayLike, bounds: Bounds) -> pd.Series[float]:
    """R in [0, 1] for each cost (Eq. 1 of the paper), costs outside the bounds clipped to them.

    Keeps the index of a Series. Raises `WrongUse` for an empty set and for a negative or
    non-finite cost, naming the row.
    """
    costs = _costs(cost)
    return pd.Series(scale(costs.to_numpy(), bounds.low, bounds.high), costs.index, name="R")


def limits(
    costs: Floats, method: Method, quantiles: tuple[float, float] = QUANTILES
) -> tuple[Floats, Floats]:
    """The two bounds of `bounds` for many sets at once, one set along the last axis."""
    least, greatest = costs.min(axis=-1), costs.max(axis=-1)
    if method == "minmax":
        return least, greatest
    if method == "zero":
        return np.where(_equal(least, greatest), least, 0.0), greatest
    if method == "robust":
        check_quantiles(quantiles)
        low, high = np.quantile(costs, quantiles, axis=-1)
        return low, high
    if method == "reference":
        raise WrongUse("normalisation: reference takes saved bounds; give them")
    raise WrongUse(f"normalisation: {method!r} is not one of {', '.join(METHODS)}")


def check_quantiles(quantiles: tuple[float, float]) -> None:
    """Raise `WrongUse` unless they are two shares, the lower first."""
    if not 0 <= quantiles[0] < quantiles[1] <= 1:
        raise WrongUse(f"quantiles: {_listed(quantiles)} are not two shares, the lower first")


def scale(costs: Floats, low: Floats | float, high: Floats | float) -> Floats:
    """R of costs between bounds that broadcast, clipped; with equal bounds R is 0 up to them."""
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.clip((costs - low) / (high - low), 0.0, 1.0)
    return np.where(_equal(low, high), (costs > high * (1 + _EQUAL)).astype(float), shares)


def _equal(low: Floats | float, high: Floats | float) -> NDArray[np.bool_]:
    return np.asarray(high - low <= _EQUAL * high)


def outside(cost: ArrayLike, bounds: Bounds) -> int:
    """How many costs lie outside the bounds and were clipped."""
    costs = _costs(cost)
    low, high = bounds.low * (1 - _EQUAL), bounds.high * (1 + _EQUAL)
    return int(((costs < low) | (costs > high)).sum())


def pepr(
    performance: ArrayLike,
    resources: ArrayLike,
    *,
    weights: Sequence[float] | None = None,
    alpha: float = 1.0,
) -> pd.Series[float]:
    """The PePR score of each model: `αP / (α + Σ wᵢRᵢ)`, by default `P / (1 + R)`.

    `performance` is P in [0, 1], one per model; `resources` is R in [0, 1], one column per
    resource (a one-dimensional array is one resource). `weights` sum to 1 and are equal if not
    given. The larger `alpha` ≥ 1, the less the resources count; with 1 it is the paper's
    definition, in general its section 2's remarks on weighting resources and performance.

    Keeps the index of a Series. Raises `WrongUse` for P or R outside [0, 1], naming the row, for
    weights that do not sum to 1, α < 1, shapes that do not fit and an empty set.
    """
    p = _unit("performance", performance)
    given = pd.DataFrame(resources if np.ndim(resources) == 2 else _as_series(resources))
    if len(given) != len(p):
        raise WrongUse(f"resources: {len(given)} rows for {len(p)} of performance")
    if isinstance(performance, pd.Series) and isinstance(resources, pd.Series | pd.DataFrame):
        given = given.reindex(p.index)  # join on the key, never on the position
    share = _weights(weights, given.shape[1])
    if not alpha >= 1 or not math.isfinite(alpha):
        raise WrongUse(f"alpha: {alpha:g} is not 1 or more")
    total = np.zeros(len(p))
    for weight, (name, column) in zip(share, given.items(), strict=True):
        label = f"R of {name}" if given.shape[1] > 1 else "R"
        total += weight * _unit(label, pd.Series(column.to_numpy(), p.index)).to_numpy()
    return alpha * p / (alpha + total)


def _weights(weights: Sequence[float] | None, n: int) -> list[float]:
    if weights is None:
        return [1 / n] * n
    if len(weights) != n:
        raise WrongUse(f"weights: {len(weights)} for {n} resources; give one for each")
    if not all(math.isfinite(w) and w >= 0 for w in weights):
        raise WrongUse(f"weights: {_listed(weights)} has a negative or no number")
    if not math.isclose(sum(weights), 1, abs_tol=1e-9):
        raise WrongUse(f"weights: {_listed(weights)} sum to {sum(weights):g}; make it 1")
    return list(weights)


@dataclass(frozen=True)
class Peak:
    """The greatest score of a PePR curve: the smallest R at which it is reached, P and score."""

    resource: float
    performance: float
    score: float


def curve(performance: ArrayLike, resource: ArrayLike) -> pd.DataFrame:
    """The PePR curve of one model (Eq. 2 of the paper): its score at each R it was observed at.

    `performance` is P in [0, 1] and `resource` R in [0, 1], one pair per epoch or per training
    fraction, in any order. Columns `R`, `P`, `score`, by increasing R. Raises `WrongUse` as `pepr`.
    """
    p, r = _as_series(performance).to_numpy(float), _as_series(resource).to_numpy(float)
    points = pd.DataFrame({"R": r, "P": p, "score": pepr(p, r).to_numpy()})
    return points.sort_values("R", kind="stable").reset_index(drop=True)


def peak(points: pd.DataFrame) -> Peak:
    """The maximum of a curve of `curve`, on ties the one of smallest R.

    The paper's point of diminishing returns (its Fig. 2b): the derivative of P / (1 + R) is zero
    where the slope of P is the score itself, and beyond it more resources bring less than that.
    """
    best = points.loc[points["score"].idxmax()]  # the first of equals
    return Peak(float(best["R"]), float(best["P"]), float(best["score"]))


def _as_series(values: Any) -> pd.Series[Any]:
    return values if isinstance(values, pd.Series) else pd.Series(np.asarray(values).ravel())


def _costs(cost: ArrayLike) -> pd.Series[float]:
    return _numbers("cost", cost, "normalise", sys.float_info.max, "a finite number from 0")


def _unit(what: str, values: ArrayLike) -> pd.Series[float]:
    hint = "; give a share, not per cent" if what == "performance" else ""
    return _numbers(what, values, "score", 1.0, f"in [0, 1]{hint}")


def _numbers(
    what: str, values: ArrayLike, purpose: str, most: float, valid: str
) -> pd.Series[float]:
    """Numbers from 0 to `most`. Raises `WrongUse` with the first bad row, by the label of its
    index."""
    numbers = _as_series(values).astype(float)
    if numbers.empty:
        raise WrongUse(f"{what}: there are no models to {purpose}; the set is empty")
    bad = ~numbers.between(0, most)
    if bad.any():
        first = bad.to_numpy().argmax()
        more = f" (and {int(bad.sum()) - 1} more rows)" if bad.sum() > 1 else ""
        row = f"{numbers.iloc[first]:g} of {numbers.index[first]!r}{more}"
        raise WrongUse(f"{what}: {row} is not {valid}")
    return numbers


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{v:g}" for v in values)


@dataclass(frozen=True)
class Reference:
    """Bounds saved for later scores, by the column of the cost, and their origin.

    Scores by one reference stay comparable when models are added.
    """

    bounds: Mapping[str, Bounds]
    origin: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        bounds = {name: asdict(own) for name, own in self.bounds.items()}
        return {"bounds": bounds, "origin": dict(self.origin)}

    @classmethod
    def from_dict(cls, content: Any) -> Reference:
        """The inverse of `as_dict`. Raises `WrongUse` for anything else."""
        try:
            found = {
                str(column): Bounds(_json_number(b["low"]), _json_number(b["high"]))
                for column, b in content["bounds"].items()
            }
            origin = {**content["origin"], "shared": {**content["origin"]["shared"]}}
            return cls(found, origin)
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise WrongUse(
                f"reference: this is not a saved reference ({type(error).__name__}: {error}); "
                "write one with --save-reference"
            ) from error


def _json_number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return float(value)
