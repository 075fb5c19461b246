"""Files read as a data set reads them: bounds first where they are needed, then images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pepr_mlops.data.own import pixels
from pepr_mlops.data.own.pixels import Percentiles, Reading


def reading(
    window: str = "auto", *, frames: str = "first", axis: int = 2, every: int = 1
) -> Reading:
    return Reading(64, "stretch", frames, window, axis, every)


def decoded(path: Path, how: Reading) -> list[np.ndarray]:
    """All images of one file, with its own percentiles where it needs bounds."""
    head = pixels.head(path, how)
    bounds = None
    if head.bounded:
        found = Percentiles()
        for values in pixels.values(path, head.frames, how):
            found.add(values)
        bounds = found.bounds()
    images = list(pixels.images(path, head.frames, how, bounds))
    assert len(images) == len(head.frames)
    assert all(image.dtype == np.uint8 for image in images)
    assert all((image.ndim == 2) == head.grey for image in images)
    return images
