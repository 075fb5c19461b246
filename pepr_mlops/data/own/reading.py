"""How files become images, and what the reader of each kind of file gives for it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pepr_mlops.data.splits import Pixels

Values = npt.NDArray[Any]  # of any kind of number
MOST_PIXELS = 178_956_970  # of one image: twice Pillow's MAX_IMAGE_PIXELS, from where it refuses


class Unusable(Exception):
    """Why a file gives no image, and the remedy. The sentence lacks its subject, the file, and
    quotes nothing that the file contains."""


@dataclass(frozen=True)
class Reading:
    """How files become images: the fields of `RunSpec` of the same names."""

    image_size: int
    fit: str
    frames: str
    window: str
    axis: int
    every: int


class Contents(NamedTuple):
    """What the header of a file says. `frames` are the numbers of the frames that are images,
    `further` counts the others. `deep` values are not simply from black at 0 to white at the
    largest of at most 8 bits. `windowed` files say themselves which grey values to show in all
    their `frames`.
    """

    frames: tuple[int, ...]
    further: int
    grey: bool
    deep: bool
    windowed: bool = False
    patient: str | None = None


class Frame(NamedTuple):
    """One decoded frame: `values` [h, w] grey or uint8 [h, w, 3] RGB.

    `white` is the value that is shown white where 0 is black, None of deep values. `own` applies
    the window that the file has itself. Grey is `inverted` after any window. `padding` [h, w] are
    the pixels outside the image that was taken.
    """

    values: Values
    white: int | None = 255
    own: Callable[[Values], Pixels] | None = None
    inverted: bool = False
    padding: npt.NDArray[np.bool_] | None = None


class Reader(Protocol):
    """A module that reads one kind of file. Both raise `Unusable`, or any error on damaged files.
    `frames` decodes those with the given numbers only, in their order."""

    def contents(self, path: Path, reading: Reading) -> Contents: ...
    def frames(self, path: Path, numbers: Sequence[int], reading: Reading) -> Iterator[Frame]: ...


def check_size(height: int, width: int) -> None:
    """Raise `Unusable` for an image that has no pixel or too many, before memory is used."""
    if min(height, width) < 1:
        raise Unusable("has no pixels; remove it")
    if height * width > MOST_PIXELS:
        raise too_large()


def too_large() -> Unusable:
    return Unusable(f"has over {MOST_PIXELS:,} pixels an image; save it smaller or remove it")
