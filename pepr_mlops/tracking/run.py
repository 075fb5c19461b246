"""One run on a tracking server: begun, logged to, and ended with the truth."""

from __future__ import annotations

import io
import json
import os
import random
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pepr_mlops.errors import Claimed, Paused, PeprError, WorkFailed
from pepr_mlops.names import PHASES
from pepr_mlops.process import this_process, uninterrupted
from pepr_mlops.text import address, without_password
from pepr_mlops.tracking import claims, unsent
from pepr_mlops.tracking.claims import Attempt, Heart
from pepr_mlops.tracking.experiments import TAG_LIMIT
from pepr_mlops.tracking.journal import Entry, Journal
from pepr_mlops.tracking.journal import home as journal_home
from pepr_mlops.tracking.outbox import BUSY, Link, send
from pepr_mlops.tracking.server import connect, enduring, impatient, resolved, told

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from pepr_mlops.data import Splits
    from pepr_mlops.data.splits import Origins
    from pepr_mlops.train.metrics import Floats, Ints

_RUN_ID = "MLFLOW_RUN_ID"  # how `mlflow run` hands its run to the job
NOT_FRESH = "not_fresh"
_PATIENCE_S = 5.0  # with a server that takes nothing more, at the end of a run
_INSISTENCE_S = 300.0
_PATIENCE_OF_A_SWEEP_S = 1800.0  # which cannot begin the next one without the server anyway


@dataclass(frozen=True)
class Run:
    """A run. What it logs is on this disk at once and on the server as soon as that takes it.

    `run_id` and `experiment_id` are empty for a run that no server knows yet. `attempt` counts
    from 1 how often its training was begun or continued, and `earlier` are the tags that the
    attempt before left. What the server refuses raises `WorkFailed`, with the entry or later.
    """

    uri: str
    run_id: str
    experiment_id: str
    link: Link
    attempt: int = 1
    earlier: Mapping[str, str] = field(default_factory=dict)
    heart: Heart | None = None

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log what is known after an epoch; raises `Claimed` as `check_ours`."""
        self.check_ours()
        values = {name: float(value) for name, value in metrics.items()}
        self.link.put("metrics", step=step, time_ms=_now_ms(), values=values)

    def check_ours(self) -> None:
        """Raise `Claimed` when others gave this process up and closed the run, or go on with it."""
        if self.heart is not None and self.heart.taken:
            raise Claimed(
                f"tracking: run {self.run_id} was closed by another process that saw no heartbeat "
                "of this one; what is trained from here on is not logged"
            )

    def has(self, metric: str, step: int) -> bool:
        """Whether the server has a point; raises `WorkFailed` where it does not answer."""
        client = connect(self.uri)
        with told(self.uri):
            history = client.get_metric_history(self.run_id, metric)
        return any(point.step == step for point in history)

    def tag(self, tags: Mapping[str, str]) -> None:
        self.check_ours()
        self.link.put("tags", values={k: v[:TAG_LIMIT] for k, v in tags.items()})

    def params(self, params: Mapping[str, str]) -> None:
        """Log the parameters that are not there yet.

        `mlflow run` has logged those it was given, as they were typed, and MLflow refuses to
        write another form of the same value.
        """
        self.link.put("params", values=dict(params))

    def data(self, splits: Splits) -> None:
        """Log the three splits with their digests as dataset inputs."""
        inputs = []
        for name in ("train", "val", "test"):
            split = getattr(splits, name)
            profile = {
                "images": len(split),
                "shape": list(split.images.shape[1:]),
                "task": splits.task,
                "classes": list(splits.classes),
            }
            dataset = {
                "name": f"{splits.name} {name}",
                "digest": split.digest(),
                "source_type": "local",
                "source": json.dumps({"uri": splits.source}),
                "profile": json.dumps(profile),
            }
            inputs.append({"context": name, "dataset": dataset})
        self.link.put("inputs", inputs=inputs)

    def spec(self, spec: Mapping[str, Any]) -> None:
        self.file("spec.json", json.dumps(spec, indent=2).encode())

    def predictions(
        self,
        labels: Ints,
        probabilities: Floats,
        classes: tuple[str, ...],
        origins: Origins | None = None,
    ) -> None:
        """Test labels and probabilities as `predictions.npz`, readable without pickle.

        What `data.Split.origins` says of each image is `files` or, of rows, `index`.
        """
        arrays: dict[str, np.ndarray] = {
            "labels": labels,
            "probabilities": probabilities,
            "classes": np.array(classes),
        }
        if origins is not None:
            arrays["files" if origins.dtype.kind == "U" else "index"] = origins
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)  # type: ignore[arg-type]  # of texts and numbers
        self.file("predictions.npz", content.getvalue())

    def end(self, status: str) -> None:
        self.link.put("end", status=status, time_ms=_now_ms())

    def file(self, name: str, content: bytes) -> None:
        """Log an artifact."""
        self.link.put("file", content, name=name)


def _now_ms() -> int:
    return int(time.time() * 1000)


def _silent(line: str) -> None: ...


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
    note: Callable[[str], None] = _silent,
) -> Iterator[Run]:
    """Begin a run and end it with the truth: FINISHED, FAILED with reason and error, or KILLED.

    A paused one is KILLED, with that reason. A run of a `job` carries its tags and a heartbeat.
    What runs of this server that have ended left in their journals is sent first.

    Without `tracking_uri` it is the run `mlflow run` has begun, if it did. Else it is a new one,
    named `name`, in the MLflow experiment `experiment` or, if None, the one MLflow was told of
    (MLFLOW_EXPERIMENT_NAME or _ID) or `default`; it is created when absent. Raises `WorkFailed`
    when the server cannot be reached or the begun run was measured before, and `Claimed` as `job`
    says, without a trace on the server.

    A server that goes away later is waited for without end, but for the end of the run: what it
    has not taken a few seconds after that (half an hour for an exclusive job) stays in the journal,
    where `note` says. `offline` asks no server at all and leaves everything there.
    """
    if not offline:
        unsent.catch_up(tracking_uri, note)
    with enduring(), ExitStack() as signals:  # of many that begin at once some wait
        signals.enter_context(uninterrupted())  # one finds a run that can be ended, or none
        run = _begin(experiment, default, name, tracking_uri, job, offline, note)
        waiting = signals.pop_all()
    patience_s = _PATIENCE_S
    with enduring():
        run.link.start()
        try:
            waiting.close()
            if job is not None and job.exclusive:
                patience_s = _PATIENCE_OF_A_SWEEP_S
                client = connect(run.uri)
                claims.hold(client, run.run_id, job, begun=run.attempt == 1)
            if run.heart is not None:
                run.heart.start()
            yield run
            run.check_ours()
        except BaseException as error:
            if not isinstance(error, Claimed):
                _say_why(run, error)
            _leave(run, _PATIENCE_S, note)
            raise
        try:
            run.end("FINISHED")
            run.link.drain(patience_s)
        except WorkFailed as error:  # the server refused something only now
            _say_why(run, error)
            run.link.drain(_PATIENCE_S)
            raise
        finally:
            _leave(run, 0, note)


def _leave(run: Run, patience_s: float, note: Callable[[str], None]) -> None:
    """Send what can be sent soon, and say where the rest is."""
    if run.heart is not None:
        run.heart.stop()
    with suppress(WorkFailed):
        run.link.drain(patience_s)
    rest = run.link.end()
    if rest is not None:
        note(f"what {address(run.uri)} does not have is kept {rest}: `pepr sync` sends it")


def _say_why(run: Run, error: BaseException) -> None:
    """Mark the run FAILED, or KILLED when it was interrupted, with the line that says why."""
    tags, status = _ending(error)
    try:
        run.tag(tags)
    except Claimed:  # it is another's to end
        return
    except WorkFailed:  # of an earlier entry; the first error is the one to tell
        pass
    with suppress(WorkFailed):
        run.end(status)


def _ending(error: BaseException) -> tuple[dict[str, str], str]:
    killed = isinstance(error, KeyboardInterrupt | SystemExit | Paused)
    if isinstance(error, PeprError):
        reason, text = error.reason, str(error)
    elif killed:
        interrupted = isinstance(error, KeyboardInterrupt)
        reason, text = "killed", "interrupted" if interrupted else "its process was told to end"
    else:
        reason, text = "crashed", without_password(f"{type(error).__name__}: {error}")
    return {"pepr.reason": reason, "pepr.error": text}, "KILLED" if killed else "FAILED"


@contextmanager
def active(experiment: str, name: str) -> Iterator[Run]:
    """The active MLflow run, which is left for its owner to end, or a new one as of `start`.

    The new run is active inside, so that other calls of MLflow log to it too.
    """
    import mlflow

    owned = mlflow.active_run()
    if owned is None:
        with start(None, experiment, name, note=_warn) as run:
            with told(run.uri):
                mlflow.start_run(run_id=run.run_id)
            status = "FAILED"
            try:
                yield run
                status = "FINISHED"
            finally:
                with suppress(WorkFailed), told(run.uri):  # `start` says it as well
                    mlflow.end_run(status)
        return
    client = connect(None)
    run_id = owned.info.run_id
    _check_fresh(client, run_id)
    uri = resolved(None)
    journal = _journal(uri, _warn, run_id=run_id, name=name, ours=False)
    run = Run(uri, run_id, owned.info.experiment_id, Link(client, run_id, journal, _warn))
    run.link.start()
    try:
        yield run
    except BaseException:
        _leave(run, _PATIENCE_S, _warn)
        raise
    try:
        run.link.drain(_PATIENCE_S)
    finally:
        _leave(run, 0, _warn)


def fail_inherited(error: PeprError) -> None:
    """Mark the run that `mlflow run` has begun for this process FAILED, if there is one."""
    run_id = os.environ.get(_RUN_ID)
    if run_id is None or error.reason == NOT_FRESH:
        return
    with impatient():
        client = connect(None)
        tags, status = _ending(error)
        with told(resolved(None)):
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
    tags = {**resolve_tags(), **({} if job is None else claims.job_tags(job))}
    new = {
        **_experiment(experiment, default, here),
        "name": name,
        "tags": tags,
        "start_ms": _now_ms(),
    }
    if offline:
        journal = _journal(uri, note, **new)
        if journal is None:
            raise WorkFailed("offline: the run would be kept nowhere; set PEPR_JOURNAL to a folder")
        return Run(uri, "", "", Link(None, "", journal, note))
    client = connect(uri)
    inherited = here.get(_RUN_ID)
    continued = None if job is None else job.continues
    if inherited is not None:
        _check_fresh(client, inherited)
    elif continued is None:
        with told(uri):
            new["experiment_id"] = _insist(lambda: unsent.experiment_of(client, new))
    journal = _journal(uri, note, run_id=inherited or continued, **new)
    attempt, earlier = 1, {}
    try:
        if inherited is not None:
            with told(uri):
                client.update_run(inherited, "RUNNING")
                if job is not None:
                    send(client, inherited, Entry("tags", {"values": claims.job_tags(job)}))
                info = client.get_run(inherited).info
        elif job is not None and continued is not None:
            found, attempt = claims.reopen(client, job, continued)
            info, earlier = found.info, found.data.tags
        else:
            with told(uri):
                head = new if journal is None else journal.head
                info = _insist(lambda: unsent.create(client, head))
    except Claimed:
        if journal is not None:
            journal.discard()
        raise
    except BaseException:
        if journal is not None:
            journal.release()  # whether a run was made is not known: the next one looks
        raise
    if journal is not None and inherited is None and continued is None:
        with suppress(OSError):
            journal.add(0, Entry("begun", {"run_id": info.run_id}))
    heart = None if job is None else Heart(client, info.run_id)
    link = Link(client, info.run_id, journal, note, heart)
    return Run(uri, info.run_id, info.experiment_id, link, attempt, earlier, heart)


def _experiment(asked: str | None, default: str, here: Mapping[str, str]) -> dict[str, Any]:
    """The experiment a new run belongs to, by its name or its id."""
    name, by_id = here.get("MLFLOW_EXPERIMENT_NAME"), here.get("MLFLOW_EXPERIMENT_ID")
    if asked is None and name is None and by_id is not None:
        return {"experiment_id": by_id}
    return {"experiment": asked or name or default}


def _insist(ask: Callable[[], Any]) -> Any:
    """The answer of a server, asked again for some minutes where it has too many at once."""
    from mlflow.exceptions import MlflowException

    until = time.monotonic() + _INSISTENCE_S
    while True:
        try:
            return ask()
        except MlflowException as error:
            if error.error_code != BUSY or time.monotonic() > until:
                raise
        time.sleep(random.uniform(0.5, 2.0))


def _journal(uri: str, note: Callable[[str], None], **head: Any) -> Journal | None:
    """A new journal, or None where none can be written."""
    try:
        return Journal.create({"uri": unsent.meant(uri), "process": this_process(), **head})
    except OSError as error:
        note(
            f"journal: {journal_home()} cannot be written ({error.strerror}); what the tracking "
            "server does not take is lost when this process ends (PEPR_JOURNAL names another "
            "folder)"
        )
        return None


def _check_fresh(client: MlflowClient, run_id: str) -> None:
    """Refuse a run that was measured before: the costs of two attempts would mix."""
    with told(str(client.tracking_uri)):
        known = client.get_run(run_id).data.metrics
    if any(f"time/{phase}_s" in known for phase in PHASES):
        raise WorkFailed(
            f"tracking: run {run_id} has measurements already; begin a new run", reason=NOT_FRESH
        )


def where(run: Run) -> str:
    """The command or address that shows the run in MLflow's UI."""
    uri = address(run.uri)
    if uri.startswith(("http://", "https://")):
        return f"{uri}/#/experiments/{run.experiment_id}/runs/{run.run_id}"
    return f"mlflow ui --backend-store-uri {uri}"
