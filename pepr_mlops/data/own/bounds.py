"""The grey values that become black and white where no window says so: those of training images."""

from __future__ import annotations

import numpy as np

from pepr_mlops.data.own.division import Rows
from pepr_mlops.data.own.listing import Listing
from pepr_mlops.data.own.pixels import Reading, Unusable, values
from pepr_mlops.data.own.prepared import Bounds
from pepr_mlops.data.own.scan import Faults, Scan, of_files, unusable
from pepr_mlops.data.own.window import Percentiles
from pepr_mlops.errors import WrongUse


def bounds_of(listing: Listing, found: Scan, train: Rows, reading: Reading) -> Bounds | None:
    """Percentiles of the training images that need them, None where no image of the set does.

    Raises `WrongUse` where there is no such training image, or one cannot be decoded.
    """
    bounds, faults = usable_bounds(listing, found, train, reading)
    if faults:
        raise unusable(listing, faults)
    return bounds


def usable_bounds(
    listing: Listing, found: Scan, train: Rows, reading: Reading
) -> tuple[Bounds | None, Faults]:
    """As `bounds_of`, of the files that can be decoded, and the others."""
    if not found.bounded.any():
        return None, []
    percentiles = Percentiles()
    rows = np.flatnonzero(found.bounded & np.isin(np.arange(len(listing)), found.file[train]))
    if not len(rows):
        raise WrongUse(
            "window: images of val or test need the percentiles of training images, and no "
            "training image has over 8 bits; give --window CENTER,WIDTH"
        )

    def work(row: int) -> None:
        frames = found.frame[train[found.file[train] == row]].tolist()
        for one in values(listing.root / listing.files[row], frames, reading):
            percentiles.add(one)

    results = of_files(listing, work, "window of training images", rows.tolist(), threads=1)
    faults = [
        (int(row), error)
        for row, error in zip(rows, results, strict=True)
        if isinstance(error, Unusable)
    ]
    try:
        return percentiles.bounds(), faults
    except ValueError as error:
        if faults:
            return None, faults
        raise WrongUse(
            "window: the training images have no value to take percentiles of, only padding; give "
            "--window CENTER,WIDTH"
        ) from error


def bounds_text(bounds: Bounds) -> str:
    low, high = bounds
    return f"{low:g} to {high:g}, 0.5 to 99.5% of the training images' values"
