"""What goes back to runs so that MLflow's UI sorts them by score. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from pepr_mlops.comparison import Comparison

SUPERSEDED = "superseded:"


def by_run(comparison: Comparison, runs: pd.DataFrame) -> pd.DataFrame:
    """The scores to log: `run_id`, `name`, `score`, `basis`; only what is not logged already.

    A run has the score of its model, and of the first of its comparison sets if it is in several.
    `score` is missing for the runs of `superseded`. `runs` is the frame that was compared.
    """
    scores = comparison.scores.merge(
        comparison.sets[["comparison_set", "fingerprint", "models"]], on="comparison_set"
    )
    scores["name"] = scores["resource"].map(metric_name)
    scores["basis"] = (
        scores["fingerprint"]
        + " of "
        + scores["comparison_set"]
        + ": rank "
        + scores["rank"].astype(str)
        + " of "
        + scores["models"].astype(str)
    )
    keys = ["comparison_set", "model", "variant"]
    current = comparison.used[["run_id", *keys]].merge(scores, on=keys)
    current = current.drop_duplicates(["run_id", "name"])[["run_id", "name", "score", "basis"]]
    known = runs.drop_duplicates("run_id").set_index("run_id")
    there = [
        _get(known, f"tags.pepr.scored.{name}", run) == basis
        and _get(known, f"metrics.pepr/{name}", run) == value
        for run, name, value, basis in current.itertuples(index=False)
    ]
    gone = superseded(runs, list(current["name"].unique()), list(comparison.used["run_id"]))
    return pd.concat([current[~np.array(there, dtype=bool)], gone], ignore_index=True)


def superseded(runs: pd.DataFrame, names: Sequence[str], used: Sequence[str] = ()) -> pd.DataFrame:
    """Runs that have a score by one of the names but are not `used` any more, as in `by_run`."""
    parts = [pd.DataFrame({"run_id": [], "name": [], "score": [], "basis": []})]
    for name in names:
        tag = f"tags.pepr.scored.{name}"
        if tag in runs:
            left = runs[runs[tag].notna() & ~runs["run_id"].isin(used)].drop_duplicates("run_id")
            left = left[~left[tag].str.startswith(SUPERSEDED)]
            parts.append(
                pd.DataFrame(
                    {
                        "run_id": left["run_id"],
                        "name": name,
                        "score": np.nan,
                        "basis": f"{SUPERSEDED} " + left[tag],
                    }
                )
            )
    return pd.concat([p for p in parts if len(p)] or parts[:1], ignore_index=True)


def metric_name(resource: str) -> str:
    """A score's name as MLflow allows it: letters, digits and `_-. :/`."""
    return re.sub(r"[^\w\-./: ]", "_", resource)


def _get(runs: pd.DataFrame, column: str, run_id: str) -> object:
    return runs.at[run_id, column] if column in runs else None
