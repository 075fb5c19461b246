"""Images as the model takes them, made once and kept on disk as 8-bit pixels."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from pepr_mlops.data import digest
from pepr_mlops.data.duplicates import image_key
from pepr_mlops.data.own import pixels
from pepr_mlops.data.own.listing import Listing
from pepr_mlops.data.own.pixels import Reading, Unusable
from pepr_mlops.data.own.scan import Scan, of_files, unusable
from pepr_mlops.data.stored import Stored
from pepr_mlops.errors import WorkFailed
from pepr_mlops.files import BINARY, images_folder, write_at

Bounds = tuple[float, float]
Keys = npt.NDArray[np.bytes_]

_PIXELS, _INDEX = "images.u8", "index.npz"
_WAY = 2  # of reading and resizing; another number where other pixels come of the same files
_OWN = re.compile(r"[0-9a-f]{32}(\.part|\.lock)?|[0-9a-f]{16}\.scan\.npz")  # what is kept here
_UNUSED_S = 30 * 86400.0  # a folder that no job used for so long is deleted before another is made
_ROOM = 1.02  # times the bytes of the images that must be free


@dataclass(frozen=True)
class Prepared:
    """`images` [N, size, size] grey or [N, size, size, 3] RGB. `keys` [N] are digests of the images
    at their own size. `oddities` counts images that may be no image, by what they are."""

    images: Stored
    keys: Keys
    oddities: dict[str, int]

    def notes(self) -> list[str]:
        """Sentences on images that may be no images."""
        return [odd_text(count, len(self.keys), what) for what, count in self.oddities.items()]


def odd_text(count: int, images: int, oddity: str) -> str:
    """The sentence on images that may be no image."""
    return f"{count:,} of {images:,} images may be wrong: each {oddity}"


def blank_text(constant: int, images: int, window: str) -> str | None:
    """Why images cannot be used of which so many are constant, or None where they can."""
    if constant <= images / 2:
        return None
    return (
        f"{constant:,} of {images:,} images are of one grey value with --window {window}; choose "
        "another window (`pepr data describe` shows the grey values) or remove them"
    )


def prepare(
    listing: Listing,
    found: Scan,
    reading: Reading,
    bounds: Bounds | None,
    *,
    grey: bool,
    note: Callable[[str], None],
) -> Prepared:
    """The images of a scan, read from disk if they were prepared before.

    `grey` makes all images grey. They depend on the content of the files and on `reading`, and not
    on labels and splits. Two jobs never prepare the same images at once: one waits for the other.
    What was interrupted or damaged is made again. Raises `WrongUse` for files that give no image,
    and `WorkFailed` where the disk has no room or a file changes meanwhile.
    """
    files = digest.of_files(listing.root, listing.files.tolist())
    settings = json.dumps([_WAY, files, *astuple(reading), bounds, grey])
    name = hashlib.blake2b(settings.encode(), digest_size=16).hexdigest()
    folder = images_folder() / name
    image = (reading.image_size, reading.image_size, *(() if grey else (3,)))
    size = len(found.file) * math.prod(image)
    with _alone(folder, note):
        made = _earlier(folder, image, size)
        if made is None:
            shutil.rmtree(folder, ignore_errors=True)
            _make_room(folder.parent, size)
            _write(folder, listing, found, reading, bounds, image, files)
            made = _earlier(folder, image, size)
    if made is None:
        raise WorkFailed(
            f"dataset: prepared images in {folder.parent} cannot be read back; set PEPR_IMAGES to "
            "a folder on another disk"
        )
    return made


def _earlier(folder: Path, image: tuple[int, ...], size: int) -> Prepared | None:
    """The images in a folder, None where there are none or they are damaged."""
    # A damaged archive raises errors of many kinds.
    with suppress(Exception), np.load(folder / _INDEX) as index:
        if (folder / _PIXELS).stat().st_size == size:
            os.utime(folder / _INDEX)
            keys = index["keys"]
            odd = zip(index["oddities"].tolist(), index["counts"].tolist(), strict=True)
            return Prepared(Stored(folder / _PIXELS, image, np.arange(len(keys))), keys, dict(odd))
    return None


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
    files: str,
) -> None:
    """Prepare the images in `folder`, unless the digest of the files is no longer `files`."""
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    grey = len(image) == 2
    size = math.prod(image)
    keys = np.zeros(len(found.file), dtype="S16")
    starts = np.searchsorted(found.file, np.arange(len(listing) + 1))
    try:
        part.mkdir(mode=0o700)
        file = os.open(part / _PIXELS, os.O_WRONLY | os.O_CREAT | BINARY, 0o600)

        def work(row: int) -> list[str]:
            rows = range(starts[row], starts[row + 1])
            frames = found.frame[starts[row] : starts[row + 1]].tolist()
            own = pixels.images(listing.root / listing.files[row], frames, reading, bounds)
            odd = []
            for i, decoded in zip(rows, own, strict=True):
                keys[i] = image_key(decoded).digest
                odd += [oddity] if (oddity := pixels.oddity(decoded)) is not None else []
                fitted = pixels.square(decoded, reading.image_size, reading.fit, grey)
                write_at(file, fitted.tobytes(), i * size)
            return odd

        try:
            results = of_files(listing, work, "preparing images")
            os.fsync(file)
        finally:
            os.close(file)
        faults = [(i, error) for i, error in enumerate(results) if isinstance(error, Unusable)]
        if faults:
            raise unusable(listing, faults)
        if digest.of_files(listing.root, listing.files.tolist()) != files:
            raise WorkFailed(
                "dataset: a file has changed while its image was prepared; start the job again",
                reason="data_changed",
            )
        oddities = Counter(oddity for odd in results for oddity in odd)
        with (part / _INDEX).open("wb") as index:
            np.savez(
                index,
                keys=keys,
                oddities=np.array(list(oddities), dtype=np.str_),
                counts=np.array(list(oddities.values()), dtype=np.int64),
            )
            index.flush()
            os.fsync(index.fileno())
        part.rename(folder)
    except OSError as error:
        raise _no_disk(folder, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _make_room(home: Path, size: int) -> None:
    """Delete what no job used for a month: images, parts of them, and what headers said. Other
    files in the folder, which the user chooses, stay. Raises `WorkFailed` where that is too little.
    """
    for path in home.iterdir():
        if not _OWN.fullmatch(path.name):
            continue
        used = path / _INDEX if (path / _INDEX).exists() else path
        with suppress(OSError):
            if time.time() - used.stat().st_mtime > _UNUSED_S:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
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
