"""What runs that have ended left in their journals, brought to the tracking server."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pepr_mlops.errors import PeprError, WorkFailed, one_line
from pepr_mlops.process import is_alive
from pepr_mlops.text import address
from pepr_mlops.tracking import journal as journals
from pepr_mlops.tracking import ownership
from pepr_mlops.tracking.claims import claim
from pepr_mlops.tracking.experiments import experiment_id
from pepr_mlops.tracking.journal import Entry, Journal
from pepr_mlops.tracking.outbox import (
    EXTRAS,
    NOT_STORED,
    OWNERS,
    Unknown,
    is_away,
    listed,
    name_of,
    not_stored_entry,
    reason,
    send,
)
from pepr_mlops.tracking.server import connect, enduring, impatient, resolved, told

if TYPE_CHECKING:
    from mlflow import MlflowClient

_KEY = "pepr.journal"
_SQLITE = "sqlite:///"
_AWAY = "away"
_DAMAGED = (OSError, KeyError, TypeError, ValueError)  # what reading a damaged folder raises
_SILENT_S = 86400.0  # no epoch takes longer


@dataclass(frozen=True)
class Synced:
    """What became of a journal: how many entries the server took, and the status of its run now.

    `problem` says why the rest is still in `folder`; None: it is gone. `run_id` is None for a run
    that was never begun on the server.
    """

    folder: Path
    name: str
    uri: str
    run_id: str | None
    entries: int
    status: str | None
    problem: str | None


def sync(tracking_uri: str | None = None) -> Iterator[Synced]:
    """Send the journals that no process is at, each to the server its run is on.

    A run that was kept offline goes to `tracking_uri`, or if None to where it was meant to go. No
    password is kept: it is that of `tracking_uri` or MLflow's own where these name the server. A
    run whose process vanished becomes FAILED.
    """
    known = [uri for uri in (tracking_uri, resolved(None)) if uri is not None]
    away: dict[str, str] = {}
    for journal in journals.left():
        uri = str(journal.head.get("uri"))
        if tracking_uri is not None and _run_of(journal) is None:
            uri = meant(tracking_uri)
        uri = next((full for full in known if meant(full) == uri), uri)
        try:
            if uri in away:
                raise WorkFailed(away[uri])
            with enduring():
                yield _sent(journal, connect(uri if _run_of(journal) is None else _there(uri)))
        except PeprError as error:  # of this one; the others may be of other servers
            if error.reason == _AWAY:
                away[uri] = str(error)
            yield _synced(journal, uri, _run_of(journal), 0, None, str(error))
        finally:
            journal.release()


def catch_up(tracking_uri: str | None, note: Callable[[str], None] = lambda line: None) -> None:
    """Send the journals of this server, and `note` those that cannot be."""
    uri = resolved(tracking_uri)
    here = meant(uri)
    for journal in journals.left():
        try:
            if journal.head.get("uri") != here or _owes_only_extras(journal):
                continue
            with impatient():
                problem = _sent(journal, connect(uri)).problem
        except PeprError as error:
            problem = str(error)
        except _DAMAGED as error:
            problem = f"it cannot be read ({one_line(error)})"
        finally:
            journal.release()
        if problem is not None:
            note(f"journal: {journal.folder} waits to be sent ({problem})")


def _owes_only_extras(journal: Journal) -> bool:
    """Whether the run is complete but for extras that could not be stored, which `pepr sync` tries
    again: that can take long, and each later start would repeat it."""
    entries = [entry for _, entry in journal.entries()]
    named = any(NOT_STORED in entry.data.get("values", {}) for entry in entries)
    over = any(entry.kind == "end" for entry in entries)
    left = journal.pending().values()
    return named and over and len(left) > 0 and all(entry.kind in EXTRAS for entry in left)


def meant(uri: str) -> str:
    """The URI as a journal keeps it: from any folder, and without a password."""
    if uri.startswith(_SQLITE):
        return _SQLITE + os.path.abspath(uri.removeprefix(_SQLITE))
    if "://" not in uri:
        return os.path.abspath(uri)
    return address(uri)


def experiment_of(client: MlflowClient, head: Mapping[str, Any]) -> str:
    """Id of the experiment that a run is to be in, which is made when absent."""
    return head.get("experiment_id") or experiment_id(client, head["experiment"])


def create(client: MlflowClient, head: Mapping[str, Any]) -> Any:
    """MLflow's info of the new run of a journal.

    A server whose answer was lost on the way is asked again by MLflow, and makes another run.
    """
    from mlflow.exceptions import MlflowException

    experiment = experiment_of(client, head)
    tags = dict(head["tags"])
    if "id" in head:
        tags[_KEY] = head["id"]
    run = client.create_run(experiment, head["start_ms"], tags, head["name"])
    if "id" in head:
        with suppress(MlflowException):  # it has the run, which is what counts
            for twin in _begun(client, experiment, head["id"]):
                if twin.info.run_id != run.info.run_id:
                    client.delete_run(twin.info.run_id)
    return run.info


def _begun(client: MlflowClient, experiment: str, key: str) -> list[Any]:
    return list(client.search_runs([experiment], f"tags.`{_KEY}` = '{key}'"))


def _there(uri: str) -> str:
    """The URI, unless it is a SQLite file that is gone, which MLflow would make anew."""
    path = uri.removeprefix(_SQLITE)
    if uri.startswith(_SQLITE) and not os.path.exists(path):
        raise WorkFailed(f"tracking: {path} is not there any more; put it back")
    return uri


def _run_of(journal: Journal) -> str | None:
    """The run of a journal, None where no server has said it."""
    found = journal.head.get("run_id")
    for _, entry in journal.entries():
        found = entry.data["run_id"] if entry.kind == "begun" else found
    return found


def _sent(journal: Journal, client: MlflowClient) -> Synced:
    """Send the rest of a journal and delete it. Raises `WorkFailed`; what was sent is."""
    try:
        return _send_rest(journal, client)
    except _DAMAGED as error:
        raise WorkFailed(f"it cannot be read ({one_line(error)})") from error


def _send_rest(journal: Journal, client: MlflowClient) -> Synced:
    uri, head, pending = str(client.tracking_uri), journal.head, journal.pending()
    last_s = journal.last_s()
    over = any(entry.kind == "end" for _, entry in journal.entries())
    with _told(uri):
        run_id = _run_of(journal)
        if run_id is None:
            found = _begun(client, experiment_of(client, head), head["id"])
            if not found and not pending:
                journal.discard()
                return _synced(journal, uri, None, 0, None, None)
            run_id = (found[0].info if found else create(client, head)).run_id
            with suppress(OSError):  # the run says it too
                journal.add(0, Entry("begun", {"run_id": run_id}))
        run = client.get_run(run_id)
        process = head["process"]
        # Another process may have gone on with the run: the tags and the end are its to say.
        ours = _is_of(run, process)
        now = replace(claim(run), process=process)
        stale_s = ownership.STALE_S
        if now.heartbeat_s is None:  # of own code, which has none
            now, stale_s = replace(now, heartbeat_s=last_s), _SILENT_S
        if not over and ours and now.lives(time.time(), stale_s, is_alive):
            raise WorkFailed(f"its process may be at work on another machine: {process}")
        left, not_stored = dict(pending), {}
        for number, entry in sorted(pending.items(), key=lambda item: item[1].kind in EXTRAS):
            if ours or entry.kind not in OWNERS:
                try:
                    send(client, run_id, entry)
                except Exception as error:
                    if entry.kind not in EXTRAS:
                        raise
                    not_stored[name_of(entry)] = reason(error, uri)
                    if not isinstance(error, Unknown):
                        continue
            del left[number]
            with suppress(OSError):  # of a full disk: it would be sent again, if at all
                journal.sent(max(pending), but=left)
        run = client.get_run(run_id)  # somebody may have gone on with it meanwhile
        if not over and _is_of(run, process) and head.get("ours", True):
            _close(client, run, max(last_s, now.heartbeat_s or 0.0))
        if ours and any(entry.kind in EXTRAS for entry in pending.values()):
            send(client, run_id, not_stored_entry(not_stored))
        status = client.get_run(run_id).info.status
    sent = len(pending) - len(left)
    if left:
        return _synced(journal, uri, run_id, sent, status, listed(not_stored))
    journal.discard()
    return _synced(journal, uri, run_id, sent, status, None)


def _is_of(run: Any, process: str) -> bool:
    return bool(run.data.tags.get("pepr.process", process) == process)


def _close(client: MlflowClient, run: Any, last_s: float) -> None:
    """Say of a run whose process vanished, and was seen last at a time, what is true."""
    if run.info.status == "FINISHED":
        return
    if "pepr.reason" not in run.data.tags:
        client.set_tag(run.info.run_id, "pepr.reason", ownership.LOST)
        client.set_tag(run.info.run_id, "pepr.error", "its process vanished")
    if run.info.status == "RUNNING":
        client.set_terminated(run.info.run_id, "FAILED", int(last_s * 1000))


def _synced(
    journal: Journal,
    uri: str,
    run_id: str | None,
    entries: int,
    status: str | None,
    problem: str | None,
) -> Synced:
    name = str(journal.head.get("name", run_id))
    return Synced(journal.folder, name, address(uri), run_id, entries, status, problem)


@contextmanager
def _told(uri: str) -> Iterator[None]:
    """Errors as of `server.told`, with the reason `away` where the server was not there."""
    try:
        with told(uri):
            yield
    except WorkFailed as error:
        if error.__cause__ is not None and is_away(error.__cause__):
            raise WorkFailed(str(error), reason=_AWAY) from error
        raise
