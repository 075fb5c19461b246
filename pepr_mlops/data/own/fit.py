"""How an image becomes square. Pure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps

from pepr_mlops.data.splits import Pixels

_BILINEAR = Image.Resampling.BILINEAR


def _stretch(image: Image.Image, size: int) -> Image.Image:
    return image.resize((size, size), _BILINEAR)


def _pad(image: Image.Image, size: int) -> Image.Image:
    # `ImageOps.pad` leaves nothing of an image that is hundreds of times as long as wide.
    longest = max(image.size)
    width, height = (max(1, round(side * size / longest)) for side in image.size)
    black = Image.new(image.mode, (size, size))
    black.paste(
        image.resize((width, height), _BILINEAR), ((size - width) // 2, (size - height) // 2)
    )
    return black


def _crop(image: Image.Image, size: int) -> Image.Image:
    return ImageOps.fit(image, (size, size), _BILINEAR)


_FITS: dict[str, Callable[[Image.Image, int], Image.Image]] = {
    "stretch": _stretch,
    "pad": _pad,
    "crop": _crop,
}


def square(image: Pixels, size: int, fit: str, grey: bool) -> Pixels:
    """An image [h, w] or [h, w, 3] as [size, size] if `grey`, else [size, size, 3].

    It is resized bilinearly, in pixels: the spacing of a scanner is not considered. `stretch`
    resizes each side alone. `pad` makes the longest side `size` and rounds the other, to one pixel
    at least, between black bars; of an odd number of black rows or columns, the further one is
    below or on the right. `crop` resizes the largest square in the centre, which may begin at half
    a pixel. All three are the same for a square image.
    """
    colour = Image.fromarray(image).convert("L" if grey else "RGB")
    return np.asarray(_FITS[fit](colour, size))
