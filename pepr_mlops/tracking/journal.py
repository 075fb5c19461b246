"""Log entries of a run, kept on this disk until the tracking server has them.

A journal is a folder for one attempt at a run. `entries.jsonl` has an entry in each line, the
first of which says where the run belongs; contents of files are separate files. `sent` has the
number of the last entry that was sent, and the numbers before it that the server has not got.
Whoever holds its lock writes it: the process of the run, or when that has ended whoever sends the
rest. A run that has ended and is complete on the server has no journal.
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

_ENTRIES, _SENT, _LOCK = "entries.jsonl", "sent", "lock"


@dataclass(frozen=True)
class Entry:
    """One thing to tell: what kind it is, its values, and the content of a file where it is one.

    `data` is of what JSON knows.
    """

    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)
    content: bytes | None = None


class Journal:
    """The journal of one attempt, held by this process until `release` or `discard`.

    `head` is what `create` was given, with the `id` of the journal.
    """

    def __init__(self, folder: Path, lock: FileLock, head: Mapping[str, Any]) -> None:
        self.folder, self.head = folder, head
        self._lock = lock

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
        hidden.rename(folder)  # now that it is held others may see it
        journal.folder = folder
        return journal

    def add(self, number: int, entry: Entry) -> None:
        """Keep an entry, on the disk when this returns. Raises `OSError`."""
        if entry.content is not None:
            _write(self.folder / str(number), entry.content, os.O_TRUNC)
        line = json.dumps({"number": number, "kind": entry.kind, "data": dict(entry.data)})
        # The break before it ends a line that a full disk cut off.
        _write(self.folder / _ENTRIES, f"\n{line}\n".encode(), os.O_APPEND)

    def pending(self) -> dict[int, Entry]:
        """What the server has not taken yet, by number, oldest first."""
        last, but = self._sent()
        return {
            number: self._filled(number, entry)
            for number, entry in self.entries()
            if number > last or number in but
        }

    def entries(self) -> list[tuple[int, Entry]]:
        """All entries, without the contents of files."""
        return list(_entries(self.folder))

    def last_s(self) -> float:
        """When its run last logged, in seconds since 1970."""
        return (self.folder / _ENTRIES).stat().st_mtime

    def sent(self, last: int, but: Collection[int] = ()) -> None:
        """Keep that the server has all entries up to `last`, `but` some."""
        new = self.folder / f"{_SENT}.new"
        new.write_text(" ".join(map(str, [last, *but])))
        new.replace(self.folder / _SENT)

    def release(self) -> None:
        """Leave it for others to send the rest."""
        self._lock.release()

    def discard(self) -> None:
        """Delete it: the server has everything."""
        with suppress(OSError):  # first, or what is left when killed amid it would be sent again
            (self.folder / _ENTRIES).unlink()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()

    def _sent(self) -> tuple[int, list[int]]:
        try:
            last, *but = map(int, (self.folder / _SENT).read_text().split())
            return last, but
        except (OSError, ValueError):  # not one yet, or the disk was full
            return 0, []

    def _filled(self, number: int, entry: Entry) -> Entry:
        path = self.folder / str(number)
        content = path.read_bytes() if path.exists() else None
        return Entry(entry.kind, entry.data, content)


def home() -> Path:
    """Where journals are: PEPR_JOURNAL, or a folder of the user's state."""
    given = os.environ.get("PEPR_JOURNAL")
    state = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    return Path(given) if given else state / "pepr_mlops" / "journal"


def left() -> Iterator[Journal]:
    """The journals that no process holds, each is held until it is released."""
    for folder in _folders():
        lock = FileLock(folder / _LOCK)
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):  # at work, or gone or another user's
            continue
        first = next(_entries(folder), None)
        if first is None:  # it was killed before its first entry, and nothing was measured
            shutil.rmtree(folder, ignore_errors=True)
            lock.release()
            continue
        yield Journal(folder, lock, first[1].data)


def _folders() -> list[Path]:
    found = []
    with suppress(OSError):  # there is none
        for folder in home().glob("[!.]*"):
            with suppress(OSError):
                found.append((folder.stat().st_ctime_ns, folder))
    return [folder for _, folder in sorted(found)]


def _entries(folder: Path) -> Iterator[tuple[int, Entry]]:
    try:
        lines = (folder / _ENTRIES).read_bytes().split(b"\n")
    except OSError:
        return
    for line in lines:
        try:
            read = json.loads(line)
            yield read["number"], Entry(read["kind"], read["data"])
        except (ValueError, KeyError, TypeError):  # the process or the machine died amid it
            continue


def _write(path: Path, content: bytes, flag: int) -> None:
    """Write in one call, so that a signal cannot leave half of it, and wait for the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o600)
    try:
        if os.write(descriptor, content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
