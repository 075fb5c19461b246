"""Choosing a model: the best under budgets, the Pareto set and its knee. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import moocore
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pepr_mlops.errors import WrongUse, nearest
from pepr_mlops.names import Direction


@dataclass(frozen=True)
class Budget:
    """`column` at most (`max`) or at least (`min`) `limit`, in the column's unit."""

    column: str
    kind: Literal["max", "min"]
    limit: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.limit):
            raise WrongUse(f"{self.column}: {self.limit} is no limit; give a finite number")

    def __str__(self) -> str:
        return f"{self.column} {'≤' if self.kind == 'max' else '≥'} {self.limit:g}"

    def met(self, values: pd.Series[float]) -> pd.Series[bool]:
        """Which values are within the budget; a missing one is not."""
        return values <= self.limit if self.kind == "max" else values >= self.limit


@dataclass(frozen=True)
class Selection:
    """What fits, best first, and what each budget costs.

    `fitting` are the rows of the models within every budget. `budgets` has a row per budget:
    `budget`, `excluded` (models outside it), `only` (models that nothing else excludes), and what
    dropping it alone would bring: `best` model, its `needed` value of the column, `gain` in the
    quantity chosen by (None where nothing is gained).
    """

    fitting: pd.DataFrame
    budgets: pd.DataFrame


def select(models: pd.DataFrame, budgets: Sequence[Budget], by: str = "performance") -> Selection:
    """The models within all budgets, those of the highest `by` first.

    `models` has one row per model with `model`, `by` and the columns the budgets name; on equal
    `by` the rows keep their order. A missing value is in no budget. Raises `WrongUse` for a column
    that is not there.
    """
    for name in [by, *(b.column for b in budgets)]:
        if name not in models:
            raise WrongUse(f"{name}: no such column{nearest(name, models.columns) or '.'}")
    met = pd.DataFrame({i: b.met(models[b.column]) for i, b in enumerate(budgets)}, models.index)
    fitting = _best_first(models[met.all(axis=1)], by)
    best = fitting[by].iloc[0] if len(fitting) else None
    rows = []
    for i, budget in enumerate(budgets):
        others = met.drop(columns=i).all(axis=1)
        without = _best_first(models[others], by)
        gains = len(without) > 0 and (best is None or without[by].iloc[0] > best)
        rows.append(
            {
                "budget": str(budget),
                "excluded": int((~met[i]).sum()),
                "only": int((others & ~met[i]).sum()),
                "best": without["model"].iloc[0] if gains else None,
                "needed": without[budget.column].iloc[0] if gains else None,
                "gain": without[by].iloc[0] - best if gains and best is not None else None,
            }
        )
    columns = ["budget", "excluded", "only", "best", "needed", "gain"]
    return Selection(fitting, pd.DataFrame(rows, columns=columns))


def _best_first(models: pd.DataFrame, by: str) -> pd.DataFrame:
    return models.dropna(subset=[by]).sort_values(by, ascending=False, kind="stable")


def pareto(models: pd.DataFrame, objectives: Mapping[str, Direction]) -> NDArray[np.bool_]:
    """Which rows no other row beats: as good in every objective and better in one.

    `objectives` are two or more columns and which direction is better. Equal rows all stay.
    Raises `WrongUse` for fewer objectives and for missing values.
    """
    if len(objectives) < 2:
        raise WrongUse("objectives: name two or more columns to weigh against each other")
    points = models[list(objectives)].to_numpy(dtype=float)
    if not len(points):
        raise WrongUse("objectives: there are no models; the set is empty")
    if not np.isfinite(points).all():
        row, column = np.argwhere(~np.isfinite(points))[0]
        raise WrongUse(
            f"{list(objectives)[column]}: {models.index[row]!r} has no finite value; leave it out"
        )
    maximise = [better == "higher" for better in objectives.values()]
    best = moocore.is_nondominated(points, maximise=maximise, keep_weakly=True)
    return np.asarray(best, dtype=bool)


def knee(models: pd.DataFrame, gain: str, cost: str) -> object | None:
    """Index label of the knee of the Pareto set of one gain and one cost, or None.

    The model farthest above the straight line between the cheapest and the best model of the set,
    both axes scaled to their range (the line of extremes of I. Das 1999): up to it more cost buys
    much, beyond it little. None where no model lies above the line.
    """
    front = models[pareto(models, {gain: "higher", cost: "lower"})].sort_values([cost, gain])
    x, y = front[cost].to_numpy(float), front[gain].to_numpy(float)
    if len(front) < 3 or x[0] == x[-1] or y[0] == y[-1]:
        return None
    above = (y - y[0]) / (y[-1] - y[0]) - (x - x[0]) / (x[-1] - x[0])
    farthest = int(above.argmax())
    label: object = front.index[farthest]
    return label if above[farthest] > 1e-12 else None
