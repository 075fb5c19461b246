"""Finished runs of others, logged as ours are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from pepr_mlops.names import FinishedRun
from pepr_mlops.text import matches
from pepr_mlops.tracking.experiments import experiment_id
from pepr_mlops.tracking.server import connect, impatient, told

if TYPE_CHECKING:
    from mlflow import MlflowClient


def import_runs(
    runs: Sequence[FinishedRun],
    tracking_uri: str | None = None,
    progress: Callable[[Iterable[FinishedRun]], Iterable[FinishedRun]] = iter,
) -> int:
    """Log finished runs of others, each in the MLflow experiment of its name; how many were new.

    A run that is there already, by its source and key, is left as it is, so that an import can be
    repeated; one that an interrupted import left unfinished is deleted and logged again.
    `progress` passes on the runs to log as they are taken. Raises `WorkFailed` as `start`.
    """
    from mlflow.entities import Metric, Param

    with impatient():
        client = connect(tracking_uri)
        with told(str(client.tracking_uri)):
            names = dict.fromkeys(run.experiment for run in runs)
            ids = {name: experiment_id(client, name) for name in names}
    with told(str(client.tracking_uri)):
        there = {
            key for source in {run.source for run in runs} for key in _imported(client, ids, source)
        }
        new = [run for run in runs if (run.source, run.key) not in there]
        for run in progress(new):
            tags = {
                **run.tags,
                "pepr.imported_from": run.source,
                "pepr.import_key": run.key,
                "mlflow.note.content": f"Imported: {run.source}",
            }
            begun = client.create_run(ids[run.experiment], run_name=run.name, tags=tags)
            client.log_batch(
                begun.info.run_id,
                [
                    Metric(name, value, begun.info.start_time, step)
                    for name, value, step in run.points
                ],
                [Param(key, value) for key, value in run.params.items()],
            )
            client.set_terminated(begun.info.run_id, "FINISHED")
    return len(new)


def _imported(
    client: MlflowClient, experiment_ids: Mapping[str, str], source: str
) -> set[tuple[str, str]]:
    """Source and key of the finished runs imported from there; unfinished ones are deleted."""
    finished, unfinished, token = set(), [], None
    while True:
        page = client.search_runs(
            list(experiment_ids.values()),
            f"tags.`pepr.imported_from` {matches(source)}",
            page_token=token,
        )
        for run in page:
            if run.data.tags["pepr.imported_from"] != source:
                continue
            if run.info.status == "FINISHED":
                finished.add((source, run.data.tags["pepr.import_key"]))
            else:
                unfinished.append(run.info.run_id)
        token = page.token
        if not token:
            break
    for run_id in unfinished:  # at the end: a page begins after so many runs of those there are
        client.delete_run(run_id)
    return finished
