"""From what a run logs to the tracking server, in order, however long the server is away.

What is logged is on the disk before `put` returns, and a thread sends it. Who logs waits until the
server has it, but not for one that is slow or away: the training goes on and the rest follows.
"""

from __future__ import annotations

import tempfile
import threading
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pepr_mlops.errors import WorkFailed, one_line
from pepr_mlops.journal import Entry, Journal
from pepr_mlops.processes import uninterrupted
from pepr_mlops.safe import address, secrets, without_password
from pepr_mlops.server import shortened, told

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from pepr_mlops.tracking.claims import Heart

_WAIT_S = 1.0  # for a server that answers; it takes milliseconds
_PAUSES_S = (1.0, 2.0, 5.0, 10.0)  # between tries at one that is away; the last one again and again
BUSY = "BAD_REQUEST"  # MLflow's code where its database has no connection left, among others
OWNERS = ("tags", "end")  # kinds of entry that are for who has the run to say
_AWAY = {401, 403, 408, 429}  # statuses below 500 that another try can change


class NoRoom(Exception):
    """A file cannot be sent, since MLflow sends those of a disk and this machine's has no room."""


class Link(threading.Thread):
    """Keeps the entries of one run and sends them.

    `client` None is no server, as of a run that is only kept. `note` is told in a line when the
    server goes away and comes back, and when the journal cannot be written. Once `heart` says that
    another process has the run, only what was measured is sent.
    """

    def __init__(
        self,
        client: MlflowClient | None,
        run_id: str,
        journal: Journal | None,
        note: Callable[[str], None],
        heart: Heart | None = None,
    ) -> None:
        super().__init__(daemon=True)
        self._client, self._run_id = client, run_id
        self._journal, self._tell, self._heart = journal, note, heart
        self._changed = threading.Condition()
        self._waiting: deque[tuple[int, Entry]] = deque()
        self._number = self._sent = 0
        self._whole = journal is not None  # every entry could be kept
        self._away = self._full = self._stopped = False
        self._refused: WorkFailed | None = None

    def put(self, kind: str, content: bytes | None = None, **data: Any) -> None:
        """Log an entry; raises `WorkFailed` once the server has refused one."""
        entry = Entry(kind, data, content)
        with uninterrupted(), self._changed:
            self._number += 1
            self._keep(entry)
            self._waiting.append((self._number, entry))
            self._changed.notify_all()
        with self._changed:
            self._changed.wait_for(
                lambda: self._client is None or self._away or self._refused or not self._waiting,
                _WAIT_S,
            )
        self._raise()

    def drain(self, patience_s: float) -> bool:
        """Wait until the server has everything, or has taken nothing for so long; whether it has.

        Raises `WorkFailed` as `put`.
        """
        if self._client is None:
            return False
        with self._changed:
            while self._waiting:
                before = self._sent
                if not self._changed.wait_for(lambda: self._sent > before, patience_s):  # noqa: B023
                    break
        self._raise()
        return not self._waiting

    def end(self) -> str | None:
        """Send no more, and let the journal go if the server has all of it.

        Returns where the rest is, in words, or None if there is none.
        """
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            rest = bool(self._waiting) or self._client is None
        if self._journal is None:
            return "nowhere" if rest else None
        if not rest:
            self._journal.discard()
            return None
        self._journal.release()
        return f"{'in' if self._whole else 'only partly in'} {self._journal.folder}"

    def run(self) -> None:
        failed = 0
        while self._client is not None:
            with self._changed:
                if failed:
                    pause_s = _PAUSES_S[min(failed, len(_PAUSES_S)) - 1]
                    self._changed.wait_for(lambda: self._stopped, pause_s)
                else:
                    self._changed.wait_for(lambda: self._stopped or self._waiting)
                if self._stopped:
                    return
            failed = 0 if self._send() else failed + 1

    def _keep(self, entry: Entry) -> None:
        if self._journal is None or not self._whole:
            return
        try:
            self._journal.add(self._number, entry)
        except OSError as error:
            self._whole = False
            self._note(
                f"journal: {self._journal.folder} cannot be written ({error.strerror}); what the "
                "tracking server does not take is lost when this process ends"
            )

    def _send(self) -> bool:
        """Send the next that waits; whether the server took or refused it."""
        assert self._client is not None
        _, entry = self._waiting[0]
        uri = str(self._client.tracking_uri)
        try:
            with told(uri):
                if self._heart is not None and self._away:
                    self._heart.look()  # meanwhile others may have given this process up
                if self._heart is None or not self._heart.taken or entry.kind not in OWNERS:
                    send(self._client, self._run_id, entry)
        except NoRoom as error:
            return self._put_off(error)
        except Exception as error:  # stores of files have errors of their own
            cause = error.__cause__ if isinstance(error, WorkFailed) else error
            if not isinstance(error, WorkFailed) or is_away(cause):
                self._tell_away(uri, cause)
                return False
            self._refused = error
        if self._away:
            self._away = False
            self._note(f"tracking: {address(uri)} answers again")
        with self._changed:
            self._waiting.popleft()
            first = min((waiting for waiting, _ in self._waiting), default=self._number + 1)
            if self._journal is not None and not self._stopped:
                with suppress(OSError):  # it would be sent again, which changes nothing
                    self._journal.sent(first - 1)
            self._sent += 1
            self._changed.notify_all()
        return True

    def _put_off(self, error: NoRoom) -> bool:
        """Let what needs no room on this disk go first, the end of the run too."""
        with self._changed:
            self._waiting.rotate(-1)
            nothing_else = all(entry.content is not None for _, entry in self._waiting)
        if not self._full:
            self._full = True
            self._note(f"tracking: {error}; it is tried again, and is lost if that stays so")
        return not nothing_else

    def _tell_away(self, uri: str, error: BaseException | None) -> None:
        if self._away:
            return
        with self._changed:
            self._away = True
            self._changed.notify_all()
        why = shortened(without_password(str(error), *secrets(uri)))
        self._note(
            f"tracking: {address(uri)} does not answer ({why}); the work goes on and is logged "
            "when it answers again"
        )

    def _note(self, line: str) -> None:
        with suppress(Exception):  # of whoever listens, such as of warnings that are errors
            self._tell(line)

    def _raise(self) -> None:
        refused, self._refused = self._refused, None
        if refused is not None:
            raise refused


def send(client: MlflowClient, run_id: str, entry: Entry) -> None:
    """Send one entry of a run. To send it twice changes nothing. Raises `NoRoom`, and what MLflow
    does."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

    data = entry.data
    if entry.kind == "metrics":
        points = [Metric(k, v, data["time_ms"], data["step"]) for k, v in data["values"].items()]
        client.log_batch(run_id, metrics=points)
    elif entry.kind == "tags":
        client.log_batch(run_id, tags=[RunTag(k, v) for k, v in data["values"].items()])
    elif entry.kind == "params":
        there = client.get_run(run_id).data.params
        new = [Param(k, v) for k, v in data["values"].items() if k not in there]
        client.log_batch(run_id, params=new)
    elif entry.kind == "inputs":
        inputs = [
            DatasetInput(Dataset(**i["dataset"]), [InputTag("mlflow.data.context", i["context"])])
            for i in data["inputs"]
        ]
        client.log_inputs(run_id, datasets=inputs)
    elif entry.kind == "file" and entry.content is not None:  # it goes once the server has it
        with ExitStack() as room:
            try:
                path = Path(room.enter_context(tempfile.TemporaryDirectory())) / data["name"]
                path.write_bytes(entry.content)
            except OSError as error:
                raise NoRoom(f"{data['name']} cannot be sent ({one_line(error)})") from error
            client.log_artifact(run_id, str(path))
    elif entry.kind == "end":
        client.set_terminated(run_id, data["status"], data["time_ms"])


def is_away(error: BaseException | None) -> bool:
    """Whether another try may succeed, since the server or what it needs was not there."""
    from mlflow.exceptions import MlflowException
    from requests import HTTPError

    if isinstance(error, MlflowException):
        if error.error_code == BUSY:
            return True
        status = int(error.get_http_status_code())
    elif isinstance(error, HTTPError) and error.response is not None:  # of artifacts
        status = error.response.status_code
    else:
        return True
    return status >= 500 or status in _AWAY
