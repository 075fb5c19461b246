"""What a run logs, saved on this disk until the tracking server has it.

A journal is a folder for one attempt at a run. `entries.jsonl` has an entry in each line, the
first of which says where the run belongs; contents of files are separate files. `sent` has the
number of the last entry that was sent, and the numbers before it that the server does not have.
Files that are too large for memory are written into a folder of it (`room`) before their entry.
Only the owner of its lock writes it: the process of the run, and after its end the process that
sends the rest. A journal is deleted when its run has ended and is complete on the server.

The process of an offline run sends nothing. So another one may do it meanwhile, the owner of a lock
of its own. Where a later attempt may continue the run, that is in the same journal, which is
deleted when the run has finished.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pepr_mlops.files import BINARY, user_folder

_ENTRIES, _SENT, _LOCK = "entries.jsonl", "sent", "lock"
_BEGUN, _CLOSED = "begun", "closed"
_SENDING = "sending"  # the lock of the process that sends an offline run
_PATIENCE_S = 60.0  # for the lock of a process that has just been killed
FOLDER = "folder"  # the kind of an entry with several files


@dataclass(frozen=True)
class Entry:
    """One thing to log: its kind, its values (JSON), the content of a file where it is one, and the
    folder on this disk with the files of an entry that has several."""

    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)
    content: bytes | None = None
    files: Path | None = None

    def free(self) -> None:
        """Delete its folder, once the server has the files."""
        if self.files is not None:
            shutil.rmtree(self.files, ignore_errors=True)


class Journal:
    """The journal of one attempt, locked by this process until `release` or `discard`.

    `head` is the argument of `create`, with the `id` of the journal.
    """

    def __init__(self, folder: Path, lock: FileLock, head: Mapping[str, Any]) -> None:
        self.folder, self.head, self._lock = folder, head, lock

    @classmethod
    def create(cls, head: Mapping[str, Any]) -> Journal:
        """Begin a journal below `home`. Raises `OSError` where that cannot be written."""
        key = uuid.uuid4().hex
        hidden, folder = home() / f".{key}", home() / key
        hidden.mkdir(parents=True, mode=0o700)
        lock = FileLock(hidden / _LOCK)
        lock.acquire(timeout=0)
        journal = cls(hidden, lock, {**head, "id": key})
        journal.add(0, Entry("begin", journal.head))
        hidden.rename(folder)  # visible to other processes only now that it is locked
        journal.folder = folder
        return journal

    @classmethod
    def reopen(cls, key: str) -> Journal:
        """Continue the journal with this id. Raises `OSError`, and `Timeout` where another process
        has it."""
        folder = home() / key
        lock = FileLock(folder / _LOCK)
        lock.acquire(timeout=_PATIENCE_S)
        return cls(folder, lock, _head(folder) or {})

    def add(self, number: int, entry: Entry) -> None:
        """Save an entry, on the disk when this returns. Raises `OSError`."""
        if entry.content is not None:
            _write(self.folder / str(number), entry.content, os.O_TRUNC)
        line = json.dumps({"number": number, "kind": entry.kind, "data": dict(entry.data)})
        # The line break before it ends a line that a full disk cut off.
        _write(self.folder / _ENTRIES, f"\n{line}\n".encode(), os.O_APPEND)

    def pending(self) -> dict[int, Entry]:
        """What the server has not taken yet, by number, oldest first."""
        last, but = 0, []
        with suppress(OSError, ValueError):  # none was sent yet, or the disk was full
            last, *but = map(int, (self.folder / _SENT).read_text().split())
        found = {}
        for number, entry in self.entries():
            if number > last or number in but:
                path = self.folder / str(number)
                content = path.read_bytes() if path.exists() else None
                files = room(self.folder, str(entry.data.get("name")))
                files_there = files if entry.kind == FOLDER and files.exists() else None
                found[number] = Entry(entry.kind, entry.data, content, files_there)
        return found

    def entries(self) -> Iterator[tuple[int, Entry]]:
        """All entries, without the contents of files."""
        return _entries(self.folder)

    def last(self) -> int:
        """The number of the last entry."""
        return max((number for number, _ in self.entries()), default=0)

    def last_s(self) -> float:
        """When its run last logged, in seconds since 1970."""
        return (self.folder / _ENTRIES).stat().st_mtime

    def sent(self, last: int, but: Collection[int] = ()) -> None:
        """Note that the server has all entries up to `last`, `but` some."""
        new = self.folder / f"{_SENT}.new"
        new.write_text(" ".join(map(str, [last, *but])))
        new.replace(self.folder / _SENT)

    def begun(self) -> Mapping[str, str]:
        """The `run_id` that the sender of the journal has begun, and the `uri` of its server."""
        with suppress(OSError, ValueError):
            return dict(json.loads((self.folder / _BEGUN).read_text()))
        return {}

    def begin(self, run_id: str, uri: str) -> None:
        """Note what `begun` returns. Not in the entries, which another machine may be writing."""
        new = self.folder / f"{_BEGUN}.new"
        new.write_text(json.dumps({"run_id": run_id, "uri": uri}))
        new.replace(self.folder / _BEGUN)

    def closed(self) -> str | None:
        """The process that vanished, for which `close` was called."""
        with suppress(OSError):
            return (self.folder / _CLOSED).read_text()
        return None

    def close(self, process: str) -> None:
        """Note that the run was ended in the name of a process that vanished."""
        with suppress(OSError):
            (self.folder / _CLOSED).write_text(process)

    def is_written(self) -> bool:
        """Whether the process of an offline run holds the lock, as far as this disk shows locks of
        other machines."""
        lock = FileLock(self.folder / _LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        return False

    def release(self) -> None:
        """Unlock it: another process may send the rest."""
        self._lock.release()

    def discard(self) -> None:
        """Delete it, once the server has everything or if there is nothing to send."""
        with suppress(OSError):  # first, or a kill during the next line would leave entries
            (self.folder / _ENTRIES).unlink()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()


def _entries(folder: Path) -> Iterator[tuple[int, Entry]]:
    lines = []
    with suppress(OSError):
        lines = (folder / _ENTRIES).read_bytes().split(b"\n")
    for line in lines:
        try:
            read = json.loads(line)
            yield read["number"], Entry(read["kind"], read["data"])
        except (ValueError, KeyError, TypeError):  # the process or machine died writing it
            continue


def _head(folder: Path) -> Mapping[str, Any] | None:
    first = next(_entries(folder), None)
    return None if first is None else first[1].data


def exists(key: str) -> bool:
    """Whether there is a journal with this id, and it can be read."""
    return _head(home() / key) is not None


def ended(folder: Path) -> str | None:
    """The status with which the run of a journal has ended, None where its latest attempt has
    not."""
    found = None
    for _, entry in _entries(folder):
        if entry.kind in ("end", "attempt"):
            found = entry.data.get("status")
    return found


def room(journal: Path, name: str) -> Path:
    """The folder in a journal for the files of the entry `name`."""
    return journal / f"{name}.files"


def home() -> Path:
    """Where journals are: PEPR_JOURNAL, or a folder of the user's state."""
    return user_folder("PEPR_JOURNAL", "XDG_STATE_HOME", "journal")


def unsent() -> Iterator[Journal]:
    """The journals of runs that have ended and those of offline runs, oldest first.

    Each is locked until its release: against other senders, not against the process of an offline
    run.
    """
    folders = []
    with suppress(OSError):  # there is no home
        for folder in home().glob("[!.]*"):
            with suppress(OSError):
                folders.append((folder.stat().st_ctime_ns, folder))
    for _, folder in sorted(folders):
        head = _head(folder) or {}
        lock = FileLock(folder / (_SENDING if head.get("offline") else _LOCK))
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):  # its run continues, or it is gone or another user's
            continue
        journal = Journal(folder, lock, _head(folder) or {})
        if not journal.head:  # killed before its first entry: nothing was measured
            journal.discard()
            continue
        yield journal


def _write(path: Path, content: bytes, flag: int) -> None:
    """Write in one call, so that a signal cannot leave half of it, and wait for the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | BINARY | flag, 0o600)
    try:
        if os.write(descriptor, content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
