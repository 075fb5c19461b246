"""Whether jobs can log to the tracking server and its artifact store: one run is logged."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from pepr_mlops.costs.doctor import Check
from pepr_mlops.errors import PeprError, WorkFailed
from pepr_mlops.tracking import journal
from pepr_mlops.tracking.experiments import experiment_id
from pepr_mlops.tracking.journal import Entry
from pepr_mlops.tracking.outbox import reason, send
from pepr_mlops.tracking.server import connect, impatient, translated_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

_FILE = "doctor.txt"


def checks(tracking_uri: str | None = None) -> Iterator[Check]:
    """Log a run with an artifact, in an experiment of its own, and delete all three again."""
    with impatient():
        try:
            yield from _try(connect(tracking_uri))
        except WorkFailed as error:
            remedy = "check that you have write access"
            yield Check("tracking", "runs", "fails", plain(error), remedy)


def plain(error: PeprError) -> str:
    """The text of an error without its `tracking: `."""
    return str(error).removeprefix("tracking: ")


def waiting() -> Iterator[Check]:
    """The runs that ended before a server had everything they logged."""
    ended = 0
    for unsent in journal.unsent():
        waits = not unsent.head.get("offline") or journal.ended(unsent.folder) is not None
        ended += waits and bool(unsent.pending() or not unsent.head.get("offline"))
        unsent.release()
    if ended:
        runs = "1 run that has ended is" if ended == 1 else f"{ended} runs that have ended are"
        text = f"{runs} not complete on the server; the rest is in {journal.home()}"
        yield Check("tracking", "journals", "note", text, "pepr sync")


def _try(client: MlflowClient) -> Iterator[Check]:
    from mlflow.exceptions import MlflowException

    with translated_errors(client):
        began_s = time.perf_counter()
        # A new one each time: an existing one has the artifact folder it was created with.
        experiment = experiment_id(client, f"pepr doctor {uuid.uuid4().hex[:8]}")
        run = client.create_run(experiment, run_name="pepr doctor").info
    try:
        with translated_errors(client):
            client.log_metric(run.run_id, "written", 1.0)
            took_ms = (time.perf_counter() - began_s) * 1000
        yield Check("tracking", "runs", "ok", f"can be written, in {took_ms:.0f} ms")
        yield _try_artifact(client, run.run_id, str(run.artifact_uri))
    finally:
        with suppress(MlflowException):  # a user who may not delete
            client.set_terminated(run.run_id)
            client.delete_run(run.run_id)
            client.delete_experiment(experiment)


def _try_artifact(client: MlflowClient, run_id: str, place: str) -> Check:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    uri = str(client.tracking_uri)
    try:
        with translated_errors(client):
            send(client, run_id, Entry("file", {"name": _FILE}, b"written by pepr doctor"))
    except Exception as error:  # stores of artifacts have errors of their own
        remedy = (
            f"make {place} writable from here, then run `pepr sync`; a server that is started with "
            "--serve-artifacts helps new experiments only"
        )
        why = reason(error.__cause__ or error, uri)
        return Check("tracking", "artifacts", "fails", why, remedy)
    with suppress(Exception):  # of stores that cannot delete; `mlflow gc` does
        get_artifact_repository(place, tracking_uri=uri).delete_artifacts(_FILE)
    database = uri.startswith(("postgresql", "mysql", "mssql"))
    if not (database and place.startswith(os.getcwd())):
        return Check("tracking", "artifacts", "ok", f"can be written to {place}")
    remedy = "put `mlflow server` in front of the database, or give experiments a shared place"
    text = f"are written to {place}, in the folder that each job starts in"
    return Check("tracking", "artifacts", "note", text, remedy)
