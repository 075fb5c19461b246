"""From a CT slice to a grey patch. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

Hounsfield = npt.NDArray[np.float32]
SIDE = 512  # pixels, of every CT slice of the collection


def corner(row: int, column: int, side: int) -> tuple[int, int]:
    """First row and column of a square of `side` pixels around a pixel of a slice. At an edge the
    square is moved inwards, so that all its pixels are in the slice."""
    return min(max(row - side // 2, 0), SIDE - side), min(max(column - side // 2, 0), SIDE - side)


def grey(
    hounsfield: Hounsfield, window_hu: tuple[float, float], size: int
) -> npt.NDArray[np.uint8]:
    """A square of Hounsfield units as [size, size] grey levels: 0 up to the lower end of the
    window, 255 from its upper end, which training turns into 0 to 1.

    It is windowed before it is resized (bilinearly; averaged when it shrinks), so that bone or
    metal next to a nodule does not outshine it, and rounded once at the end.
    """
    low, high = window_hu
    share = (np.clip(hounsfield, low, high) - low) / (high - low)
    image = Image.fromarray(share.astype(np.float32))
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(np.rint(np.asarray(image).clip(0, 1) * 255), dtype=np.uint8)
