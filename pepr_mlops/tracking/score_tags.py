"""Scores as metrics of the runs they are of."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pepr_mlops.tracking.experiments import TAG_LIMIT
from pepr_mlops.tracking.server import connect, impatient, told

if TYPE_CHECKING:
    import pandas as pd


def write_scores(scores: pd.DataFrame, tracking_uri: str | None = None) -> tuple[int, int]:
    """Log scores of `writeback.by_run`: how many runs got one, and how many lost theirs.

    A score is the metric `pepr/NAME` at step 0, the newest of which MLflow shows, and its basis
    the tag `pepr.scored.NAME`. MLflow cannot take a metric back: a run that left its set keeps it,
    and the tag says so.
    """
    from mlflow.entities import Metric, RunTag

    with impatient():
        client = connect(tracking_uri)
        with told(str(client.tracking_uri)):
            client.search_experiments(max_results=1)  # a server that is down is told soon
    now_ms = int(time.time() * 1000)
    changed: dict[bool, set[str]] = {True: set(), False: set()}
    with told(str(client.tracking_uri)):
        for run_id, rows in scores.groupby("run_id"):
            client.log_batch(
                run_id,
                [
                    Metric(f"pepr/{row['name']}", row["score"], now_ms, 0)
                    for _, row in rows.iterrows()
                    if row["score"] == row["score"]
                ],
                tags=[
                    RunTag(f"pepr.scored.{row['name']}", row["basis"][:TAG_LIMIT])
                    for _, row in rows.iterrows()
                ],
            )
            changed[bool(rows["score"].notna().any())].add(str(run_id))
    return len(changed[True]), len(changed[False])
