"""Sends what a run logs to the tracking server, however long the server is away.

An entry is in the journal before `put` returns, and a thread sends it. `put` waits until the server
has it, but not for a server that is slow or away: training continues and the rest is sent later.
Metrics, tags, parameters and the end of a run are sent in order. Extras, which are files and
descriptions of data, are sent when nothing else waits: one that cannot be stored holds up nothing,
and the tag `pepr.not_stored` names it.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pepr_mlops.errors import WorkFailed, one_line
from pepr_mlops.process import uninterrupted
from pepr_mlops.text import address, secrets
from pepr_mlops.tracking import claims
from pepr_mlops.tracking.experiments import TAG_LIMIT
from pepr_mlops.tracking.journal import FOLDER, Entry, Journal, room
from pepr_mlops.tracking.server import cause_of, translated_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from pepr_mlops.tracking.claims import Heartbeat

_WAIT_S = 1.0  # for a server that answers; it takes milliseconds
_PAUSES_S = (1.0, 2.0, 5.0, 10.0)  # between tries at one that is away; the last one repeats
BUSY = "BAD_REQUEST"  # MLflow's code where its database has no connection left, among others
# Kinds of entry that only the process of the run may send.
OWNERS = ("tags", "untag", "attempt", "end", FOLDER)
EXTRAS = ("file", FOLDER, "inputs")  # kinds of entry that the results do not depend on
NOT_STORED = "pepr.not_stored"
_EXTRAS_PATIENCE_S = 5.0  # at the end of a run, for extras that a retry may still deliver
_SLOWEST_BYTES_PER_S = 1e6  # of a connection over which large files are waited for
_NO_CALL = "ENDPOINT_NOT_FOUND"  # MLflow's code for a 404 without an error of its own server
_INPUTS_SINCE = "2.4"  # https://mlflow.org/docs/latest/ml/dataset/
_FOR_GOOD = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR}
_AWAY = {401, 403, 408, 429}  # statuses below 500 that another try can change


class DiskFull(Exception):
    """MLflow sends files from a disk only, and the temporary folder has no room."""


class ServerTooOld(Exception):
    """The server does not know a call."""


class Outbox(threading.Thread):
    """Saves the entries of one run and sends them.

    Without a `client` entries are only saved. `note` gets a line when the server goes away and
    comes back, and when the journal cannot be written. Once `heartbeat` finds that another process
    has taken the run, only measurements are sent.
    """

    def __init__(
        self,
        client: MlflowClient | None,
        run_id: str,
        journal: Journal | None,
        note: Callable[[str], None],
        heartbeat: Heartbeat | None = None,
    ) -> None:
        super().__init__(daemon=True)
        self._client, self._run_id = client, run_id
        self.journal, self._warn, self._heartbeat = journal, note, heartbeat
        self._changed = threading.Condition()
        self._waiting: dict[int, Entry] = {}
        self._tries: dict[int, int] = {}  # failed ones of each entry
        self._again_s = 0.0  # time.monotonic() of the next try
        self._refused_extras: set[int] = set()  # `pepr sync` tries these again
        self._not_stored: dict[str, str] = {}  # name of an extra: why
        self._number = 0 if journal is None else journal.last()
        self._sent = 0
        self._complete = journal is not None  # every entry could be saved
        self._away = self._stopped = False
        self._refused: Exception | None = None
        self._scratch = ExitStack()

    def room(self, name: str) -> Path:
        """An empty folder on this disk for the files of the entry `name`: in the journal, else a
        temporary one. It is deleted when the server has them. Raises `OSError`."""
        if self.journal is not None and self._complete:
            place = self.journal.folder
        else:
            place = Path(self._scratch.enter_context(tempfile.TemporaryDirectory()))
        folder = room(place, name)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        return folder

    def put(
        self, kind: str, content: bytes | None = None, files: Path | None = None, **data: Any
    ) -> None:
        """Log an entry; raises `WorkFailed` once the server has refused one that is no extra, and
        `OSError` where one with a folder of files cannot be saved: its files are deleted, which
        leaves room for other entries."""
        with uninterrupted(), self._changed:  # a signal could leave the lock held
            number = self._add(Entry(kind, data, content, files))
            self._changed.wait_for(
                lambda: (
                    self._client is None
                    or self._away
                    or self._refused
                    or number not in self._waiting
                    or number in self._tries
                    or number in self._refused_extras
                ),
                _WAIT_S,
            )
        self._raise()

    def drain(self, patience_s: float) -> bool:
        """Wait until the server has all but refused extras. Returns whether it has these too.

        Gives up after `patience_s` in which the server took nothing (where only extras wait, after
        some seconds and the time of a slow upload). Raises `WorkFailed` as `put`.
        """
        if self._client is None:
            return False
        sent, since_s = -1, time.monotonic()
        while True:
            with uninterrupted(), self._changed:  # not around the loop, which may be interrupted
                if not self._waiting.keys() - self._refused_extras:
                    break
                if self._sent > sent:
                    sent, since_s = self._sent, time.monotonic()
                    self._again_s = 0.0
                    self._changed.notify_all()
                extras = all(entry.kind in EXTRAS for entry in self._waiting.values())
                longest_s = patience_s
                if extras and patience_s:
                    longest_s = min(patience_s, _EXTRAS_PATIENCE_S) + self._upload_s()
                left_s = since_s + longest_s - time.monotonic()
                if left_s <= 0:
                    break
                self._changed.wait(min(left_s, _WAIT_S))
        self._raise()
        return not self._waiting

    def end(self) -> str | None:
        """Send no more, and delete the journal if the server has all of it.

        Returns where the rest is, as text, or None if there is none.
        """
        with uninterrupted(), self._changed:
            self._stopped = True
            self._changed.notify_all()
            rest = bool(self._waiting) or self._client is None
        self._scratch.close()
        if self.journal is None:
            return "nowhere" if rest else None
        if not rest:
            self.journal.discard()
            return None
        self.journal.release()
        return f"{'in' if self._complete else 'only partly in'} {self.journal.folder}"

    def run(self) -> None:
        while self._client is not None:
            with self._changed:
                while not self._stopped:
                    number = self._next()
                    pause_s = self._again_s - time.monotonic()
                    # After an extra failed the others need not wait.
                    if number is not None and (
                        pause_s <= 0
                        or (not self._away and self._waiting[number].kind not in EXTRAS)
                    ):
                        break
                    self._changed.wait(None if number is None else pause_s)
                if self._stopped:
                    return
            assert number is not None
            if not self._send(number):
                with self._changed:
                    tries = self._tries[number] = self._tries.get(number, 0) + 1
                    self._again_s = time.monotonic() + _PAUSES_S[min(tries, len(_PAUSES_S)) - 1]
                    self._changed.notify_all()

    def _upload_s(self) -> float:
        """Seconds that large files may take which were not tried before."""
        new = self._waiting.keys() - self._tries.keys() - self._refused_extras
        sizes: list[int] = [self._waiting[n].data.get("bytes", 0) for n in new]
        return sum(sizes) / _SLOWEST_BYTES_PER_S

    def _next(self) -> int | None:
        """The entry to send next: where only extras wait, the one that was tried least often."""
        first = next((n for n, entry in self._waiting.items() if entry.kind not in EXTRAS), None)
        left = self._waiting.keys() - self._refused_extras
        return first or min(left, key=lambda n: (self._tries.get(n, 0), n), default=None)

    def _add(self, entry: Entry) -> int:
        with self._changed:
            self._number += 1
            if self.journal is not None and self._complete:
                try:
                    self.journal.add(self._number, entry)
                except OSError as error:
                    if entry.kind == FOLDER:
                        entry.free()
                        raise
                    self._complete = False
                    self._note(
                        f"journal: {self.journal.folder} cannot be written ({error.strerror}); "
                        "what the tracking server does not take is lost when this process ends"
                    )
            self._waiting[self._number] = entry
            self._changed.notify_all()
            return self._number

    def _send(self, number: int) -> bool:
        """Send an entry; False where it has to be tried again."""
        assert self._client is not None
        entry = self._waiting[number]
        uri = str(self._client.tracking_uri)
        try:
            with translated_errors(uri):
                if self._heartbeat is not None and self._away:
                    self._heartbeat.poll()  # another process may have taken the run meanwhile
                if self._heartbeat is None or not self._heartbeat.taken or entry.kind not in OWNERS:
                    send(self._client, self._run_id, entry)
                    if entry.kind == "end":
                        self._heartbeat = None  # it would see the end as another process's
        except Exception as error:  # stores of files have errors of their own
            cause = (error.__cause__ or error) if isinstance(error, WorkFailed) else error
            if entry.kind in EXTRAS:
                return self._put_off(number, entry, cause)
            if is_away(cause):
                with self._changed:
                    went, self._away = not self._away, True
                    self._changed.notify_all()
                if went:
                    self._note(
                        f"tracking: {address(uri)} does not answer ({reason(cause, uri)}); the "
                        "work continues and is logged when it answers again"
                    )
                return False
            self._refused = error
        else:
            if entry.kind in EXTRAS and self._not_stored.pop(name_of(entry), None) is not None:
                self._tag_not_stored()
        if self._away:
            self._away = False
            self._note(f"tracking: {address(uri)} answers again")
        self._done(number)
        return True

    def _done(self, number: int) -> None:
        """Do not send an entry again; the journal keeps an extra that was refused."""
        with self._changed:
            entry = self._waiting[number]
            if number not in self._refused_extras:
                del self._waiting[number]
            if self.journal is not None and not self._stopped:
                with suppress(OSError):  # it would be sent again, which changes nothing
                    self.journal.sent(self._number, but=self._waiting)
            if number not in self._waiting:
                entry.free()
            self._sent += 1
            self._changed.notify_all()

    def _put_off(self, number: int, entry: Entry, error: BaseException) -> bool:
        """Name an extra that could not be sent; False where it has to be tried again."""
        assert self._client is not None
        name, why = name_of(entry), reason(error, str(self._client.tracking_uri))
        again, too_old = may_pass(error), isinstance(error, ServerTooOld)
        if name not in self._not_stored:
            then = "it is tried again" if again else "`pepr sync` tries again"
            then = "the run continues without" if too_old else then
            self._note(f"tracking: {name} cannot be stored ({why}); {then}")
            self._not_stored[name] = why
            self._tag_not_stored()
        if again:
            return False
        if not too_old:
            self._refused_extras.add(number)
        self._done(number)
        return True

    def _tag_not_stored(self) -> None:
        with self._changed:
            if not self._stopped:  # else `unsent` does, which sends the rest of the journal
                self._add(not_stored_entry(self._not_stored))

    def _note(self, line: str) -> None:
        with suppress(Exception):  # of the caller's function, such as of warnings that are errors
            self._warn(line)

    def _raise(self) -> None:
        refused, self._refused = self._refused, None
        if refused is not None:
            raise refused


def send(client: MlflowClient, run_id: str, entry: Entry) -> None:
    """Send one entry of a run. To send it twice changes nothing.

    Raises `DiskFull`, `ServerTooOld` and what MLflow does.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
    from mlflow.exceptions import MlflowException

    data = entry.data
    if entry.kind == "metrics":
        points = [Metric(k, v, data["time_ms"], data["step"]) for k, v in data["values"].items()]
        client.log_batch(run_id, metrics=points)
    elif entry.kind == "tags":
        client.log_batch(run_id, tags=[RunTag(k, v) for k, v in data["values"].items()])
    elif entry.kind == "untag":
        if data["name"] in client.get_run(run_id).data.tags:
            client.delete_tag(run_id, data["name"])
    elif entry.kind == "params":
        there = client.get_run(run_id).data.params
        new = [Param(k, v) for k, v in data["values"].items() if k not in there]
        client.log_batch(run_id, params=new)
    elif entry.kind == "inputs":
        inputs = [
            DatasetInput(Dataset(**i["dataset"]), [InputTag("mlflow.data.context", i["context"])])
            for i in data["inputs"]
        ]
        try:
            client.log_inputs(run_id, datasets=inputs)
        except MlflowException as error:
            if error.error_code != _NO_CALL:
                raise
            client.get_run(run_id)  # a proxy whose server is away answers as an old server does
            raise ServerTooOld(f"the server is older than MLflow {_INPUTS_SINCE}") from error
    elif entry.kind == "file" and entry.content is not None:  # None once the server has it
        with ExitStack() as stack:
            try:
                path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / data["name"]
                path.write_bytes(entry.content)
            except OSError as error:
                raise DiskFull(f"no room in {tempfile.gettempdir()}: {one_line(error)}") from error
            client.log_artifact(run_id, str(path), data.get("folder"))
    elif entry.kind == FOLDER and entry.files is not None:
        for name in data["names"]:
            client.log_artifact(run_id, str(entry.files / name), data["name"])
        client.log_batch(run_id, tags=[RunTag(k, v) for k, v in data["tags"].items()])
    elif entry.kind == "attempt":
        claims.resume(client, run_id, data["tags"])
    elif entry.kind == "end":
        client.set_terminated(run_id, data["status"], data["time_ms"])


def name_of(entry: Entry) -> str:
    """The name of an extra for people."""
    return str(entry.data.get("name", "dataset inputs"))


def not_stored_entry(not_stored: Mapping[str, str]) -> Entry:
    """An entry that sets the tag `pepr.not_stored` to names and reasons, or removes it."""
    if not not_stored:
        return Entry("untag", {"name": NOT_STORED})
    return Entry("tags", {"values": {NOT_STORED: listed(not_stored)[:TAG_LIMIT]}})


def listed(not_stored: Mapping[str, str]) -> str:
    """Names and reasons, those with the same reason together."""
    names = {
        why: ", ".join(name for name, other in not_stored.items() if other == why)
        for why in not_stored.values()
    }
    return "; ".join(f"{text} ({why})" for why, text in names.items())


def reason(error: BaseException, uri: str) -> str:
    """Why a server did not take an entry, in one line without passwords."""
    return cause_of(error, *secrets(uri))


def is_away(error: BaseException) -> bool:
    """Whether another try may succeed, since the server or something it needs was not there."""
    from mlflow.exceptions import MlflowException
    from requests import HTTPError

    if isinstance(error, MlflowException):
        if error.error_code in (BUSY, _NO_CALL):
            return True
        status = int(error.get_http_status_code())
    elif isinstance(error, HTTPError) and error.response is not None:  # of artifacts
        status = error.response.status_code
    else:
        return True
    return status >= 500 or status in _AWAY


def may_pass(error: BaseException) -> bool:
    """Whether another try of an extra may succeed soon.

    Not where a person has to help: a folder that may not be written, missing credentials or driver.
    """
    for_good = (
        isinstance(error, ServerTooOld | ImportError) or "Credentials" in type(error).__name__
    )
    return not for_good and is_away(error) and getattr(error, "errno", None) not in _FOR_GOOD
