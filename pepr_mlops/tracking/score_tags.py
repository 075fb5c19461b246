"""Scores as metrics and tags of their runs, so that MLflow's UI sorts runs by score."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from pepr_mlops.comparison import Comparison
from pepr_mlops.tracking import finished
from pepr_mlops.tracking.server import reach, translated_errors

SUPERSEDED = "superseded:"
_COLUMNS = ["run_id", "name", "score", "basis"]


def changed_scores(comparison: Comparison, runs: pd.DataFrame) -> pd.DataFrame:
    """The scores to log: `run_id`, `name`, `score`, `basis`; only what is not logged already.

    A run has the score of its model, and of the first of its comparison sets if it is in several;
    each fold of a cross-validation that of all its folds.
    `score` is missing for the runs of `superseded`. `runs` is the frame that was compared.
    """
    sets = comparison.sets[["comparison_set", "fingerprint", "models"]]
    scores = comparison.scores.merge(sets, on="comparison_set")
    scores["name"] = scores["resource"].map(metric_name)
    place = "rank " + scores["rank"].astype(str) + " of " + scores["models"].astype(str)
    scores["basis"] = scores["fingerprint"] + " of " + scores["comparison_set"] + ": " + place
    keys = ["comparison_set", "model", "variant"]
    ids = comparison.used["fold_runs"].fillna(comparison.used["run_id"]).str.split()
    used = comparison.used[keys].assign(run_id=ids).explode("run_id")
    current = used.merge(scores, on=keys)
    current = current.drop_duplicates(["run_id", "name"])[_COLUMNS]
    known = runs.drop_duplicates("run_id").set_index("run_id")
    logged = [
        known.get(f"tags.pepr.scored.{name}", {}).get(run) == basis
        and known.get(f"metrics.pepr/{name}", {}).get(run) == value
        for run, name, value, basis in current.itertuples(index=False)
    ]
    gone = superseded(runs, list(current["name"].unique()), list(used["run_id"]))
    return pd.concat([current[~np.array(logged, dtype=bool)], gone], ignore_index=True)


def superseded(runs: pd.DataFrame, names: Sequence[str], used: Sequence[str] = ()) -> pd.DataFrame:
    """Runs with a score of these names that are not `used` any more, as in `changed_scores`."""
    parts = [pd.DataFrame(columns=_COLUMNS)]
    for name in names:
        tag = f"tags.pepr.scored.{name}"
        if tag in runs:
            left = runs[runs[tag].notna() & ~runs["run_id"].isin(used)].drop_duplicates("run_id")
            left = left[~left[tag].str.startswith(SUPERSEDED)]
            basis = f"{SUPERSEDED} " + left[tag]
            parts.append(left[["run_id"]].assign(name=name, score=np.nan, basis=basis))
    return pd.concat([p for p in parts if len(p)] or parts[:1], ignore_index=True)


def metric_name(resource: str) -> str:
    """A score's name as MLflow allows it: letters, digits and `_-. :/`."""
    return re.sub(r"[^\w\-./: ]", "_", resource)


def write_scores(scores: pd.DataFrame, tracking_uri: str | None = None) -> tuple[int, int]:
    """Log the rows of `changed_scores`: how many runs got a score, and how many lost theirs.

    A score is the metric `pepr/NAME` at step 0, the newest of which MLflow shows, and its basis
    the tag `pepr.scored.NAME`. MLflow cannot take a metric back: a run that left its set keeps it,
    and the tag says so.
    """
    client = reach(tracking_uri)
    with translated_errors(client):
        for run_id, rows in scores.groupby("run_id"):
            known = rows.dropna(subset=["score"])
            metrics = zip("pepr/" + known["name"], known["score"], strict=True)
            tags = zip("pepr.scored." + rows["name"], rows["basis"], strict=True)
            finished.add(client, str(run_id), dict(metrics), dict(tags))
    scored = scores[scores["score"].notna()]["run_id"]
    return scored.nunique(), scores[~scores["run_id"].isin(scored)]["run_id"].nunique()
