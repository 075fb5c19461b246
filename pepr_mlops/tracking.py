"""The only writer of MLflow."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pepr_mlops.errors import PeprError, WorkFailed
from pepr_mlops.schema import FinishedRun
from pepr_mlops.server import connect, impatient, told, without_password

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    from mlflow import MlflowClient

    from pepr_mlops.data import Splits
    from pepr_mlops.performance import Floats, Ints

_RUN_ID = "MLFLOW_RUN_ID"  # how `mlflow run` hands its run to the job
_TRAINING_VIEW = {"mlflow.experimentKind": "custom_model_development"}  # what the UI opens with
NOT_FRESH = "not_fresh"
_TAG_LIMIT = 8000  # characters


@dataclass(frozen=True)
class Run:
    """A run on a tracking server. Every method is one request and raises `WorkFailed`."""

    client: MlflowClient
    run_id: str
    experiment_id: str

    def _told(self) -> AbstractContextManager[None]:
        return told(str(self.client.tracking_uri))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        points = [Metric(name, value, now_ms, step) for name, value in metrics.items()]
        with self._told():
            self.client.log_batch(self.run_id, metrics=points)

    def tag(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        with self._told():
            self.client.log_batch(
                self.run_id, tags=[RunTag(k, v[:_TAG_LIMIT]) for k, v in tags.items()]
            )

    def params(self, params: Mapping[str, str]) -> None:
        """Log the parameters that are not there yet.

        `mlflow run` has logged those it was given, as they were typed, and MLflow refuses to
        write another form of the same value.
        """
        from mlflow.entities import Param

        with self._told():
            there = self.client.get_run(self.run_id).data.params
            new = [Param(key, value) for key, value in params.items() if key not in there]
            self.client.log_batch(self.run_id, params=new)

    def data(self, splits: Splits) -> None:
        """Log the three splits with their digests as dataset inputs."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = []
        for name in ("train", "val", "test"):
            split = getattr(splits, name)
            dataset = Dataset(
                name=f"{splits.name} {name}",
                digest=split.digest(),
                source_type="local",
                source=json.dumps({"uri": splits.source}),
                profile=json.dumps(
                    {
                        "images": len(split),
                        "shape": list(split.images.shape[1:]),
                        "task": splits.task,
                        "classes": list(splits.classes),
                    }
                ),
            )
            inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", name)]))
        with self._told():
            self.client.log_inputs(self.run_id, datasets=inputs)

    def spec(self, spec: Mapping[str, Any]) -> None:
        with self._told():
            self.client.log_dict(self.run_id, dict(spec), "spec.json")

    def predictions(self, labels: Ints, probabilities: Floats, classes: tuple[str, ...]) -> None:
        """Test labels and probabilities as `predictions.npz`, readable without pickle."""
        with tempfile.TemporaryDirectory() as folder, self._told():
            path = Path(folder) / "predictions.npz"
            np.savez_compressed(
                path, labels=labels, probabilities=probabilities, classes=np.array(classes)
            )
            self.client.log_artifact(self.run_id, str(path))

    def figure(self, figure: go.Figure, name: str) -> None:
        """Log a page that needs no network, for the 5 MB that plotly.js takes."""
        with self._told():
            self.client.log_figure(
                self.run_id, figure, name, save_kwargs={"include_plotlyjs": True}
            )

    def end(self, status: str) -> None:
        with self._told():
            self.client.set_terminated(self.run_id, status)


@contextmanager
def start(
    experiment: str | None, default: str, name: str, tracking_uri: str | None = None
) -> Iterator[Run]:
    """Begin a run and end it with the truth: FINISHED, FAILED with reason and error, or KILLED.

    Without `tracking_uri` it is the run `mlflow run` has begun, if it did. Else it is a new one,
    named `name`, in the MLflow experiment `experiment` or, if None, the one MLflow was told of
    (MLFLOW_EXPERIMENT_NAME or _ID) or `default`; it is created when absent. Raises `WorkFailed`
    when the server cannot be reached or the begun run was measured before.
    """
    with impatient():
        run = _begin(experiment, default, name, tracking_uri)
    try:
        yield run
    except BaseException as error:
        with suppress(WorkFailed):  # the first error is the one to tell
            fail(run, error)
        raise
    run.end("FINISHED")


@contextmanager
def active(experiment: str, name: str) -> Iterator[Run]:
    """The active MLflow run, which is left for its owner to end, or a new one as of `start`.

    The new run is active inside, so that other calls of MLflow log to it too.
    """
    import mlflow

    owned = mlflow.active_run()
    if owned is not None:
        run = Run(connect(None), owned.info.run_id, owned.info.experiment_id)
        _check_fresh(run)
        yield run
        return
    with start(None, experiment, name) as run:
        with told(str(run.client.tracking_uri)):
            mlflow.start_run(run_id=run.run_id)
        try:
            yield run
        finally:
            mlflow.end_run()


def fail(run: Run, error: BaseException) -> None:
    """Mark the run FAILED, or KILLED when it was interrupted, with the line that says why."""
    killed = isinstance(error, KeyboardInterrupt | SystemExit)
    if isinstance(error, PeprError):
        reason, text = error.reason, str(error)
    elif killed:
        reason, text = "killed", f"stopped by {type(error).__name__}"
    else:
        reason, text = "crashed", f"{type(error).__name__}: {error}"
    with impatient():
        run.tag({"pepr.reason": reason, "pepr.error": text})
        run.end("KILLED" if killed else "FAILED")


def inherited_run() -> Run | None:
    """The run `mlflow run` has begun for this process, or None."""
    run_id = os.environ.get(_RUN_ID)
    if run_id is None:
        return None
    client = connect(None)
    with told(str(client.tracking_uri)):
        info = client.get_run(run_id).info
    return Run(client, run_id, info.experiment_id)


def _begin(experiment: str | None, default: str, name: str, tracking_uri: str | None) -> Run:
    from mlflow.entities import RunStatus
    from mlflow.tracking.context.registry import resolve_tags  # user and source, for MLflow's UI

    run = inherited_run() if tracking_uri is None else None
    if run is not None:
        _check_fresh(run)
        with told(str(run.client.tracking_uri)):
            run.client.update_run(run.run_id, RunStatus.to_string(RunStatus.RUNNING))
        return run
    client = connect(tracking_uri)
    with told(str(client.tracking_uri)):
        experiment_id = None
        if experiment is None and tracking_uri is None:
            experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME")
            experiment_id = os.environ.get("MLFLOW_EXPERIMENT_ID")
        if experiment is not None or experiment_id is None:
            experiment_id = _experiment(client, experiment or default)
        begun = client.create_run(experiment_id, tags=resolve_tags(), run_name=name)
    return Run(client, begun.info.run_id, experiment_id)


def _check_fresh(run: Run) -> None:
    """Refuse a run that was measured before: the costs of two attempts would mix."""
    with told(str(run.client.tracking_uri)):
        known = run.client.get_run(run.run_id).data.metrics
    if "time/train_s" in known:
        raise WorkFailed(
            f"tracking: run {run.run_id} has measurements already; begin a new run",
            reason=NOT_FRESH,
        )


def _experiment(client: MlflowClient, name: str) -> str:
    """Id of the MLflow experiment `name`, created when absent, also by another job meanwhile."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, tags=_TRAINING_VIEW))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage != "active":
        raise WorkFailed(
            f"experiment: {name!r} is deleted on this tracking server; restore it "
            "(mlflow experiments restore) or name another with experiment"
        )
    return str(found.experiment_id)


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
    from mlflow.entities import Metric, Param, RunTag

    with impatient():
        client = connect(tracking_uri)
        with told(str(client.tracking_uri)):
            names = dict.fromkeys(run.experiment for run in runs)
            ids = {name: _experiment(client, name) for name in names}
    with told(str(client.tracking_uri)):
        there = {
            key for source in {run.source for run in runs} for key in _imported(client, ids, source)
        }
        new = [run for run in runs if (run.source, run.key) not in there]
        for run in progress(new):
            tags = {**run.tags, "pepr.imported_from": run.source, "pepr.import_key": run.key}
            begun = client.create_run(ids[run.experiment], run_name=run.name, tags=tags)
            client.log_batch(
                begun.info.run_id,
                [
                    Metric(name, value, begun.info.start_time, step)
                    for name, value, step in run.points
                ],
                [Param(key, value) for key, value in run.params.items()],
                [RunTag("mlflow.note.content", f"Imported: {run.source}")],
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
            f"tags.`pepr.imported_from` = '{source}'",
            page_token=token,
        )
        for run in page:
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
                    RunTag(f"pepr.scored.{row['name']}", row["basis"][:_TAG_LIMIT])
                    for _, row in rows.iterrows()
                ],
            )
            changed[bool(rows["score"].notna().any())].add(str(run_id))
    return len(changed[True]), len(changed[False])


def where(run: Run) -> str:
    """The command or address that shows the run in MLflow's UI."""
    uri = without_password(str(run.client.tracking_uri))
    if uri.startswith(("http://", "https://")):
        return f"{uri}/#/experiments/{run.experiment_id}/runs/{run.run_id}"
    return f"mlflow ui --backend-store-uri {uri}"
