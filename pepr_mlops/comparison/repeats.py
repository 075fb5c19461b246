"""Which runs were repeated with other seeds, and how far apart such runs are. Pure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from pepr_mlops.comparison.conditions import conditions, mixed, of_folds, own_params
from pepr_mlops.comparison.spread import ASSUMED, Spread, pooled
from pepr_mlops.names import COMPARED, PERFORMANCE
from pepr_mlops.text import few


def unrepeated(runs: pd.DataFrame) -> str | None:
    """The metric that is P where no model of a comparison set has several runs, the most common one
    of several such sets; None where each set has such a model or its P has no name."""
    runs = _with_rows(runs)
    several = runs["row"].duplicated(keep=False)
    alone = ~several.groupby(_numbers(runs, ["experiment", *COMPARED])).transform("any")
    metrics = runs.loc[alone, "performance_metric"].value_counts()
    return None if metrics.empty else str(metrics.index[0])


def spread_between(runs: pd.DataFrame, metric: str) -> Spread:
    """How much `metric`, their P, varies between runs that differ in nothing but the seed, pooled
    over all models of `runs`; `ASSUMED` where no run was repeated, or none with another result.

    Folds do not count: they differ in their images, and P of all of them is not logged.
    """
    chosen = (runs["performance_metric"] == metric) & runs["seed"].notna() & ~of_folds(runs)
    runs = _with_rows(runs[chosen])
    runs = runs[runs["row"].duplicated(keep=False)]
    models = runs["model"].nunique()
    source = (
        f"pooled over {len(runs)} runs of {models} model{'s' * (models != 1)} in "
        f"{few(runs['experiment'].unique())}"
    )
    found = pooled(runs, ["row"], source)
    return ASSUMED if found is None else replace(found, metric=metric)


def _with_rows(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that can be compared, the newest of each seed, and as `row` the number of their
    model and settings, which runs share that differ in nothing but the seed."""
    finished = (runs["status"] == "FINISHED") & runs["stopped"].isna() & runs["model"].notna()
    runs = runs[finished & np.isfinite(runs[PERFORMANCE])]
    settings = ["initial_weights", *COMPARED, *own_params(runs)]
    runs = runs.assign(row=_numbers(runs, ["experiment", "model", *settings]))
    newest = runs.sort_values("start_time", ascending=False, kind="stable")
    return newest[newest["seed"].isna() | ~newest.duplicated(["row", "seed"])]


def _numbers(runs: pd.DataFrame, columns: list[str]) -> pd.Series[int]:
    """For each run the number of its group, those of equal columns."""
    differ = mixed(runs, columns) or columns[:1]  # few columns are faster to group by
    return conditions(runs, differ).groupby(differ, observed=True).ngroup()
