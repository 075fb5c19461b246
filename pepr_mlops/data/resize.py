"""How an image becomes square: one resize for training, prediction and exported graphs. Pure.

It is bilinear, with antialiasing where it shrinks (Pillow's and PyTorch's weights), computed from
floats and then rounded to 8 bits, as an image would be that was saved at that size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image
from scipy.sparse import csr_array

from pepr_mlops.data.splits import Pixels

NAME = "bilinear, antialiased, 8 bits"
# Added before the fraction is cut off. A half is rounded up even where a sum of floats has missed
# it, so that other libraries and devices give the same pixels; 0.5 alone would be a coin toss.
HALF = 0.501


def weights(
    rows: Any,
    columns: Any,
    n: Any,
    size: int,
    other: Any,
    fit: str,
    *,
    least: Callable[[Any, Any], Any] = min,
    most: Callable[[Any, Any], Any] = max,
) -> Any:
    """How much pixels of one side of an image count in pixels of the square.

    `rows` are pixels of the square, as floats [rows, 1], and `columns` those of the side of length
    `n`, [1, columns] or [rows, columns]; arrays of NumPy or tensors of PyTorch. To each row belong
    all columns that count in it. `other` is the length of the other side. With `least` and `most`
    of torch, which take symbolic lengths, the graph of a model can be exported for any n.

    `stretch` resizes each side alone. `pad` makes the longest side `size` and rounds the other, to
    one pixel at least, between black bars; of an odd number of black rows or columns, the further
    one is below or on the right. `crop` resizes the largest square in the centre, which may begin
    at half a pixel. All three are the same for a square image.
    """
    centres, scale, inside = _centres(rows, n, size, other, fit, least, most)
    found = (1 - abs(columns + 0.5 - centres) / most(scale, 1.0)).clip(min=0)
    total = found.sum(1)[:, None]
    return found * inside / (total + (total == 0))


def _centres(
    rows: Any,
    n: Any,
    size: int,
    other: Any,
    fit: str,
    least: Callable[[Any, Any], Any],
    most: Callable[[Any, Any], Any],
) -> tuple[Any, Any, Any]:
    """Where the middle of each row is on the side, how many pixels of the side make one of the
    square, and which rows are within the image."""
    first, count, start, length = 0, size, 0, n
    if fit == "pad":
        longest = most(n, other)
        count = most(1, (2 * size * n + longest) // (2 * longest))
        first = (size - count) // 2
    elif fit == "crop":
        length = least(n, other)
        start = (n - length) / 2
    scale = length / count
    centres = start + (rows - first + 0.5) * scale
    return centres, scale, (rows >= first) & (rows < first + count)


def square(image: Pixels, size: int, fit: str, grey: bool) -> Pixels:
    """An image [h, w] or [h, w, 3] as [size, size] if `grey`, else [size, size, 3].

    `fit` is as in `weights`. It is in pixels: the spacing of a scanner is not considered.
    """
    colour = np.asarray(Image.fromarray(image).convert("L" if grey else "RGB"))
    height, width = colour.shape[:2]
    if height == width == size:
        return colour
    turned = height < size < width  # the long side first: more rows of it would take long
    n, other = (width, height) if turned else (height, width)
    pixels = (colour.swapaxes(0, 1) if turned else colour).reshape(n, -1)
    first = _sparse(n, other, size, fit) @ pixels.astype(np.float32)
    second = first.reshape(size, other, -1).swapaxes(0, 1).reshape(other, -1)
    found = (_sparse(other, n, size, fit) @ second).reshape(size, size, -1)
    found = found if turned else found.swapaxes(0, 1)
    exact = np.clip(np.floor(found + np.float32(HALF)), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(exact[..., 0] if grey else exact)


@lru_cache(maxsize=64)
def _sparse(n: int, other: int, size: int, fit: str) -> csr_array:
    """`weights` of all rows and columns, [size, n]. Only columns near a row count in it."""
    rows = np.arange(size, dtype=float)[:, None]
    centres, scale, _ = _centres(rows, n, size, other, fit, min, max)
    reach = max(scale, 1.0)
    taps = min(n, int(2 * reach) + 3)
    begin = np.clip(np.floor(centres - reach) - 1, 0, n - taps)
    columns = begin + np.arange(taps)
    found = weights(rows, columns, n, size, other, fit).astype(np.float32)
    ends = np.arange(size + 1) * taps
    sparse = csr_array((found.ravel(), columns.astype(np.int32).ravel(), ends), shape=(size, n))
    sparse.eliminate_zeros()
    return sparse
