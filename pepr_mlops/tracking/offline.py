"""Runs without a server: which process may do a job, decided by files on a disk that all share.

The n-th claim on a job is the file `NAME.n`, linked to its content, which only one process can do
(link(2), on NFS too). Its process touches the newest one as a heartbeat. NAME is the job, so that
it is done once, or else the run, so that it is continued by one process.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout

from pepr_mlops.errors import Claimed, WorkFailed
from pepr_mlops.process import is_alive, this_process
from pepr_mlops.tracking import journal as journals
from pepr_mlops.tracking import ownership
from pepr_mlops.tracking.claims import Attempt, job_tags
from pepr_mlops.tracking.journal import Entry, Journal
from pepr_mlops.tracking.ownership import Claim

_CLAIMS = ".claims"  # a folder among the journals, which are not hidden
_PREFIX = "journal "  # before the id of a journal, where others have the id of a run


@dataclass(frozen=True)
class Begun:
    """An attempt without a server, as `tracking.Run` describes attempts."""

    journal: Journal
    attempt: int
    earlier: Mapping[str, str]
    heartbeat: DiskHeartbeat


class DiskHeartbeat(threading.Thread):
    """Touches the newest claim on a job; `taken` once there is a newer one."""

    def __init__(self, claim: Path) -> None:
        super().__init__(daemon=True)
        self._claim, self._ended = claim, threading.Event()
        self.taken = False

    def run(self) -> None:
        while not self._ended.wait(ownership.HEARTBEAT_S):
            with suppress(OSError):  # a disk that is away
                self.poll()
                os.utime(self._claim)

    def poll(self) -> None:
        """Look who has the job."""
        self.taken = self.taken or _newest(self._claim.parent, self._claim.stem) != self._claim

    def stop(self) -> None:
        self._ended.set()


def begin_offline(uri: str, head: Mapping[str, Any], job: Attempt | None) -> Begun:
    """Begin a run in a new journal, or continue that of an earlier attempt.

    Raises `Claimed` as of `job`, and `WorkFailed` where no journal can be written.
    """
    continued = None if job is None else job.continues
    journal = None
    try:
        if continued is None:
            about = {"uri": uri, "process": this_process(), "offline": True}
            saved = job is not None and job.saved
            journal = Journal.create({**about, "resumable": saved, **head})
        else:
            journal = Journal.reopen(continued.removeprefix(_PREFIX))
        earlier, attempts = _earlier(journal)
        claim = _claim(journal, job)
    except (Claimed, OSError) as error:
        if journal is not None:
            (journal.discard if continued is None else journal.release)()
        if isinstance(error, Timeout):
            raise Claimed(f"offline: {continued} is used by another process") from error
        if isinstance(error, OSError):
            raise WorkFailed(
                f"offline: the run cannot be saved in {journals.home()} ({error.strerror}); set "
                "PEPR_JOURNAL to another folder"
            ) from error
        raise
    about = {"process": this_process(), "claim": str(claim.relative_to(journals.home()))}
    journal.add(0, Entry("claim", about))
    if continued is not None:
        assert job is not None
        tags = {**job_tags(job), "pepr.attempts": str(attempts + 1)}
        journal.add(journal.last() + 1, Entry("attempt", {"tags": tags}))
    return Begun(journal, attempts + 1, earlier, DiskHeartbeat(claim))


def journal_name(journal: Journal) -> str:
    """What a checkpoint names the run of a journal by."""
    return _PREFIX + str(journal.head["id"])


def is_journal(name: str) -> bool:
    """Whether a name is one of `journal_name`, not the id of a run on a server."""
    return name.startswith(_PREFIX)


def has_journal(name: str) -> bool:
    """Whether the journal with this name is on this disk."""
    return is_journal(name) and journals.exists(name.removeprefix(_PREFIX))


def is_running(journal: Journal) -> bool:
    """Whether a process works on an offline run, as far as one can know from here."""
    beat = beat_s(journal) or journal.last_s()
    latest = Claim("", "RUNNING", None, process_of(journal), beat)
    alive = latest.is_alive(time.time(), ownership.STALE_S, is_alive) or journal.is_written()
    return journals.ended(journal.folder) is None and alive


def beat_s(journal: Journal) -> float | None:
    """When the process of a journal last touched its claim, in seconds since 1970."""
    with suppress(OSError, KeyError):
        return (journals.home() / _latest(journal)["claim"]).stat().st_mtime
    return None


def process_of(journal: Journal) -> str:
    """The process of the latest attempt at the run of a journal."""
    return str(_latest(journal)["process"])


def delivered() -> set[str]:
    """The jobs that are done here and whose run a server has, by fingerprint."""
    claimed = {path.stem for path in (journals.home() / _CLAIMS).glob("*.*")}
    newest = {name: _newest(journals.home() / _CLAIMS, name) for name in claimed}
    return {
        name
        for name, claim in newest.items()
        if claim is not None and not (journals.home() / _read(claim)["journal"]).is_dir()
    }


def forget(fingerprints: Iterable[str]) -> None:
    """Let jobs of `delivered` be done again, since their runs were deleted on the server."""
    for fingerprint in fingerprints:
        claim = _newest(journals.home() / _CLAIMS, fingerprint)
        if claim is not None:
            _link({"journal": "", "process": ""}, _after(claim))


def _claim(journal: Journal, job: Attempt | None) -> Path:
    """Make the newest claim. Raises `Claimed` where another process does the job or has done it."""
    folder, name, stale_s = journal.folder, "claim", ownership.STALE_S
    if job is not None and job.exclusive:
        folder, name, stale_s = journals.home() / _CLAIMS, job.spec, job.stale_s
        folder.mkdir(mode=0o700, exist_ok=True)
    while True:
        newest = _newest(folder, name)
        if newest is not None and (why := _holds(newest, stale_s)) is not None:
            raise Claimed(f"offline: {why} (claimed by {newest})")
        own = folder / f"{name}.1" if newest is None else _after(newest)
        if _link({"journal": journal.head["id"], "process": this_process()}, own):
            return own


def _holds(claim: Path, stale_s: float) -> str | None:
    """Why no other process may do the job of a claim, or None."""
    found = _read(claim)
    if not found["journal"]:
        return None
    folder = journals.home() / found["journal"]
    status = journals.ended(folder)
    if not folder.is_dir() or status == "FINISHED":
        return "another run has done this job; `pepr sync` delivers it, or says why it cannot"
    if status is not None:
        return None
    held = Claim(claim.name, "RUNNING", None, found["process"], claim.stat().st_mtime)
    alive = held.is_alive(time.time(), stale_s, is_alive)
    return "another process does this job" if alive else None


def _newest(folder: Path, name: str) -> Path | None:
    found = (path for path in folder.glob(f"{name}.*") if path.suffix[1:].isdecimal())
    return max(found, key=lambda path: int(path.suffix[1:]), default=None)


def _after(claim: Path) -> Path:
    return claim.with_suffix(f".{int(claim.suffix[1:]) + 1}")


def _read(claim: Path) -> dict[str, str]:
    return {str(k): str(v) for k, v in json.loads(claim.read_text()).items()}


def _link(content: Mapping[str, str], claim: Path) -> bool:
    """Make a claim; False where another process has just made it."""
    descriptor, part = tempfile.mkstemp(dir=claim.parent, prefix=".")
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(content, file)
        os.link(part, claim)
    except FileExistsError:
        return False
    finally:
        os.unlink(part)
    return True


def _latest(journal: Journal) -> Mapping[str, str]:
    """The process of a journal's latest attempt, and its claim unless it was killed before that."""
    found = [entry.data for _, entry in journal.entries() if entry.kind == "claim"]
    return found[-1] if found else {"process": journal.head["process"]}


def _earlier(journal: Journal) -> tuple[dict[str, str], int]:
    """The tags of the run so far, and how many attempts at it there were."""
    tags: dict[str, str] = {}
    attempts = 0
    for _, entry in journal.entries():
        if entry.kind == "claim":
            attempts += 1
        elif entry.kind in ("tags", "attempt"):
            tags |= entry.data.get("values", entry.data.get("tags", {}))
        elif entry.kind == "untag":
            tags.pop(entry.data["name"], None)
    beat = beat_s(journal)
    return (tags if beat is None else {**tags, "pepr.heartbeat": str(int(beat * 1000))}), attempts
