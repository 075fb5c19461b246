"""What the headers of all files say: how many images they hold, and of which patients."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pepr_mlops.data.own.identity import Names
from pepr_mlops.data.own.listing import Listing, Texts
from pepr_mlops.data.own.pixels import Head, Reading, Unusable, head
from pepr_mlops.errors import WrongUse
from pepr_mlops.files import images_folder, write_private

Faults = list[tuple[int, Unusable]]  # rows of files in a listing that give no image, and why
T = TypeVar("T")

_MOST_THREADS = 8
_WAY = 1  # of reading headers; another number where the same files would say something else
_FIRST = 3  # files that a message names


@dataclass(frozen=True)
class Scan:
    """The N images in the files of a listing: `file` [N] is the row in the listing, `frame` [N] the
    number in the file, in the order of the files. `bounded` [files] need the bounds of a window,
    and `grey` [files] have one channel. `further` [files] are frames that are passed over.
    `patients` [N] are names that say nothing, of those of the listing or else of the files, empty
    where unknown and None where none is known."""

    file: npt.NDArray[np.int64]
    frame: npt.NDArray[np.int64]
    bounded: npt.NDArray[np.bool_]
    grey: npt.NDArray[np.bool_]
    further: npt.NDArray[np.int64]
    patients: Texts | None


@dataclass(frozen=True)
class Usable:
    """The files of a listing that give images, by their `rows` in it, what they hold, and the
    others."""

    rows: list[int]
    listing: Listing
    found: Scan
    faults: Faults


def scan(listing: Listing, reading: Reading, names: Names) -> Scan:
    """As `scan_usable`. Raises `WrongUse` with the files that are no images."""
    usable = scan_usable(listing, reading, names)
    if usable.faults:
        raise unusable(listing, usable.faults)
    return usable.found


def scan_usable(listing: Listing, reading: Reading, names: Names) -> Usable:
    """Read the header of every file, or what was read earlier of the same files."""
    content = Names.of_files(listing)  # `names` may be those of another data set
    (key,) = names.of([f"scan {_WAY} {content.salt.hex()} {astuple(reading)}"])
    path = images_folder() / f"{key}.scan.npz"
    rows, faults, found = list(range(len(listing))), Faults(), _cached(path)
    if found is None:
        heads = of_files(
            listing, lambda i: head(listing.root / listing.files[i], reading), "headers"
        )
        faults = [(i, one) for i, one in enumerate(heads) if isinstance(one, Unusable)]
        rows = [i for i, one in enumerate(heads) if isinstance(one, Head)]
        found = _joined([heads[i] for i in rows], listing.files[rows].tolist(), names)
        if not faults and content == Names.of_files(listing):  # else a file has changed meanwhile
            arrays = io.BytesIO()
            np.savez_compressed(arrays, allow_pickle=False, **_arrays(found))
            with suppress(OSError):  # what cannot be cached is read again
                write_private(path, arrays.getvalue())
    some = listing.take(np.array(rows, np.int64)) if faults else listing
    if some.patients is not None:  # where the source knows none, the file may
        given = names.of(some.patients.tolist())[found.file]
        own = np.full_like(given, "") if found.patients is None else found.patients
        found = replace(found, patients=np.where(given == "", own, given))
    return Usable(rows, some, found, faults)


def patient_of_file(file: str) -> str:
    """What an unnamed patient is called of whom a file has several images."""
    return f"file {file}"


def image_names(listing: Listing, found: Scan) -> Texts:
    """A name for each image [N]: that of its file and, where any file has several, the number of
    the frame."""
    files = listing.files[found.file]
    if len(files) == len(listing):
        return files
    each = zip(files.tolist(), found.frame.tolist(), strict=True)
    return np.array([f"{file}#{frame}" for file, frame in each], dtype=np.str_)


def of_images(
    listing: Listing,
    found: Scan,
    images: npt.NDArray[np.int64],
    work: Callable[[int, list[int]], list[T]],
    title: str,
) -> tuple[list[T | None], Faults]:
    """What `work` returns for some images of a scan, whose numbers are sorted, and the files that
    it raises `Unusable` for, whose images have None.

    `work` takes the row of a file and the numbers of its frames, and returns one for each.
    """
    files, starts = np.unique(found.file[images], return_index=True)
    frames = np.split(found.frame[images], starts[1:]) if len(files) else []
    frames_of = {row: own.tolist() for row, own in zip(files.tolist(), frames, strict=True)}
    results = of_files(listing, lambda row: work(row, frames_of[row]), title, frames_of)
    values: list[T | None] = []
    faults: Faults = []
    for (row, own), result in zip(frames_of.items(), results, strict=True):
        if isinstance(result, Unusable):
            faults.append((row, result))
            values += [None] * len(own)
        else:
            values += result
    return values, faults


def of_files(
    listing: Listing,
    work: Callable[[int], Any],
    title: str,
    rows: Iterable[int] | None = None,
    *,
    threads: int | None = None,
) -> list[Any]:
    """What `work` returns for each file (or these rows), or the `Unusable` that it raises.

    It works on several files at once and shows its progress on a terminal.
    """
    from tqdm import tqdm

    def careful(row: int) -> Any:
        try:
            return work(row)
        except Unusable as error:
            return error

    chosen = list(range(len(listing)) if rows is None else rows)
    # Each thread holds a decoded image, which may take gigabytes.
    pool = ThreadPoolExecutor(threads or min(os.cpu_count() or 1, _MOST_THREADS))
    try:
        found = pool.map(careful, chosen)
        return list(tqdm(found, title, len(chosen), unit="file", leave=False, disable=None))
    finally:
        pool.shutdown(cancel_futures=True)


def unusable(listing: Listing, faults: Sequence[tuple[int, Unusable]]) -> WrongUse:
    """The error about files that give no image: the first ones, on the terminal alone."""
    n = len(faults)
    first = "; ".join(f"{listing.files[i]} {error}" for i, error in faults[:_FIRST])
    files = f"{n:,} of {len(listing):,} files cannot be used: " if n > 1 else ""
    more = f" … (`pepr data check {listing.root}` lists all)" if n > _FIRST else ""
    return WrongUse(
        f"dataset: {files}{first}{more}",
        reason="missing_data",
        logged=f"dataset: {files or 'a file '}{faults[0][1]}; `pepr data check` names the files",
    )


def _joined(heads: Sequence[Head], files: Sequence[str], names: Names) -> Scan:
    """The scan of files with these headers."""
    counts = np.array([len(found.frames) for found in heads], np.int64)
    patients = [  # images of one file are of one patient
        found.patient or (patient_of_file(name) if len(found.frames) > 1 else "")
        for found, name in zip(heads, files, strict=True)
    ]
    return Scan(
        file=np.repeat(np.arange(len(heads)), counts),
        frame=np.array([frame for found in heads for frame in found.frames], np.int64),
        bounded=np.array([found.bounded for found in heads], np.bool_),
        grey=np.array([found.grey for found in heads], np.bool_),
        further=np.array([found.further for found in heads], np.int64),
        patients=np.repeat(names.of(patients), counts) if any(patients) else None,
    )


def _arrays(found: Scan) -> dict[str, npt.NDArray[Any]]:
    return {f"{name}s": value for name, value in vars(found).items() if value is not None}


def _cached(path: Path) -> Scan | None:
    # A damaged archive raises errors of many kinds.
    with suppress(Exception), np.load(path, allow_pickle=False) as arrays:
        os.utime(path)
        return Scan(**{"patients": None, **{name[:-1]: arrays[name] for name in arrays.files}})
    return None
