"""Whether jobs can log to the tracking server and its artifact store, found out by doing it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from pepr_mlops import journal
from pepr_mlops.errors import Check, WorkFailed
from pepr_mlops.journal import Entry
from pepr_mlops.server import connect, impatient, told
from pepr_mlops.tracking.link import reason, send
from pepr_mlops.tracking.store import experiment_id

if TYPE_CHECKING:
    from mlflow import MlflowClient

_EXPERIMENT = "pepr doctor"


def checks(tracking_uri: str | None = None) -> Iterator[Check]:
    """Log a run with an artifact and delete it: what the server and its artifact store allow.

    The experiment it is in is deleted too; the artifact of some bytes is left to `mlflow gc`.
    """
    with impatient():
        try:
            yield from _try(connect(tracking_uri))
        except WorkFailed as error:
            remedy = "check that the server is running and that you have write access"
            yield Check("tracking", "runs", "fails", str(error), remedy)


def waiting() -> Iterator[Check]:
    """The runs that have ended before a server had all of them."""
    ended = 0
    for left in journal.left():
        left.release()
        ended += 1
    if ended:
        runs = "1 run that has ended is" if ended == 1 else f"{ended} runs that have ended are"
        text = f"{runs} not complete on the server; the rest is in {journal.home()}"
        yield Check("tracking", "journals", "note", text, "pepr sync")


def _try(client: MlflowClient) -> Iterator[Check]:
    from mlflow.exceptions import MlflowException

    uri = str(client.tracking_uri)
    with told(uri):
        began_s = time.perf_counter()
        experiment = _experiment(client)
        run = client.create_run(experiment, run_name=_EXPERIMENT).info
    try:
        with told(uri):
            client.log_metric(run.run_id, "written", 1.0)
            took_ms = (time.perf_counter() - began_s) * 1000
        yield Check("tracking", "runs", "ok", f"can be written, in {took_ms:.0f} ms")
        yield _try_artifact(client, run.run_id, str(run.artifact_uri))
    finally:
        with suppress(MlflowException):  # a user who may not delete
            client.delete_run(run.run_id)
            client.delete_experiment(experiment)


def _try_artifact(client: MlflowClient, run_id: str, place: str) -> Check:
    uri = str(client.tracking_uri)
    try:
        with told(uri):
            send(client, run_id, Entry("file", {"name": "doctor.txt"}, b"written by pepr doctor"))
    except Exception as error:  # stores of artifacts have errors of their own
        remedy = (
            f"make sure that this machine can write to {place}, or let the server store artifacts "
            "(mlflow server --serve-artifacts); `pepr sync` then sends what runs have kept"
        )
        return Check(
            "tracking", "artifacts", "fails", reason(error.__cause__ or error, uri), remedy
        )
    database = uri.startswith(("postgresql", "mysql", "mssql"))
    if not (database and place.startswith(os.getcwd())):
        return Check("tracking", "artifacts", "ok", f"can be written to {place}")
    remedy = "put `mlflow server` in front of the database, or give experiments a shared place"
    text = f"are written to {place}, in the folder that each job starts in"
    return Check("tracking", "artifacts", "note", text, remedy)


def _experiment(client: MlflowClient) -> str:
    """The experiment of these checks, which each of them deletes again."""
    found = client.get_experiment_by_name(_EXPERIMENT)
    if found is not None and found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return experiment_id(client, _EXPERIMENT)
