"""The table of predictions: rows are added and flushed, and a later call continues after them."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from filelock import lock_descriptor

from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.files import read_json, write_private
from pepr_mlops.text import cell

FILE, FRAME = "file", "frame"
_REMEDY = "name another --out, or delete it"


def settings_path(out: Path) -> Path:
    """Of the file that has which model made a table, and how."""
    return _companion(out, ".model.json")


def errors_path(out: Path) -> Path:
    """Of the table of the files that gave no prediction."""
    return _companion(out, ".errors.csv")


def _companion(out: Path, suffix: str) -> Path:
    """A name that no other table has: only `.csv` is left out of it."""
    return out.with_name(out.name.removesuffix(".csv") + suffix)


class Written:
    """An open table of predictions. `done` are the files whose images all have a row."""

    def __init__(self, file: BinaryIO, done: set[str]) -> None:
        self._file = file
        self.done = done

    def add(self, rows: Sequence[Sequence[object]]) -> None:
        """Write rows, of which no text is a formula of a spreadsheet."""
        self._file.write(_lines(rows))
        self._file.flush()


@contextmanager
def opened(out: Path, header: Sequence[str], settings: Mapping[str, Any]) -> Iterator[Written]:
    """The table `out`, new or continued, with its `settings` in a file next to it.

    What an earlier call wrote last may lack images of its file or the end of a row, so that file
    counts as not done. Raises `WrongUse` for a table that other settings made, and `WorkFailed`
    where it cannot be written or another process writes it.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("a+b") as file:
            _lock(file, out)
            done = _continued(file, out, header, settings)
            yield Written(file, done)
    except OSError as error:
        raise WorkFailed(f"out: {out} cannot be written ({error.strerror})") from error


def write_errors(out: Path, faults: Sequence[tuple[str, str]]) -> Path | None:
    """Write the files that gave no prediction and why; the path, None where there is none."""
    path = errors_path(out)
    if not faults:
        path.unlink(missing_ok=True)
        return None
    path.write_bytes(_lines([(FILE, "error"), *faults]))
    return path


def _lock(file: BinaryIO, out: Path) -> None:
    if not lock_descriptor(file.fileno(), blocking=False):
        raise WorkFailed(f"out: another process writes {out}; wait for it")


def _continued(
    file: BinaryIO, out: Path, header: Sequence[str], settings: Mapping[str, Any]
) -> set[str]:
    """The files in the table that are done; what follows them is cut off."""
    file.seek(0)
    content, first, path = file.read(), _lines([header]), settings_path(out)
    if content:
        _check(out, path, settings)
        if not (content.startswith(first) or first.startswith(content)):
            raise WrongUse(f"out: {out} has other columns than these predictions; {_REMEDY}")
    if len(content) < len(first):
        write_private(path, json.dumps(settings, indent=2).encode())
        os.ftruncate(file.fileno(), 0)
        file.write(first)
        file.flush()
        return set()
    done: set[str] = set()
    last, end, place = None, len(first), len(first)
    for line in content[len(first) : content.rfind(b"\n") + 1].splitlines(keepends=True):
        ((name, *_),) = csv.reader([line.decode()])
        if name != last:
            done |= set() if last is None else {last}
            last, end = name, place
        place += len(line)
    os.ftruncate(file.fileno(), end)
    return done


def _check(out: Path, path: Path, settings: Mapping[str, Any]) -> None:
    """Raise `WrongUse` unless the table was made with the same settings."""
    try:
        earlier = read_json(path, "out")
    except OSError as error:
        raise WrongUse(
            f"out: {out} exists, and {path.name}, which says how it was made, cannot be read "
            f"({error.strerror}); {_REMEDY}"
        ) from error
    same = json.loads(json.dumps(settings))
    if not isinstance(earlier, Mapping):
        raise WrongUse(f"out: {path} does not say how {out.name} was made; {_REMEDY}")
    for name, value in same.items():
        if earlier.get(name) != value:
            raise WrongUse(
                f"out: {out} was made with {name}={earlier.get(name)}, not {value}; {_REMEDY}"
            )


def _lines(rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[cell(one) for one in row] for row in rows])
    return text.getvalue().encode()
