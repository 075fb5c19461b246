"""From the files of a data set of one's own to 8-bit images, whatever kind they are of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from pepr_mlops.data.own.kinds import Kind, kind_of
from pepr_mlops.data.own.reading import Frame, Reader, Reading, Unusable, Values
from pepr_mlops.data.own.window import Percentiles, between, linear_exact
from pepr_mlops.data.resize import square
from pepr_mlops.data.splits import Pixels
from pepr_mlops.validation import window_bounds

__all__ = (
    "Head",
    "Percentiles",
    "Reading",
    "Unusable",
    "head",
    "images",
    "oddity",
    "saved_as",
    "square",
    "values",
)
CONSTANT = "is constant"
_FEW = 4  # different values at most, as a mask has
_STEP = 97  # between the pixels of a sample; no usual width is a multiple of it

_Way = Literal["colour", "given", "percentile", "own", "stored"]


class Head(NamedTuple):
    """What the header of a file says under a reading; nothing is decoded.

    `frames` are the numbers, from 0, of the frames or slices that are images, in their order, and
    `further` counts those that are passed over. `grey` is whether there is one channel. `bounded`
    files need the bounds of `Percentiles`. `patient` is DICOM's PatientID, None if absent or blank.
    """

    frames: tuple[int, ...]
    grey: bool
    bounded: bool
    further: int
    patient: str | None
    kind: Kind


def head(path: Path, reading: Reading) -> Head:
    """What the header of a file says. Raises `Unusable` for a file that gives no image."""
    with _plain_faults():
        kind = _kind(path)
        found = _reader(kind).contents(path, reading)
    way = _way(found.grey, found.deep, found.windowed, reading.window)
    return Head(found.frames, found.grey, way == "percentile", found.further, found.patient, kind)


def values(path: Path, frames: Sequence[int], reading: Reading) -> Iterator[Values]:
    """The grey values of frames of a bounded file, rescaled to the unit of the scanner, without
    those that are padding, [n] or [h, w]. Those of MONOCHROME1 are as they are: `images` inverts
    after the window. Raises `Unusable`."""
    for frame in _decoded(path, frames, reading):
        yield frame.values if frame.padding is None else frame.values[~frame.padding]


def images(
    path: Path, frames: Sequence[int], reading: Reading, bounds: tuple[float, float] | None
) -> Iterator[Pixels]:
    """Frames at their own size, uint8 [h, w] grey or [h, w, 3] RGB.

    `bounds` become black and white in bounded files. Raises `Unusable`, and `ValueError` for a
    bounded file without bounds.
    """
    for frame in _decoded(path, frames, reading):
        grey = frame.values.ndim == 2
        way = _way(grey, frame.white is None, frame.own is not None, reading.window)
        image = _windowed(frame, way, reading, bounds)
        yield 255 - image if frame.inverted else image


def saved_as(path: Path) -> tuple[str, str]:
    """Pillow's names for the colours and the format of a picture, such as P and PNG; the kind of
    any other file, whose colours are those of its images. Raises `Unusable`."""
    with _plain_faults():
        kind = _kind(path)
        if kind != "picture":
            return "", kind
        from pepr_mlops.data.own import pictures

        return pictures.saved_as(path)


def oddity(image: Pixels) -> str | None:
    """What is strange about an image [h, w] or [h, w, 3], None for a usual one."""
    pixels = image.reshape(image.shape[0] * image.shape[1], -1)
    if _different(pixels[::_STEP]) > _FEW:  # as most are
        return None
    n = _different(pixels)
    if n > _FEW:
        return None
    what = "grey values" if image.ndim == 2 else "colours"
    return CONSTANT if n == 1 else f"has only {n} {what}"


def _different(pixels: Pixels) -> int:
    """How many of the pixels [n, channels] differ, counted until they are over `_FEW`."""
    n = 0
    while len(pixels) and n <= _FEW:
        pixels = pixels[(pixels != pixels[0]).any(axis=1)]
        n += 1
    return n


def _windowed(
    frame: Frame, way: _Way, reading: Reading, bounds: tuple[float, float] | None
) -> Pixels:
    if way == "own" and frame.own is not None:
        return frame.own(frame.values)
    if way == "given" and (given := window_bounds(reading.window)):
        return linear_exact(frame.values, *given)
    if way == "percentile":
        if bounds is None:
            raise ValueError("a bounded file needs the bounds of Percentiles")
        return between(frame.values, *bounds)
    if frame.white in (None, 255):
        return frame.values
    return between(frame.values, 0, frame.white)


def _way(grey: bool, deep: bool, windowed: bool, window: str) -> _Way:
    """How grey values are chosen. Raises `Unusable` where the window does not suit the file."""
    if not grey:
        if window not in ("auto", "dicom"):
            raise Unusable(
                "is in colour, and a window is of grey values; choose --window auto or save it as "
                "grey"
            )
        return "colour"
    if window_bounds(window):
        return "given"
    if window == "percentile":
        return "percentile"
    if windowed:
        return "own"
    if not deep:
        return "stored"
    if window == "dicom":
        raise Unusable(
            "has over 8 bits and no window of its own; choose --window auto, percentile or "
            "CENTER,WIDTH"
        )
    return "percentile"


def _decoded(path: Path, frames: Sequence[int], reading: Reading) -> Iterator[Frame]:
    with _plain_faults():
        for frame in _reader(_kind(path)).frames(path, frames, reading):
            if frame.values.dtype.kind == "f" and not np.isfinite(frame.values).all():
                raise Unusable("has values that are not finite; replace them or remove it")
            yield frame


def _kind(path: Path) -> Kind:
    kind = kind_of(path)
    if kind is None:
        raise Unusable("is no image by its name; rename or remove it")
    if path.stat().st_size == 0:
        raise Unusable("is empty; copy it again or remove it")
    return kind


def _reader(kind: Kind) -> Reader:
    """The module for a kind, imported when needed: pydicom and nibabel take a second."""
    match kind:
        case "picture":
            from pepr_mlops.data.own import pictures

            return pictures
        case "array":
            from pepr_mlops.data.own import arrays

            return arrays
        case "dicom":
            from pepr_mlops.data.own import dicom

            return dicom
        case "nifti":
            from pepr_mlops.data.own import volumes

            return volumes


@contextmanager
def _plain_faults() -> Iterator[None]:
    """Any error as `Unusable`, without its text and cause, which may quote the file."""
    try:
        yield
    except (Unusable, MemoryError):
        raise
    except Exception as error:  # libraries raise almost any error on damaged files
        why = (isinstance(error, OSError) and error.strerror) or type(error).__name__
        raise Unusable(f"cannot be read ({why}); repair or remove it") from None
