"""One run on a tracking server: begun, logged to, and ended with its true status."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pepr_mlops.errors import Claimed, Paused, PeprError, TimeLimit, WorkFailed
from pepr_mlops.names import PHASES
from pepr_mlops.process import this_process, uninterrupted
from pepr_mlops.text import address, without_password
from pepr_mlops.tracking import claims, unsent
from pepr_mlops.tracking.claims import Attempt, Heartbeat
from pepr_mlops.tracking.experiments import TAG_LIMIT
from pepr_mlops.tracking.journal import FOLDER, Entry, Journal
from pepr_mlops.tracking.journal import home as journal_home
from pepr_mlops.tracking.offline import DiskHeartbeat, begin_offline, journal_name
from pepr_mlops.tracking.outbox import BUSY, Outbox, send
from pepr_mlops.tracking.server import connect, enduring, impatient, resolved, translated_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from pepr_mlops.comparison.predictions import Predictions
    from pepr_mlops.data import Splits

_RUN_ID = "MLFLOW_RUN_ID"  # how `mlflow run` hands its run to the job
NOT_FRESH = "not_fresh"
_PATIENCE_S = 5.0  # at the end of a run, while the server takes nothing
_SWEEP_PATIENCE_S = 1800.0  # a sweep cannot begin the next run without the server anyway
_BUSY_S = 300.0  # of retries while a server has too many clients


@dataclass(frozen=True)
class Run:
    """A run. What it logs is on this disk at once and on the server as soon as that takes it.

    `run_id` and `experiment_id` are empty for a run that no server knows yet. `attempt` counts
    from 1 how often its training was begun or continued, and `earlier` are the tags of the attempt
    before. What the server refuses raises `WorkFailed`, with the entry or later.
    """

    uri: str
    run_id: str
    experiment_id: str
    outbox: Outbox
    attempt: int = 1
    earlier: Mapping[str, str] = field(default_factory=dict)
    heartbeat: Heartbeat | DiskHeartbeat | None = None

    @property
    def name(self) -> str:
        """What a checkpoint names this run by, so that a later attempt continues it."""
        journal = self.outbox.journal
        return self.run_id or ("" if journal is None else journal_name(journal))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log the metrics of an epoch; raises `Claimed` as `check_ours`."""
        self.check_ours()
        values = {name: float(value) for name, value in metrics.items()}
        self.outbox.put("metrics", step=step, time_ms=claims.now_ms(), values=values)

    def check_ours(self) -> None:
        """Raise `Claimed` where another process has closed or continued the run."""
        if self.heartbeat is not None and self.heartbeat.taken:
            raise Claimed(
                f"tracking: run {self.name} was closed by another process that saw no heartbeat "
                "of this one; what is trained from here on is not logged"
            )

    def has(self, metric: str, step: int) -> bool:
        """Whether the server or, of an offline run, the journal has a point; raises `WorkFailed`
        where the server does not answer."""
        if not self.run_id and self.outbox.journal is not None:
            entries = [e.data for _, e in self.outbox.journal.entries() if e.kind == "metrics"]
            return any(d["step"] == step and metric in d["values"] for d in entries)
        client = connect(self.uri)
        with translated_errors(client):
            history = client.get_metric_history(self.run_id, metric)
        return any(point.step == step for point in history)

    def tag(self, tags: Mapping[str, str]) -> None:
        self.check_ours()
        self.outbox.put("tags", values={k: v[:TAG_LIMIT] for k, v in tags.items()})

    def params(self, params: Mapping[str, str]) -> None:
        """Log the parameters that are not there yet: `mlflow run` logs its own as the user typed
        them, and MLflow refuses another form of the same value."""
        self.outbox.put("params", values=dict(params))

    def data(self, splits: Splits) -> None:
        """Log the splits and the external sets with their digests as dataset inputs."""
        inputs = []
        external = {f"external {name}": split for name, split in splits.external.items()}
        for name, split in {**splits.by_name(), **external}.items():
            shape, classes = list(split.images.shape[1:]), list(splits.classes)
            profile = {
                "images": len(split), "shape": shape, "task": splits.task, "classes": classes
            }  # fmt: skip
            dataset = {
                "name": f"{splits.name} {name}",
                "digest": split.digest(),
                "source_type": "local",
                "source": json.dumps({"uri": splits.source}),
                "profile": json.dumps(profile),
            }
            inputs.append({"context": name, "dataset": dataset})
        self.outbox.put("inputs", inputs=inputs)

    def spec(self, spec: Mapping[str, Any]) -> None:
        self.file("spec.json", json.dumps(spec, indent=2).encode())

    def predictions(self, found: Predictions) -> None:
        """Log the arrays of predictions as `predictions.npz`, readable without pickle."""
        import numpy as np

        content = io.BytesIO()
        np.savez_compressed(content, allow_pickle=False, **found.arrays())
        self.file("predictions.npz", content.getvalue())

    def end(self, status: str) -> None:
        self.outbox.put("end", status=status, time_ms=claims.now_ms())

    def file(self, name: str, content: bytes, *, folder: str | None = None) -> None:
        """Log an artifact, in a folder of the run's artifacts if one is named."""
        self.outbox.put("file", content, name=name, folder=folder)

    def folder(
        self, name: str, fill: Callable[[Path], tuple[Sequence[str], Mapping[str, str]]]
    ) -> None:
        """Log a folder of artifacts that `fill` writes, for what should not be held in memory.

        `fill` returns the names of the files in the order in which they are stored, and tags that
        the run gets after that. Raises `OSError` where they cannot be written, and logs nothing.
        """
        place = self.outbox.room(name)
        try:
            files, tags = fill(place)
            size = sum((place / file).stat().st_size for file in files)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        names = list(files)
        self.outbox.put(FOLDER, None, place, name=name, names=names, tags=dict(tags), bytes=size)


def _warn(line: str) -> None:
    warnings.warn(line, stacklevel=2)


@contextmanager
def start(
    experiment: str | None,
    default: str,
    name: str,
    tracking_uri: str | None = None,
    job: Attempt | None = None,
    *,
    offline: bool = False,
    note: Callable[[str], None] = lambda line: None,
) -> Iterator[Run]:
    """Begin a run and end it as FINISHED, FAILED with reason and error, or KILLED.

    A paused run is KILLED, with that reason. A run of a `job` has its tags and a heartbeat. The
    journals of ended runs of this server are sent first.

    Without `tracking_uri` it is the run that `mlflow run` has begun, if any. Else it is a new one,
    named `name`, in the MLflow experiment `experiment` or, if None, that of MLFLOW_EXPERIMENT_NAME
    or _ID, or `default`; it is created when absent. Raises `WorkFailed` when the server cannot be
    reached or the begun run was measured before, and `Claimed` as of `job`, without a trace on the
    server.

    The run waits for a server that goes away later, except at its end: what the server has not
    taken a few seconds after that (half an hour for an exclusive job) stays in the journal, which
    `note` names. With `offline` everything stays there, and files next to the journals decide
    which process may do an exclusive job.
    """
    if not offline:
        unsent.catch_up(tracking_uri, note)
    with enduring(), ExitStack() as signals:  # of many that begin at once some wait
        signals.enter_context(uninterrupted())  # a signal finds a run that can be ended, or none
        run = _begin(experiment, default, name, tracking_uri, job, offline, note)
        waiting = signals.pop_all()
    patience_s = _PATIENCE_S
    with enduring():
        run.outbox.start()
        try:
            waiting.close()
            if job is not None and job.exclusive and not offline:
                patience_s = _SWEEP_PATIENCE_S
                client = connect(run.uri)
                claims.hold(client, run.run_id, job, begun=run.attempt == 1)
            if run.heartbeat is not None:
                run.heartbeat.start()
            yield run
            run.check_ours()
        except BaseException as error:
            if not isinstance(error, Claimed):
                _end_after(run, error)
            _close_outbox(run, _PATIENCE_S, note)
            raise
        try:
            run.end("FINISHED")
            run.outbox.drain(patience_s)
        except WorkFailed as error:  # the server refused something only now
            _end_after(run, error)
            run.outbox.drain(_PATIENCE_S)
            raise
        finally:
            _close_outbox(run, 0, note)


def _close_outbox(run: Run, patience_s: float, note: Callable[[str], None]) -> None:
    """Send what the server takes within `patience_s`, and note where the rest is."""
    if run.heartbeat is not None:
        run.heartbeat.stop()
    with suppress(WorkFailed):
        run.outbox.drain(patience_s)
    rest = run.outbox.end()
    if rest is not None:
        note(f"entries that {address(run.uri)} does not have are {rest}: `pepr sync` sends them")


def _end_after(run: Run, error: BaseException) -> None:
    """Mark the run FAILED, or KILLED when it was interrupted, with the error as its reason."""
    tags, status = _ending(error)
    try:
        run.tag(tags)
    except Claimed:  # another process will end it
        return
    except WorkFailed:  # of an earlier entry; the first error is the reason
        pass
    with suppress(WorkFailed):
        run.end(status)


def _ending(error: BaseException) -> tuple[dict[str, str], str]:
    killed = isinstance(error, KeyboardInterrupt | SystemExit | Paused)
    if isinstance(error, PeprError):
        reason, text = error.reason, error.logged
    elif isinstance(error, TimeLimit):
        reason, text = error.reason, str(error)
    elif killed:
        interrupted = isinstance(error, KeyboardInterrupt)
        reason, text = "killed", "interrupted" if interrupted else "its process was terminated"
    else:
        reason, text = "crashed", without_password(f"{type(error).__name__}: {error}")
    return {"pepr.reason": reason, "pepr.error": text}, "KILLED" if killed else "FAILED"


@contextmanager
def active(experiment: str, name: str) -> Iterator[Run]:
    """The active MLflow run, which its owner ends, or a new one as of `start`.

    The new run is active inside, so that other calls of MLflow log to it too.
    """
    import mlflow

    owned = mlflow.active_run()
    if owned is None:
        with start(None, experiment, name, note=_warn) as run:
            with translated_errors(run.uri):
                mlflow.start_run(run_id=run.run_id)
            status = "FAILED"
            try:
                yield run
                status = "FINISHED"
            finally:
                with suppress(WorkFailed), translated_errors(run.uri):  # `start` raises it too
                    mlflow.end_run(status)
        return
    client = connect(None)
    run_id = owned.info.run_id
    _check_fresh(client, run_id)
    uri = resolved(None)
    journal = _journal(uri, _warn, run_id=run_id, name=name, ours=False)
    run = Run(uri, run_id, owned.info.experiment_id, Outbox(client, run_id, journal, _warn))
    run.outbox.start()
    rest_s = _PATIENCE_S
    try:
        yield run
        rest_s = 0.0
        run.outbox.drain(_PATIENCE_S)
    finally:
        _close_outbox(run, rest_s, _warn)


def fail_inherited(error: PeprError) -> None:
    """Mark the run that `mlflow run` has begun for this process FAILED, if there is one."""
    run_id = os.environ.get(_RUN_ID)
    if run_id is None or error.reason == NOT_FRESH:
        return
    with impatient():
        client = connect(None)
        tags, status = _ending(error)
        with translated_errors(client):
            for key, value in tags.items():
                client.set_tag(run_id, key, value[:TAG_LIMIT])
            client.set_terminated(run_id, status)


def _begin(
    experiment: str | None,
    default: str,
    name: str,
    tracking_uri: str | None,
    job: Attempt | None,
    offline: bool,
    note: Callable[[str], None],
) -> Run:
    from mlflow.tracking.context.registry import resolve_tags  # user and source, for MLflow's UI

    uri = resolved(tracking_uri)
    here = os.environ if tracking_uri is None else {}  # the variables are of MLflow's own server
    new = {
        **_experiment(experiment, default, here),
        "name": name,
        "tags": {**resolve_tags(), **({} if job is None else claims.job_tags(job))},
        "start_ms": claims.now_ms(),
    }
    if offline:
        begun = begin_offline(unsent.portable(uri), new, job)
        outbox = Outbox(None, "", begun.journal, note)
        return Run(uri, "", "", outbox, begun.attempt, begun.earlier, begun.heartbeat)
    client = connect(uri)
    inherited = here.get(_RUN_ID)
    known_id = inherited or (None if job is None else job.continues)
    if inherited is not None:
        _check_fresh(client, inherited)
    elif known_id is None:
        with translated_errors(client):
            new["experiment_id"] = _while_busy(lambda: unsent.experiment_of(client, new))
    journal = _journal(uri, note, run_id=known_id, **new)
    try:
        head = new if journal is None else journal.head
        info, attempt, earlier = _open(client, job, inherited, head)
    except Claimed:
        if journal is not None:
            journal.discard()
        raise
    except BaseException:
        if journal is not None:
            journal.release()  # `unsent` finds out whether a run was created
        raise
    if journal is not None and known_id is None:
        with suppress(OSError):
            journal.add(0, Entry("begun", {"run_id": info.run_id}))
    heartbeat = None if job is None else Heartbeat(client, info.run_id)
    outbox = Outbox(client, info.run_id, journal, note, heartbeat)
    return Run(uri, info.run_id, info.experiment_id, outbox, attempt, earlier, heartbeat)


def _open(
    client: MlflowClient, job: Attempt | None, inherited: str | None, head: Mapping[str, Any]
) -> tuple[Any, int, Mapping[str, str]]:
    """MLflow's info of the inherited, continued or new run, its attempt and its earlier tags."""
    if inherited is None and job is not None and job.continues is not None:
        run, attempt = claims.reopen(client, job, job.continues)
        return run.info, attempt, run.data.tags
    with translated_errors(client):
        if inherited is None:
            return _while_busy(lambda: unsent.create(client, head)), 1, {}
        client.update_run(inherited, "RUNNING")
        if job is not None:
            send(client, inherited, Entry("tags", {"values": claims.job_tags(job)}))
        return client.get_run(inherited).info, 1, {}


def _experiment(name: str | None, default: str, here: Mapping[str, str]) -> dict[str, Any]:
    """The experiment of a new run, by its name or its id."""
    name = name or here.get("MLFLOW_EXPERIMENT_NAME")
    if name is None and "MLFLOW_EXPERIMENT_ID" in here:
        return {"experiment_id": here["MLFLOW_EXPERIMENT_ID"]}
    return {"experiment": name or default}


def _while_busy(request: Callable[[], Any]) -> Any:
    """The answer of a server, with retries for some minutes while it has too many clients."""
    from mlflow.exceptions import MlflowException

    until = time.monotonic() + _BUSY_S
    while True:
        try:
            return request()
        except MlflowException as error:
            if error.error_code != BUSY or time.monotonic() > until:
                raise
        time.sleep(random.uniform(0.5, 2.0))


def _journal(uri: str, note: Callable[[str], None], **head: Any) -> Journal | None:
    """A new journal, or None where none can be written."""
    try:
        return Journal.create({"uri": unsent.portable(uri), "process": this_process(), **head})
    except OSError as error:
        note(
            f"journal: {journal_home()} cannot be written ({error.strerror}); what the tracking "
            "server does not take is lost when this process ends (PEPR_JOURNAL names another "
            "folder)"
        )
        return None


def _check_fresh(client: MlflowClient, run_id: str) -> None:
    """Refuse a run that was measured before: the costs of two attempts would mix."""
    with translated_errors(client):
        known = client.get_run(run_id).data.metrics
    if any(f"time/{phase}_s" in known for phase in PHASES):
        raise WorkFailed(
            f"tracking: run {run_id} has measurements already; begin a new run", reason=NOT_FRESH
        )


def address_of(run: Run) -> str:
    """The command or address that shows the run in MLflow's UI."""
    uri = address(run.uri)
    if uri.startswith(("http://", "https://")):
        return f"{uri}/#/experiments/{run.experiment_id}/runs/{run.run_id}"
    return f"mlflow ui --backend-store-uri {uri}"
