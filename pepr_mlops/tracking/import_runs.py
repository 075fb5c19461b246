"""Results of others, logged as finished runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from pepr_mlops.text import matches
from pepr_mlops.tracking.experiments import experiment_id
from pepr_mlops.tracking.server import all_pages, reach, translated_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from pepr_mlops.imports.files import FinishedRun


def import_runs(
    runs: Sequence[FinishedRun],
    tracking_uri: str | None = None,
    progress: Callable[[Iterable[FinishedRun]], Iterable[FinishedRun]] = iter,
) -> int:
    """Log published results, each in the MLflow experiment of its name; how many were new.

    A run that is there already, by its source and key, is left as it is, so that an import can be
    repeated; one that an interrupted import left unfinished is deleted and logged again.
    `progress` passes on the runs to log as they are taken. Raises `WorkFailed` as `start`.
    """
    from mlflow.entities import Metric, Param

    client = reach(tracking_uri)
    names = dict.fromkeys(run.experiment for run in runs)
    with translated_errors(client):
        ids = {name: experiment_id(client, name) for name in names}
        there = {
            (source, key)
            for source in {run.source for run in runs}
            for key in _imported(client, list(ids.values()), source)
        }
        new = [run for run in runs if (run.source, run.key) not in there]
        for run in progress(new):
            tags = {
                **run.tags,
                "pepr.imported_from": run.source,
                "pepr.import_key": run.key,
                "mlflow.note.content": f"Imported: {run.source}",
            }
            begun = client.create_run(ids[run.experiment], run_name=run.name, tags=tags).info
            metrics = [Metric(name, v, begun.start_time, step) for name, v, step in run.points]
            params = [Param(key, value) for key, value in run.params.items()]
            client.log_batch(begun.run_id, metrics, params)
            client.set_terminated(begun.run_id, "FINISHED")
    return len(new)


def _imported(client: MlflowClient, experiment_ids: list[str], source: str) -> set[str]:
    """Keys of the finished runs imported from there; unfinished ones are deleted."""
    words = f"tags.`pepr.imported_from` {matches(source)}"
    runs = [
        run
        for run in all_pages(client.search_runs, experiment_ids, words)
        if run.data.tags["pepr.imported_from"] == source
    ]
    for run in runs:  # after the last page: a page begins after so many runs of those there are
        if run.info.status != "FINISHED":
            client.delete_run(run.info.run_id)
    return {run.data.tags["pepr.import_key"] for run in runs if run.info.status == "FINISHED"}
