"""Metrics and tags added to runs that have ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pepr_mlops.tracking.claims import now_ms
from pepr_mlops.tracking.experiments import TAG_LIMIT
from pepr_mlops.tracking.server import reach, translated_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient


def add(
    client: MlflowClient, run_id: str, metrics: Mapping[str, float], tags: Mapping[str, str]
) -> None:
    """Add them in one request; of several values of a metric, all at step 0, the newest counts."""
    from mlflow.entities import Metric, RunTag

    time_ms = now_ms()
    client.log_batch(
        run_id,
        [Metric(name, value, time_ms, 0) for name, value in metrics.items()],
        tags=[RunTag(name, text[:TAG_LIMIT]) for name, text in tags.items()],
    )


def write(
    run_id: str,
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
    tracking_uri: str | None = None,
) -> None:
    """`add` to a run of the server. Raises `WorkFailed` where it does not answer."""
    client = reach(tracking_uri)
    with translated_errors(client):
        add(client, run_id, metrics, tags)
