"""Images as the model takes them, made once and kept on disk as 8-bit pixels."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from pepr_mlops.data.duplicates import image_key
from pepr_mlops.data.own import pixels
from pepr_mlops.data.own.listing import Listing
from pepr_mlops.data.own.pixels import Reading, Unusable
from pepr_mlops.data.own.scan import Scan, of_files, unusable
from pepr_mlops.data.stored import Stored
from pepr_mlops.errors import WorkFailed
from pepr_mlops.files import images_folder

Bounds = tuple[float, float]
Keys = npt.NDArray[np.bytes_]

_PIXELS, _INDEX = "images.u8", "index.npz"
_UNUSED_S = 30 * 86400.0  # a folder that no job used for so long is deleted before another is made
_ROOM = 1.02  # times the bytes of the images that must be free


@dataclass(frozen=True)
class Prepared:
    """`images` [N, size, size] grey or [N, size, size, 3] RGB. `keys` [N] are digests of the images
    at their own size. `oddities` counts images that may be no image, by what they are."""

    images: Stored
    keys: Keys
    oddities: dict[str, int]


def prepare(
    listing: Listing,
    found: Scan,
    reading: Reading,
    bounds: Bounds | None,
    *,
    grey: bool,
    digest: str,
    note: Callable[[str], None],
) -> Prepared:
    """The images of a scan, read from disk if they were prepared before.

    `grey` makes all images grey. `digest` is that of the data set. Two jobs never prepare the same
    images at once: one waits for the other. What was interrupted is made again. Raises `WrongUse`
    for files that give no image, and `WorkFailed` where the disk has no room.
    """
    settings = [digest, reading.image_size, reading.fit, reading.window, bounds, grey]
    settings += [reading.frames, reading.axis, reading.every]
    name = hashlib.blake2b(json.dumps(settings).encode(), digest_size=16).hexdigest()
    folder = images_folder() / name
    image = (reading.image_size, reading.image_size, *(() if grey else (3,)))
    with _alone(folder, note):
        if not (folder / _INDEX).exists():
            _make_room(folder.parent, len(found.file) * int(np.prod(image)))
            _write(folder, listing, found, reading, bounds, image)
        os.utime(folder / _INDEX)
    with np.load(folder / _INDEX) as index:
        oddities = dict(zip(index["oddities"].tolist(), index["counts"].tolist(), strict=True))
        return Prepared(
            Stored(folder / _PIXELS, image, np.arange(len(found.file))), index["keys"], oddities
        )


@contextmanager
def _alone(folder: Path, note: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a folder, after another process that prepares the same images."""
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(folder.with_suffix(".lock"))
        try:
            lock.acquire(timeout=1)
        except Timeout:
            note("waits for another job that prepares the same images")
            lock.acquire()
    except OSError as error:
        raise _no_disk(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def _write(
    folder: Path,
    listing: Listing,
    found: Scan,
    reading: Reading,
    bounds: Bounds | None,
    image: tuple[int, ...],
) -> None:
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    grey = len(image) == 2
    size = int(np.prod(image))
    keys = np.zeros(len(found.file), dtype="S16")
    oddities: dict[str, int] = {}
    starts = np.searchsorted(found.file, np.arange(len(listing) + 1))
    try:
        part.mkdir(mode=0o700)
        file = os.open(part / _PIXELS, os.O_WRONLY | os.O_CREAT, 0o600)

        def work(row: int) -> list[str]:
            rows = range(starts[row], starts[row + 1])
            frames = found.frame[starts[row] : starts[row + 1]].tolist()
            own = pixels.images(listing.root / listing.files[row], frames, reading, bounds)
            odd = []
            for i, decoded in zip(rows, own, strict=True):
                keys[i] = image_key(decoded).digest
                odd += [oddity] if (oddity := pixels.oddity(decoded)) is not None else []
                fitted = pixels.square(decoded, reading.image_size, reading.fit, grey)
                os.pwrite(file, fitted.tobytes(), i * size)
            return odd

        try:
            results = of_files(listing, work, "preparing images")
            os.fsync(file)
        finally:
            os.close(file)
        faults = [(i, error) for i, error in enumerate(results) if isinstance(error, Unusable)]
        if faults:
            raise unusable(listing, faults)
        for odd in results:
            for oddity in odd:
                oddities[oddity] = oddities.get(oddity, 0) + 1
        np.savez(
            part / _INDEX,
            keys=keys,
            oddities=np.array(list(oddities), dtype=np.str_),
            counts=np.array(list(oddities.values()), dtype=np.int64),
        )
        part.rename(folder)
    except OSError as error:
        raise _no_disk(folder, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _make_room(home: Path, size: int) -> None:
    """Delete images that no job used for a month. Raises `WorkFailed` where that is too little."""
    for index in home.glob(f"*/{_INDEX}"):
        with suppress(OSError):
            if time.time() - index.stat().st_mtime > _UNUSED_S:
                shutil.rmtree(index.parent)
    free = shutil.disk_usage(home).free
    if free < size * _ROOM:
        raise WorkFailed(
            f"dataset: the prepared images take {size / 1e9:.1f} GB and {free / 1e9:.1f} GB are "
            f"free in {home}; make room, or set PEPR_IMAGES to a folder on another disk"
        )


def _no_disk(folder: Path, error: OSError) -> WorkFailed:
    return WorkFailed(
        f"dataset: prepared images cannot be written to {folder.parent} ({error.strerror}); make "
        "room, or set PEPR_IMAGES to another folder"
    )
