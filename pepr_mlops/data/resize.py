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
    size: int,
    other: Any,
    fit: str,
    *,
    least: Callable[[Any, Any], Any] = min,
    most: Callable[[Any, Any], Any] = max,
) -> Any:
    """How much each pixel of one side of an image counts in each pixel of the square, [size, n].

    `rows` are 0 to `size` - 1 as floats [size, 1] and `columns` 0 to n - 1 [1, n], arrays of NumPy
    or tensors of PyTorch; `other` is the length of the other side. With `least` and `most` of
    torch, which take symbolic lengths, the graph of a model can be exported for any n.

    `stretch` resizes each side alone. `pad` makes the longest side `size` and rounds the other, to
    one pixel at least, between black bars; of an odd number of black rows or columns, the further
    one is below or on the right. `crop` resizes the largest square in the centre, which may begin
    at half a pixel. All three are the same for a square image.
    """
    n = columns.shape[1]
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
    found = (1 - abs(columns + 0.5 - centres) / most(scale, 1.0)).clip(min=0)
    total = found.sum(1)[:, None]
    inside = (rows >= first) & (rows < first + count)
    return found * inside / (total + (total == 0))


def square(image: Pixels, size: int, fit: str, grey: bool) -> Pixels:
    """An image [h, w] or [h, w, 3] as [size, size] if `grey`, else [size, size, 3].

    `fit` is as in `weights`. It is in pixels: the spacing of a scanner is not considered.
    """
    colour = np.asarray(Image.fromarray(image).convert("L" if grey else "RGB"))
    height, width = colour.shape[:2]
    if height == width == size:
        return colour
    down = _sparse(height, width, size, fit) @ colour.reshape(height, -1).astype(np.float32)
    across = down.reshape(size, width, -1).swapaxes(0, 1).reshape(width, -1)
    found = (_sparse(width, height, size, fit) @ across).reshape(size, size, -1).swapaxes(0, 1)
    exact = np.clip(np.floor(found + np.float32(HALF)), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(exact[..., 0] if grey else exact)


@lru_cache(maxsize=64)
def _sparse(n: int, other: int, size: int, fit: str) -> csr_array:
    rows, columns = np.arange(size, dtype=float)[:, None], np.arange(n, dtype=float)[None]
    return csr_array(weights(rows, columns, size, other, fit).astype(np.float32))
