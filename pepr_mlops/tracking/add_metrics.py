"""Metrics that are added to a run after it has ended."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pepr_mlops.errors import WrongUse
from pepr_mlops.names import PERFORMANCE
from pepr_mlops.tracking.claims import now_ms
from pepr_mlops.tracking.server import connect, translated_errors

_EPOCHS_OF = "time/train_s"
_COSTS = ("energy/", "time/", "memory/", "carbon/")


def add_metrics(
    run_id: str,
    metrics: Mapping[str, float],
    performance: str | None = None,
    tracking_uri: str | None = None,
    *,
    replace: bool = False,
) -> dict[str, float]:
    """Log metrics of a run that has ended, at its last epoch; returns all that it has then.

    `performance` names the metric that is P, None for the one that the run names. P is logged under
    its own name and as `performance`. With `replace` the new value counts where the run has
    another, which stays in its history; else that is refused. Raises `WrongUse` also for a cost, a
    value that is not finite, P outside [0, 1] or with two values, and a run that is not there, is
    under way or has another metric as P; and `WorkFailed` where the server does not answer.
    """
    from mlflow.entities import Metric
    from mlflow.exceptions import MlflowException

    if costs := [name for name in metrics if name.startswith(_COSTS)]:
        raise WrongUse(
            f"{costs[0]}: a cost is measured or imported, never added; name it otherwise, such as "
            f"own/{costs[0].replace('/', '_')}"
        )
    client = connect(tracking_uri)
    with translated_errors(client):
        try:
            run = client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise WrongUse(
                f"run: the server has no {run_id}; give the full id, as `pepr runs --all` lists it"
            ) from error
        known = run.data.tags.get("pepr.performance")
        named = known or performance or PERFORMANCE
        if performance not in (None, named) and PERFORMANCE in run.data.metrics:
            raise WrongUse(f"performance: P of run {run_id} is {named}, which stays")
        named = performance or named
        added = _with_p(metrics, named)
        for name, value in added.items():
            if not math.isfinite(value):
                raise WrongUse(f"{name}: {value} is not finite; leave a missing metric out")
            before = run.data.metrics.get(name, value)
            if before != value and not replace:
                raise WrongUse(
                    f"{name}: run {run_id} has {before:g}, which stays; if it is wrong, add "
                    "--replace"
                )
        if run.info.status in ("RUNNING", "SCHEDULED"):
            raise WrongUse(f"run: {run_id} is under way; add metrics after it has ended")
        history = client.get_metric_history(run_id, _EPOCHS_OF)
        step = max((point.step for point in history), default=0)
        points = [Metric(name, value, now_ms(), step) for name, value in added.items()]
        if named != known and PERFORMANCE in added:
            client.set_tag(run_id, "pepr.performance", named)
        client.log_batch(run_id, metrics=points)
    return {**run.data.metrics, **added}


def _with_p(metrics: Mapping[str, float], named: str) -> dict[str, float]:
    """The metrics with P, if it is among them, under both of its names."""
    given = {name: metrics[name] for name in (named, PERFORMANCE) if name in metrics}
    if len(set(given.values())) > 1:
        raise WrongUse(
            f"performance: it is {metrics[PERFORMANCE]:g}, and {named}, which is P, is "
            f"{metrics[named]:g}; give one of them"
        )
    for name, value in given.items():
        if not 0 <= value <= 1:
            raise WrongUse(f"{name}: {value:g} is not from 0 to 1; give a share, not per cent")
    return {**metrics, **{name: value for value in given.values() for name in (named, PERFORMANCE)}}
