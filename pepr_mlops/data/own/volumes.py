"""Slices of volumes in NIfTI files.

Axes are those of the patient that the file's axes are closest to: 0 from left to right, 1 from
posterior to anterior, 2 from feet to head. Slices are numbered in that direction and lie as DICOM
shows them: axial ones with anterior on top, sagittal and coronal ones with the head on top; the
patient's right, or anterior, is on the left.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, io_orientation

from pepr_mlops.data.own.reading import Contents, Frame, Reading, Unusable, Values, check_size

_HIGHEST_RATIO = 1032  # of gzip: a claim beyond it cannot be true
# It prints a line for each oddity of a header that nibabel itself corrects.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)


class _Volume(NamedTuple):
    """`orientation` [3, 2] is that of nibabel, `shape` that of the oriented volume; there are
    `volumes` in the file."""

    data: Any
    orientation: Values
    shape: tuple[int, ...]
    volumes: int

    @property
    def white(self) -> int | None:
        eight_bits = self.data.dtype == np.uint8 and (self.data.slope, self.data.inter) == (1, 0)
        return 255 if eight_bits else None


def contents(path: Path, reading: Reading) -> Contents:
    """Every `reading.every`-th slice from the first on, of the first volume."""
    volume = _opened(path)
    slices = volume.shape[reading.axis]
    taken = tuple(range(0, slices, reading.every))
    further = slices * volume.volumes - len(taken)
    return Contents(taken, further, grey=True, deep=volume.white is None)


def frames(path: Path, numbers: Sequence[int], reading: Reading) -> Iterator[Frame]:
    volume = _opened(path)
    several = len(volume.data.shape) > 3  # of which the first is read, scaled
    first = volume.data[(..., *[0] * (len(volume.data.shape) - 3))] if several else None
    stored = volume.data.get_unscaled() if first is None else first
    oriented = apply_orientation(stored, volume.orientation)
    for number in numbers:
        values = np.flip(np.take(oriented, number, reading.axis).T)
        if first is None and (volume.data.slope, volume.data.inter) != (1, 0):
            values = values.astype(np.float64) * volume.data.slope + volume.data.inter
        yield Frame(values, volume.white)


def _opened(path: Path) -> _Volume:
    image: Any = nib.load(path)
    if not isinstance(image, nib.Nifti1Image) or len(image.shape) < 3:
        raise Unusable("is no volume of three dimensions; save it as one or remove it")
    data: Any = image.dataobj
    if data.dtype.kind not in "uif":
        raise Unusable("has voxels that are no grey values; save it as grey or remove it")
    orientation = io_orientation(image.affine)
    if np.isnan(orientation).any():
        raise Unusable("does not say which way its axes point; repair its affine or remove it")
    sides = [image.shape[int(i)] for i in np.argsort(orientation[:, 0])]
    for axis in range(3):
        check_size(*(side for i, side in enumerate(sides) if i != axis))
    ratio = _HIGHEST_RATIO if path.suffix.lower() == ".gz" else 1
    claimed = data.offset + math.prod(image.shape) * data.dtype.itemsize
    if claimed > path.stat().st_size * ratio:
        raise Unusable("is truncated; copy it again or remove it")
    return _Volume(data, orientation, tuple(sides), math.prod(image.shape[3:]))
