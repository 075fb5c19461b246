"""Images in files of NumPy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pepr_mlops.data.own.reading import Contents, Frame, Reading, Unusable, Values, check_size


def contents(path: Path, reading: Reading) -> Contents:
    array = _mapped(path)
    return Contents((0,), 0, grey=array.ndim == 2, deep=_white(array) is None)


def frames(path: Path, numbers: Sequence[int], reading: Reading) -> Iterator[Frame]:
    """The array, once for each number."""
    array = _mapped(path)
    for _ in numbers:
        yield Frame(np.array(array), _white(array))


def _mapped(path: Path) -> Values:
    """The array [h, w] of numbers, or uint8 [h, w, 3]; nothing is read before it is used."""
    try:
        array: Values = np.lib.format.open_memmap(path, mode="r")
    except ValueError:  # of an object, too, which could run code
        raise Unusable(
            "is truncated or no array of numbers; save it again with numpy.save"
        ) from None
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    colour = array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8
    if array.dtype.kind not in "buif" or not (array.ndim == 2 or colour):
        raise Unusable(
            "is neither [height, width] of numbers nor uint8 [height, width, 3]; save each image "
            "to a file of its own"
        )
    check_size(*array.shape[:2])
    return array


def _white(array: Values) -> int | None:
    return {"bool": 1, "uint8": 255}.get(array.dtype.name)
