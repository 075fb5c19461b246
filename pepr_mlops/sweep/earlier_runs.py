"""What the finished runs of a tracking server tell about a search on other data. Pure."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pepr_mlops.comparison.conditions import of_folds
from pepr_mlops.names import COMPARED, PERFORMANCE, performance_on
from pepr_mlops.spec import as_text
from pepr_mlops.sweep.prior import COSTS, LEAST_EPOCHS, LEAST_MODELS, RECIPE, Earlier

METRICS = (performance_on("val"), PERFORMANCE)


def earlier_of(runs: pd.DataFrame, epochs: pd.DataFrame) -> list[Earlier]:
    """The data sets on which enough models were trained to the end under the same conditions.

    `runs` is a frame of finished runs, `epochs` their histories of `METRICS` as
    `read.load_epochs`; P on validation counts where all models have it. Each seed stands alone; of
    several runs of a model the newest counts. A model without P after every epoch is left out.
    """
    runs, found = telling(runs).sort_values("start_time"), []
    for _, own in runs.groupby(_groups(runs)):
        own = own.drop_duplicates("model", keep="last").set_index("model").sort_index()
        curves = pd.DataFrame()
        for metric in METRICS:  # the first of which there is enough
            if len(curves) < LEAST_MODELS:
                curves = _curves(own, epochs, metric)
        if len(curves) >= LEAST_MODELS:
            first = own.iloc[0]
            name = str(first["data_digest"] if pd.notna(first["data_digest"]) else first["dataset"])
            costs = own.loc[curves.index, list(COSTS)]
            found.append(Earlier.of(str(first["dataset"]), name, recipe_of(own), curves, costs))
    return found


def telling(runs: pd.DataFrame) -> pd.DataFrame:
    """Those of these finished runs that `earlier_of` needs the histories of."""
    runs = runs[~of_folds(runs) & (runs["epochs"] >= LEAST_EPOCHS)]
    models = runs["model"].groupby(_groups(runs)).transform("nunique")
    return runs[models >= LEAST_MODELS]


def _groups(runs: pd.DataFrame) -> pd.Series[int]:
    """A number for each data set, settings and seed."""
    conditions = [name for name in (*COMPARED, "seed") if name in runs]
    return runs.groupby(conditions, dropna=False).ngroup()


def recipe_of(runs: pd.DataFrame) -> dict[str, str]:
    """The settings of `RECIPE` of the first run, as a job writes them."""
    return {
        name: as_text(value.item() if isinstance(value, np.generic) else value)
        for name in RECIPE
        if pd.notna(value := runs[name].iloc[0])
    }


def _curves(own: pd.DataFrame, epochs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """P in [0, 1] after every epoch, one row per model that has it."""
    steps = list(range(1, int(own["epochs"].iloc[0]) + 1))
    points = epochs[epochs["run_id"].isin(list(own["run_id"])) & epochs[metric].between(0, 1)]
    wide = points.pivot(index="run_id", columns="step", values=metric).reindex(columns=steps)
    wide = wide.reindex(own["run_id"]).set_axis(own.index)
    return wide.dropna()
