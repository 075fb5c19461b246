"""Sends the journals of runs that have ended and of offline runs, also while these run.

`pepr sync`, every new run and a sweep that waits for its jobs do it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pepr_mlops.errors import PeprError, WorkFailed, one_line
from pepr_mlops.process import is_alive
from pepr_mlops.text import address
from pepr_mlops.tracking import journal as journals
from pepr_mlops.tracking import ownership
from pepr_mlops.tracking.claims import claim, resume
from pepr_mlops.tracking.experiments import experiment_id
from pepr_mlops.tracking.journal import Entry, Journal, ended
from pepr_mlops.tracking.offline import beat_s, is_running, process_of
from pepr_mlops.tracking.outbox import (
    EXTRAS,
    NOT_STORED,
    OWNERS,
    ServerTooOld,
    is_away,
    listed,
    name_of,
    not_stored_entry,
    reason,
    send,
)
from pepr_mlops.tracking.server import (
    connect,
    enduring,
    impatient,
    resolved,
    sqlite_path,
    translated_errors,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

_KEY = "pepr.journal"
_SQLITE = "sqlite:///"
_AWAY = "away"
_DAMAGED = (OSError, KeyError, TypeError, ValueError)  # what reading a damaged folder raises
_SILENT_S = 86400.0  # no epoch takes longer


@dataclass(frozen=True)
class Synced:
    """A journal after `sync`: how many entries the server took, and the status of its run now.

    `problem` says why the rest is still in `folder`; None: all was sent and the folder deleted.
    `run_id` is None for a run that was never created on the server.
    """

    folder: Path
    name: str
    uri: str
    run_id: str | None
    entries: int
    status: str | None
    problem: str | None


def sync(tracking_uri: str | None = None) -> Iterator[Synced]:
    """Send the journals of runs that have ended and those of offline runs, each to the server its
    run is on.

    An offline run goes to `tracking_uri`, or if None to the server it was started for. Journals
    contain no password: it is that of `tracking_uri` or MLflow's own where these name the server.
    A run whose process vanished becomes FAILED.
    """
    known = [uri for uri in (tracking_uri, resolved(None)) if uri is not None]
    away: dict[str, str] = {}
    for journal in journals.unsent():
        uri = _uri_of(journal)
        if tracking_uri is not None and _run_of(journal) is None:
            uri = portable(tracking_uri)
        uri = next((full for full in known if portable(full) == uri), uri)
        try:
            if uri in away:
                raise WorkFailed(away[uri])
            path = sqlite_path(uri)
            if _run_of(journal) and path is not None and not os.path.exists(path):
                raise WorkFailed(f"tracking: {path} is not there any more; put it back")
            if _is_complete(journal):
                continue
            with enduring():
                found = _send_rest(journal, connect(uri))
            if found.entries or found.status != "RUNNING":
                yield found
        except PeprError as error:  # the others may be of other servers
            if error.reason == _AWAY:
                away[uri] = str(error)
            yield _synced(journal, uri, _run_of(journal), problem=str(error))
        finally:
            journal.release()


def catch_up(tracking_uri: str | None, note: Callable[[str], None] = lambda line: None) -> None:
    """Send the journals of this server, and `note` those that cannot be."""
    uri = resolved(tracking_uri)
    here = portable(uri)
    for journal in journals.unsent():
        try:
            if _uri_of(journal) != here or _lacks_only_extras(journal) or _is_complete(journal):
                continue
            with impatient():
                problem = _send_rest(journal, connect(uri)).problem
        except PeprError as error:
            problem = str(error)
        except _DAMAGED as error:
            problem = f"it cannot be read ({one_line(error)})"
        finally:
            journal.release()
        if problem is not None:
            note(f"journal: {journal.folder} waits to be sent ({problem})")


def _lacks_only_extras(journal: Journal) -> bool:
    """Whether only extras that could not be stored are missing. Only `pepr sync` tries these again:
    it can take long, and each later start would repeat it."""
    entries = [entry for _, entry in journal.entries()]
    named = any(NOT_STORED in entry.data.get("values", {}) for entry in entries)
    ended = any(entry.kind == "end" for entry in entries)
    rest = journal.pending().values()
    return named and ended and len(rest) > 0 and all(entry.kind in EXTRAS for entry in rest)


def _is_complete(journal: Journal) -> bool:
    """Whether the server has all of an offline run that has ended, but may be continued."""
    closed = ended(journal.folder) is not None or journal.closed() == process_of(journal)
    return journal.head.get("resumable", False) and closed and not journal.pending()


def portable(uri: str) -> str:
    """The URI as a journal contains it: valid in any folder, and without a password."""
    if uri.startswith(_SQLITE):
        return _SQLITE + os.path.abspath(uri.removeprefix(_SQLITE))
    if "://" not in uri:
        return os.path.abspath(uri)
    return address(uri)


def experiment_of(client: MlflowClient, head: Mapping[str, Any]) -> str:
    """Id of the experiment of a new run, which is created when absent."""
    return head.get("experiment_id") or experiment_id(client, head["experiment"])


def create(client: MlflowClient, head: Mapping[str, Any]) -> Any:
    """Create the run of a journal and return MLflow's info of it.

    When the answer of a server is lost, MLflow repeats the request and makes a second run, which is
    deleted.
    """
    from mlflow.exceptions import MlflowException

    experiment = experiment_of(client, head)
    tags = dict(head["tags"])
    if "id" in head:
        tags[_KEY] = head["id"]
    run = client.create_run(experiment, head["start_ms"], tags, head["name"])
    if "id" in head:
        with suppress(MlflowException):  # the run itself exists
            for twin in _created(client, experiment, head["id"]):
                if twin.info.run_id != run.info.run_id:
                    client.delete_run(twin.info.run_id)
    return run.info


def _created(client: MlflowClient, experiment: str, key: str) -> list[Any]:
    return list(client.search_runs([experiment], f"tags.`{_KEY}` = '{key}'"))


def _run_of(journal: Journal) -> str | None:
    """The id of a journal's run, None before it was created on a server."""
    if begun := journal.begun():
        return begun["run_id"]
    ids = [entry.data["run_id"] for _, entry in journal.entries() if entry.kind == "begun"]
    return ids[-1] if ids else journal.head.get("run_id")


def _uri_of(journal: Journal) -> str:
    """The server of a journal's run, as `portable`."""
    return str(journal.begun().get("uri", journal.head.get("uri")))


def _send_rest(journal: Journal, client: MlflowClient) -> Synced:
    """Send the rest of a journal and delete it.

    Raises `WorkFailed`, with the reason `away` where the server was away.
    """
    try:
        # First, since a run that ends now has entries that are not among the pending ones.
        running = journal.head.get("offline", False) and is_running(journal)
        pending, last_s = journal.pending(), journal.last_s()
        running = running and not _ends(pending)  # it may have ended just before `pending`
        with translated_errors(client):
            return _send_and_close(journal, client, pending, last_s, running)
    except WorkFailed as error:
        if error.__cause__ is not None and is_away(error.__cause__):
            raise WorkFailed(str(error), reason=_AWAY) from error
        raise
    except _DAMAGED as error:
        raise WorkFailed(f"it cannot be read ({one_line(error)})") from error


def _send_and_close(
    journal: Journal, client: MlflowClient, pending: dict[int, Entry], last_s: float, running: bool
) -> Synced:
    uri, process = str(client.tracking_uri), process_of(journal)
    offline = journal.head.get("offline", False)
    # An offline run without entries may hold its job: only what is FINISHED may be deleted.
    run_id = _run_of(journal) or _found_or_created(journal, client, offline or bool(pending))
    if run_id is None:
        journal.discard()
        return _synced(journal, uri, None)
    run = client.get_run(run_id)
    # Another process may have continued the run: its tags and its end are no longer ours.
    ours = offline or _is_of(run, process)
    vanished = not running and ended(journal.folder) is None
    if vanished and ours and not offline and _may_work(run, process, last_s):
        raise WorkFailed(f"its process may be running on another machine: {process}")
    left, not_stored = _send_entries(journal, client, run_id, pending, ours)
    run = client.get_run(run_id)  # another process may have continued it meanwhile
    if running:
        _show_alive(client, run, beat_s(journal))
    elif vanished and _is_of(run, process) and journal.head.get("ours", True):
        _close(client, run, max(last_s, claim(run).heartbeat_s or 0.0))
        journal.close(process)
    if ours and any(entry.kind in EXTRAS for entry in pending.values()):
        send(client, run_id, not_stored_entry(not_stored))
    status, sent = client.get_run(run_id).info.status, len(pending) - len(left)
    if left:
        return _synced(journal, uri, run_id, sent, status, listed(not_stored))
    if not running and (status == "FINISHED" or not journal.head.get("resumable")):
        journal.discard()
    return _synced(journal, uri, run_id, sent, status)


def _ends(pending: Mapping[int, Entry]) -> bool:
    """Whether entries of a run end it, and no later attempt continues it."""
    kinds = [entry.kind for entry in pending.values() if entry.kind in ("end", "attempt")]
    return kinds[-1:] == ["end"]


def _may_work(run: Any, process: str, last_s: float) -> bool:
    """Whether the process of a run may still work on another machine."""
    now, stale_s = replace(claim(run), process=process), ownership.STALE_S
    if now.heartbeat_s is None:  # an own loop sends none
        now, stale_s = replace(now, heartbeat_s=last_s), _SILENT_S
    return now.is_alive(time.time(), stale_s, is_alive)


def _show_alive(client: MlflowClient, run: Any, heartbeat_s: float | None) -> None:
    """Give an offline run the sign of life that its process cannot send."""
    if run.info.status != "RUNNING":  # it was silent so long that others closed it
        resume(client, run.info.run_id, {})
    if heartbeat_s is not None:
        client.set_tag(run.info.run_id, "pepr.heartbeat", str(int(heartbeat_s * 1000)))


def _found_or_created(journal: Journal, client: MlflowClient, create_one: bool) -> str | None:
    """The id of a run that the journal does not name, None where nothing was logged to one."""
    head = journal.head
    found = _created(client, experiment_of(client, head), head["id"])
    if not found and not create_one:
        return None
    run_id: str = (found[0].info if found else create(client, head)).run_id
    with suppress(OSError):  # the tag of the run names the journal, too
        journal.begin(run_id, portable(str(client.tracking_uri)))
    return run_id


def _send_entries(
    journal: Journal, client: MlflowClient, run_id: str, pending: Mapping[int, Entry], ours: bool
) -> tuple[dict[int, Entry], dict[str, str]]:
    """Send entries, extras last: which are left, and why extras could not be stored."""
    left, not_stored = dict(pending), {}
    for number, entry in sorted(pending.items(), key=lambda item: item[1].kind in EXTRAS):
        if ours or entry.kind not in OWNERS:
            try:
                send(client, run_id, entry)
            except Exception as error:
                if entry.kind not in EXTRAS:
                    raise
                not_stored[name_of(entry)] = reason(error, str(client.tracking_uri))
                if not isinstance(error, ServerTooOld):
                    continue
        del left[number]
        entry.free()
        with suppress(OSError):  # of a full disk: it is sent again, which changes nothing
            journal.sent(max(pending), but=left)
    return left, not_stored


def _is_of(run: Any, process: str) -> bool:
    return bool(run.data.tags.get("pepr.process", process) == process)


def _close(client: MlflowClient, run: Any, last_s: float) -> None:
    """End a run whose process vanished and last logged at `last_s`, seconds since 1970."""
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
    entries: int = 0,
    status: str | None = None,
    problem: str | None = None,
) -> Synced:
    name = str(journal.head.get("name", run_id))
    return Synced(journal.folder, name, address(uri), run_id, entries, status, problem)
