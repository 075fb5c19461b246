"""The only writer of MLflow."""

from __future__ import annotations

import json
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pepr_mlops import ledger
from pepr_mlops.errors import Claimed, Paused, PeprError, WorkFailed
from pepr_mlops.ledger import Claim
from pepr_mlops.processes import is_gone, this_process
from pepr_mlops.safe import address, matches, without_password
from pepr_mlops.schema import FinishedRun
from pepr_mlops.server import connect, impatient, told

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    from mlflow import MlflowClient

    from pepr_mlops.data import Splits
    from pepr_mlops.performance import Floats, Ints

_RUN_ID = "MLFLOW_RUN_ID"  # how `mlflow run` hands its run to the job
_TRAINING_VIEW = {"mlflow.experimentKind": "custom_model_development"}  # what the UI opens with
NOT_FRESH = "not_fresh"
_ATTEMPT = "pepr.attempt."
_TAG_LIMIT = 8000  # characters


@dataclass(frozen=True)
class Job:
    """Which job a run does, for others that want it too.

    `spec` is the fingerprint. `exclusive` gives way to whoever does the job or has done it, with
    `Claimed`; `stale_s` as in `ledger.Claim.lives`. `continues` is the run of an earlier attempt
    to go on with, where there is a checkpoint of it. A `probe` only looks what the job will cost.
    """

    spec: str
    exclusive: bool = False
    stale_s: float = ledger.STALE_S
    continues: str | None = None
    probe: bool = False


class _Heart(threading.Thread):
    """Keeps saying that the process of a run lives; `taken` once another has closed the run, or
    goes on with it."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        super().__init__(daemon=True)
        self._client, self._run_id = client, run_id
        self._stop = threading.Event()
        self.taken = False

    def run(self) -> None:
        while not self._stop.wait(ledger.HEARTBEAT_S):
            with suppress(Exception):  # a server that is away for a while is the loop's to tell
                run = self._client.get_run(self._run_id)
                mine = run.data.tags.get("pepr.process") == this_process()
                self.taken = self.taken or run.info.status != "RUNNING" or not mine
                if not self.taken:
                    self._client.set_tag(self._run_id, "pepr.heartbeat", _now_ms())

    def stop(self) -> None:
        self._stop.set()


def _now_ms() -> str:
    return str(int(time.time() * 1000))


@dataclass(frozen=True)
class Run:
    """A run on a tracking server. Every method is one request and raises `WorkFailed`.

    `attempt` counts from 1 how often its training was begun or continued, and `earlier` are the
    tags that the attempt before left.
    """

    client: MlflowClient
    run_id: str
    experiment_id: str
    attempt: int = 1
    earlier: Mapping[str, str] = field(default_factory=dict)
    heart: _Heart | None = None

    def _told(self) -> AbstractContextManager[None]:
        return told(str(self.client.tracking_uri))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log what is known after an epoch.

        Raises `Claimed` when others gave this process up and closed the run.
        """
        from mlflow.entities import Metric

        if self.heart is not None and self.heart.taken:
            raise Claimed(
                f"tracking: run {self.run_id} was closed by another process that saw no heartbeat "
                "of this one; what is trained from here on is not logged"
            )
        now_ms = int(_now_ms())
        points = [Metric(name, value, now_ms, step) for name, value in metrics.items()]
        with self._told():
            self.client.log_batch(self.run_id, metrics=points)

    def has(self, metric: str, step: int) -> bool:
        with self._told():
            history = self.client.get_metric_history(self.run_id, metric)
        return any(point.step == step for point in history)

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
    experiment: str | None,
    default: str,
    name: str,
    tracking_uri: str | None = None,
    job: Job | None = None,
) -> Iterator[Run]:
    """Begin a run and end it with the truth: FINISHED, FAILED with reason and error, or KILLED.

    A paused one is KILLED, with that reason. A run of a `job` carries its tags and a heartbeat.

    Without `tracking_uri` it is the run `mlflow run` has begun, if it did. Else it is a new one,
    named `name`, in the MLflow experiment `experiment` or, if None, the one MLflow was told of
    (MLFLOW_EXPERIMENT_NAME or _ID) or `default`; it is created when absent. Raises `WorkFailed`
    when the server cannot be reached or the begun run was measured before, and `Claimed` as `job`
    says, without a trace on the server.
    """
    with impatient():
        run = _begin(experiment, default, name, tracking_uri, job)
    try:
        if job is not None and job.exclusive:
            _hold(run, job)
        if run.heart is not None:
            run.heart.start()
        yield run
    except BaseException as error:
        if not isinstance(error, Claimed):
            with suppress(WorkFailed):  # the first error is the one to tell
                fail(run, error)
        raise
    finally:
        if run.heart is not None:
            run.heart.stop()
    run.end("FINISHED")


def _hold(run: Run, job: Job) -> None:
    """Wait until the run may do its job, or take it back and raise `Claimed`."""
    while True:
        with told(str(run.client.tracking_uri)):
            now_s = time.time()
            claims = _claims(run.client, job.spec)
            others = [
                c for c in claims if c.status == "FINISHED" or c.lives(now_s, job.stale_s, is_gone)
            ]
            found = ledger.verdict(run.run_id, others)
            if found == ledger.HELD:
                run.client.set_tag(run.run_id, "pepr.claim", ledger.HELD)
                return
            if found == "claimed":
                other = next(c for c in others if c.run_id != run.run_id)
                if run.attempt == 1:
                    run.client.delete_run(run.run_id)
                else:
                    run.client.set_terminated(run.run_id, "KILLED")
                raise Claimed(f"sweep: run {other.run_id} does this job or has done it")
        time.sleep(random.uniform(0.2, 0.6))


def _claims(client: MlflowClient, spec: str) -> list[Claim]:
    """The runs of a job, on the whole server."""
    experiments: list[str] = []
    token = None
    while True:
        page = client.search_experiments(max_results=1000, page_token=token)
        experiments += [e.experiment_id for e in page]
        token = page.token
        if not token:
            break
    found = client.search_runs(experiments, f"tags.`pepr.spec` {matches(spec)}", max_results=1000)
    return [_claim(run) for run in found if "pepr.probe" not in run.data.tags]


def _claim(run: Any) -> Claim:
    tags = run.data.tags
    beat = tags.get("pepr.heartbeat")
    return Claim(
        run.info.run_id,
        run.info.status,
        tags.get("pepr.claim"),
        tags.get("pepr.process"),
        None if beat is None else int(beat) / 1000,
    )


def prepare(experiments: Iterable[str], tracking_uri: str | None = None) -> None:
    """Make the store and the experiments, so that jobs that begin at once find them there.

    Several processes that open a new SQLite store at the same time crash in its migration.
    """
    with impatient():
        client = connect(tracking_uri)
        with told(str(client.tracking_uri)):
            for name in experiments:
                _experiment(client, name)


def knows(run_id: str, tracking_uri: str | None = None) -> bool:
    """Whether the server has the run and it was not deleted."""
    from mlflow.exceptions import MlflowException

    client = connect(tracking_uri)
    with told(str(client.tracking_uri)):
        try:
            return bool(client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False


def close(run_ids: Iterable[str], tracking_uri: str | None = None) -> None:
    """Mark runs FAILED whose process has vanished; what they measured stays."""
    client = connect(tracking_uri)
    run_ids = list(run_ids)
    with told(str(client.tracking_uri)):
        for run_id in run_ids:
            client.set_tag(run_id, "pepr.reason", ledger.LOST)
            client.set_tag(run_id, "pepr.error", "its process vanished; no heartbeat of it since")
            client.set_terminated(run_id, "FAILED")


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
            with told(str(run.client.tracking_uri)):
                mlflow.end_run()


def fail(run: Run, error: BaseException) -> None:
    """Mark the run FAILED, or KILLED when it was interrupted, with the line that says why."""
    killed = isinstance(error, KeyboardInterrupt | SystemExit | Paused)
    if isinstance(error, PeprError):
        reason, text = error.reason, str(error)
    elif killed:
        reason, text = "killed", f"stopped by {type(error).__name__}"
    else:
        reason, text = "crashed", without_password(f"{type(error).__name__}: {error}")
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


def _begin(
    experiment: str | None,
    default: str,
    name: str,
    tracking_uri: str | None,
    job: Job | None,
) -> Run:
    from mlflow.entities import RunStatus
    from mlflow.tracking.context.registry import resolve_tags  # user and source, for MLflow's UI

    run = inherited_run() if tracking_uri is None else None
    if run is not None:
        _check_fresh(run)
        with told(str(run.client.tracking_uri)):
            run.client.update_run(run.run_id, RunStatus.to_string(RunStatus.RUNNING))
        if job is not None:
            run.tag(_job_tags(job))
        return _with_heart(run, job)
    client = connect(tracking_uri)
    if job is not None and job.continues is not None:
        return _with_heart(_reopen(client, job, job.continues), job)
    with told(str(client.tracking_uri)):
        experiment_id = None
        if experiment is None and tracking_uri is None:
            experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME")
            experiment_id = os.environ.get("MLFLOW_EXPERIMENT_ID")
        if experiment is not None or experiment_id is None:
            experiment_id = _experiment(client, experiment or default)
        tags = {**resolve_tags(), **({} if job is None else _job_tags(job))}
        begun = client.create_run(experiment_id, tags=tags, run_name=name)
    return _with_heart(Run(client, begun.info.run_id, experiment_id), job)


def _job_tags(job: Job) -> dict[str, str]:
    tags = {
        "pepr.spec": job.spec,
        "pepr.process": this_process(),
        "pepr.heartbeat": _now_ms(),
        "pepr.attempts": "1",
    }
    if job.probe:
        tags["pepr.probe"] = "begun"
    return {**tags, "pepr.claim": ledger.WANTED} if job.exclusive else tags


def _with_heart(run: Run, job: Job | None) -> Run:
    return run if job is None else replace(run, heart=_Heart(run.client, run.run_id))


def _reopen(client: MlflowClient, job: Job, run_id: str) -> Run:
    """Go on with the run of an earlier attempt, which only one process can.

    A parameter is written once: of two that write the same attempt one is refused.
    """
    from mlflow.entities import RunTag
    from mlflow.exceptions import MlflowException

    with told(str(client.tracking_uri)):
        run = client.get_run(run_id)
        claims, attempt = [_claim(run)], 2
        while f"{_ATTEMPT}{attempt}" in run.data.params:
            attempt += 1
        if attempt > 1 + int(run.data.tags.get("pepr.attempts", "1")):  # begun, not yet told
            process, _, ns = run.data.params[f"{_ATTEMPT}{attempt - 1}"].rpartition(" ")
            claims.append(Claim(run_id, "RUNNING", None, process, int(ns) / 1e9))
        if any(
            c.status == "FINISHED" or c.lives(time.time(), job.stale_s, is_gone) for c in claims
        ):
            raise Claimed(f"sweep: run {run_id} does this job or has done it")
        try:
            client.log_param(run_id, f"{_ATTEMPT}{attempt}", f"{this_process()} {time.time_ns()}")
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            raise Claimed(f"sweep: run {run_id} is being continued by another process") from error
        tags = {**_job_tags(job), "pepr.attempts": str(attempt)}
        client.log_batch(run_id, tags=[RunTag(k, v) for k, v in tags.items()])
        client.update_run(run_id, "RUNNING")
        for gone in ("pepr.reason", "pepr.error"):
            if gone in run.data.tags:
                client.delete_tag(run_id, gone)
    return Run(client, run_id, run.info.experiment_id, attempt, run.data.tags)


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
    uri = address(str(run.client.tracking_uri))
    if uri.startswith(("http://", "https://")):
        return f"{uri}/#/experiments/{run.experiment_id}/runs/{run.run_id}"
    return f"mlflow ui --backend-store-uri {uri}"
