"""Answers of a SQLite database, cached as long as nothing was written to it.

Over a hundred columns of ten thousand runs take seconds to read, again and again. A SQLite database
is a file: as long as its inode, size and times are the same, so are its contents. No other store
reports cheaply whether a run has changed, so answers of others are not cached.

`predictions` caches its downloads here too.

Nothing here fails: what cannot be cached, found or trusted is computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import feather

from pepr_mlops.files import cache_folder, write_private
from pepr_mlops.tracking.read import tables
from pepr_mlops.tracking.server import sqlite_path

FEWEST = 1000  # rows; fewer are fast to read and to draw from
_MOST = 32  # answers of a kind; the newest stay
_SETTLED_S = 2.0  # the coarsest clock of a file system: later writes have another time
_PATIENCE_S = 5.0
_PACKAGE = Path(__file__).parents[2]
_DIGEST = 32  # bytes
_MADE_BY = ("*.py", "costs/*.py", "comparison/*.py", "tracking/server.py", "tracking/read/*.py")


def answer(
    uri: str, question: list[Any], read: Callable[[], pd.DataFrame], rows_read: int = 0
) -> pd.DataFrame:
    """What `read` returns, or returned when the database was in its present state.

    `question` names what is read from `uri`, as JSON. The answer is cached if it has `FEWEST` rows
    or so many were read for it.
    """
    before = state(uri)
    if before is None:
        return read()
    # with the working folder, since a data set may be named `.`
    key = json.dumps([os.path.realpath(sqlite_path(uri) or ""), question, _code(), os.getcwd()])
    name = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16)
    path = cache_folder() / f"{name.hexdigest()}.arrow"
    found = _load(path, before)
    if found is None:
        found = read()
        if max(len(found), rows_read) >= FEWEST and state(uri) == before and _settled(before):
            _save(path, found, before)
    return found


def state(uri: str) -> str | None:
    """A text that changes with every write to the database, None where there is no such text.

    Times and size are read while SQLite's own read lock keeps writers away: opening and closing the
    file by other means would release the locks that this process has on it. In WAL mode writers do
    not touch the file, so that its state means nothing.
    """
    path = sqlite_path(uri)
    if path is None or not tables.readable(uri):
        return None
    try:
        where = f"file:{quote(os.path.realpath(path))}?mode=ro"
        with closing(sqlite3.connect(where, uri=True, timeout=_PATIENCE_S)) as connection:
            connection.isolation_level = None
            connection.execute("BEGIN")
            (version,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
            s = os.stat(path)
    except (sqlite3.Error, OSError, TypeError, ValueError):
        return None
    if mode == "wal" or version not in tables.KNOWN_SCHEMAS:
        return None
    return json.dumps([s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns])


def _settled(text: str) -> bool:
    """Whether the state is so old that no later one can have the same times."""
    *_, mtime_ns, ctime_ns = json.loads(text)
    return time.time() - float(max(mtime_ns, ctime_ns)) / 1e9 > _SETTLED_S


@cache
def _code() -> str:
    """A digest of the modules and libraries that answers depend on."""
    digest = hashlib.blake2b(f"{pd.__version__} {np.__version__} {pa.__version__}".encode())
    for path in sorted(path for part in _MADE_BY for path in _PACKAGE.glob(part)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


_code()  # of the files as loaded, before an update changes them while a live page runs


def recall(path: Path, state: str) -> bytes | None:
    """What `store` wrote there in this state, None where there is no such or a damaged file."""
    try:
        content = path.read_bytes()
        if content[:_DIGEST] != _digest(content[_DIGEST:], state):
            return None
        os.utime(path)  # the newest stay
    except OSError:
        return None
    return content[_DIGEST:]


def store(path: Path, content: bytes, state: str) -> None:
    """Write it for its user alone, completely or not at all. Raises `OSError`."""
    write_private(path, _digest(content, state) + content)


def delete_oldest(folder: Path, suffix: str, most: int) -> None:
    """Leave the newest `most` files of a kind. Raises `OSError`."""
    by_age = sorted(folder.glob(f"*{suffix}"), key=lambda p: p.stat().st_mtime, reverse=True)
    for old in by_age[most:]:
        old.unlink()


def _load(path: Path, state: str) -> pd.DataFrame | None:
    content = recall(path, state)
    try:
        return None if content is None else _frame(content)
    except pa.ArrowException:
        return None


def _save(path: Path, found: pd.DataFrame, state: str) -> None:
    """Write the answer, and delete the oldest others.

    An answer that would change when it is read back, in a value or a type, is not written.
    """
    try:
        content = _written(found, "zstd")
        back = _frame(content)
        same = back.index.identical(found.index) and back.columns.identical(found.columns)
        if not (same and back.equals(found)):
            return
        store(path, content, state)
        delete_oldest(path.parent, path.suffix, _MOST)
    except (OSError, ValueError, TypeError, pa.ArrowException):
        return  # a full disk, or a column that has no such form


def _digest(content: bytes, state: str) -> bytes:
    """Fits one content in one state: a damaged file and one of another state do not match."""
    return hashlib.blake2b(state.encode() + content, digest_size=_DIGEST).digest()


def _written(table: pd.DataFrame, compression: str) -> bytes:
    stream = pa.BufferOutputStream()
    feather.write_feather(table, stream, compression=compression)
    written: bytes = stream.getvalue().to_pybytes()
    return written


def _frame(content: bytes) -> pd.DataFrame:
    found: pd.DataFrame = feather.read_feather(pa.BufferReader(content))
    return found
