"""Answers kept from an earlier reading, for as long as nothing was written to the database.

Over a hundred columns of ten thousand runs take seconds to read, and are asked for again and again.
A SQLite database is a file, whose state is told by its inode, size and times: as long as they are
the same, so is everything in it, and what was read is given again. No other store can be asked
cheaply whether any run was changed, so of those nothing is kept.

The intervals of so many runs take another second to draw. They are a function of a few numbers of
each run, and kept by a digest of these, whichever store they are from.

Nothing here ever fails: what cannot be kept, found or trusted is made anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import feather

from pepr_mlops.comparison import intervals as stats
from pepr_mlops.files import cache_folder, write_private
from pepr_mlops.tracking.read import tables
from pepr_mlops.tracking.server import sqlite_path

FEWEST = 1000  # rows; fewer are read, and drawn from, at once
_MOST = 32  # answers of a kind; the newest are kept
_SETTLED_S = 2.0  # the coarsest clock of a file system: later writes have another time
_PATIENCE_S = 5.0
_PACKAGE = Path(__file__).parents[2]
_DIGEST = 32  # bytes
_MADE_BY = ("*.py", "costs/*.py", "comparison/*.py", "tracking/read/*.py")


def answer(
    uri: str, question: list[Any], read: Callable[[], pd.DataFrame], looked_through: int = 0
) -> pd.DataFrame:
    """What `read` gives, or gave when the database was in the state that it is in now.

    `question` tells which of all things that are read from `uri` it is, in what JSON can write. It
    is worth keeping with `FEWEST` rows, or so many `looked_through` for fewer.
    """
    before = state(uri)
    if before is None:
        return read()
    path = cache_folder() / f"{_name(uri, question)}.arrow"
    found = _kept(path, before)
    if found is not None:
        return found
    found = read()
    if max(len(found), looked_through) >= FEWEST and state(uri) == before and _settled(before):
        _keep(path, found, before)
    return found


def intervals(
    runs: pd.DataFrame, scoring: stats.Scoring, *, error: dict[str, float], draws: int, seed: int
) -> pd.DataFrame:
    """What `stats.intervals` gives, or gave for the very same numbers, settings and code.

    It is worth keeping with `FEWEST` rows.
    """
    asked = _asked(runs, scoring, error, draws, seed) if draws and len(runs) >= FEWEST else None
    if asked is None:
        return stats.intervals(runs, scoring, error=error, draws=draws, seed=seed)
    path = cache_folder() / f"{asked}.intervals"
    found = _kept(path, asked)
    if found is None:
        found = stats.intervals(runs, scoring, error=error, draws=draws, seed=seed)
        _keep(path, found, asked)
    return found


def state(uri: str) -> str | None:
    """A text that is another one after anything was written to the database, None if none is.

    Times and size are looked at while a read lock keeps writers away, by SQLite itself: a file of
    a database that is opened and closed by other means loses the locks this process has on it. In
    WAL mode writers do not touch the file, so that it tells nothing.
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
    """Whether the state is so old that a later one cannot have its times."""
    *_, mtime_ns, ctime_ns = json.loads(text)
    return time.time() - float(max(mtime_ns, ctime_ns)) / 1e9 > _SETTLED_S


def _name(uri: str, question: list[Any]) -> str:
    """Another one for another store, question or code that makes the answer.

    And for another working folder: a data set `.` is called by that.
    """
    path = os.path.realpath(sqlite_path(uri) or "")
    text = json.dumps([path, question, _code(), os.getcwd()])
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _asked(runs: pd.DataFrame, scoring: stats.Scoring, *settings: Any) -> str | None:
    """A digest of all that intervals are made of and by, None of what cannot be written."""
    try:
        text = json.dumps([asdict(scoring), settings, _code()])
        content = text.encode() + _written(runs, "uncompressed")
    except (OSError, ValueError, TypeError, pa.ArrowException):
        return None
    return hashlib.blake2b(content, digest_size=_DIGEST).hexdigest()


@cache
def _code() -> str:
    """A digest of the modules an answer may be made by, and the libraries that write it."""
    digest = hashlib.blake2b(f"{pd.__version__} {np.__version__} {pa.__version__}".encode())
    for path in sorted(path for part in _MADE_BY for path in _PACKAGE.glob(part)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


_code()  # of the files as they are loaded, not as an update may leave them while a live page runs


def _kept(path: Path, now: str) -> pd.DataFrame | None:
    try:
        content = path.read_bytes()
        if content[:_DIGEST] != _digest(content[_DIGEST:], now):
            return None
        os.utime(path)  # the newest are kept
        return _frame(content[_DIGEST:])
    except (OSError, pa.ArrowException):
        return None


def _keep(path: Path, found: pd.DataFrame, then: str) -> None:
    """Write the answer for its user alone, whole or not at all, and forget the oldest others.

    Only if it comes back as it is, to the type of every column and of the index.
    """
    try:
        content = _written(found, "zstd")
        if not _same(_frame(content), found):
            return
        write_private(path, _digest(content, then) + content)
        of_kind = path.parent.glob(f"*{path.suffix}")
        by_age = sorted(of_kind, key=lambda p: p.stat().st_mtime, reverse=True)
        for old in by_age[_MOST:]:
            old.unlink()
    except (OSError, ValueError, TypeError, pa.ArrowException):
        return  # a full disk, or a column that has no such form


def _digest(content: bytes, state: str) -> bytes:
    """Fits one content in one state: a file that was damaged or is of another state has none."""
    return hashlib.blake2b(state.encode() + content, digest_size=_DIGEST).digest()


def _written(table: pd.DataFrame, compression: str) -> bytes:
    stream = pa.BufferOutputStream()
    feather.write_feather(table, stream, compression=compression)
    written: bytes = stream.getvalue().to_pybytes()
    return written


def _same(a: pd.DataFrame, b: pd.DataFrame) -> bool:
    return bool(a.equals(b) and a.index.identical(b.index) and a.columns.identical(b.columns))


def _frame(content: bytes) -> pd.DataFrame:
    found: pd.DataFrame = feather.read_feather(pa.BufferReader(content))
    return found
