"""Which grey values become black, white and what is between them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from pepr_mlops.data.splits import Pixels

Values = npt.NDArray[Any]
SHARES = (0.005, 0.995)  # of the values, at the bounds of `Percentiles`
MOST = 2**20  # different values that `Percentiles` distinguishes


def between(values: Values, low: float, high: float) -> Pixels:
    """Values up to `low` black, from `high` white, and those between them linear, rounded to the
    nearest and to the even of two.

    Where the bounds are the same, only what is above them is white: a set of images of a single
    value is black.
    """
    if high <= low:
        above: Pixels = np.where(values > low, 255, 0).astype(np.uint8)
        return above
    exact = values.astype(np.float64)  # in place from here on: images may be large
    exact -= low
    exact *= 255  # before it is divided: whole numbers stay exact until then
    exact /= high - low
    np.clip(exact, 0, 255, out=exact)
    return np.rint(exact, out=exact).astype(np.uint8)


def linear(values: Values, centre: float, width: float) -> Pixels:
    """The window LINEAR of DICOM (PS3.3, C.11.2.1.2.1), `width` from 1: from centre - width/2
    black to centre + width/2 - 1 white, which is ((x - (c - 0.5)) / (w - 1) + 0.5) * 255."""
    return between(values, centre - width / 2, centre + width / 2 - 1)


def linear_exact(values: Values, centre: float, width: float) -> Pixels:
    """The window LINEAR_EXACT of DICOM (C.11.2.1.3.2), `width` above 0."""
    return between(values, centre - width / 2, centre + width / 2)


def sigmoid(values: Values, centre: float, width: float) -> Pixels:
    """The window SIGMOID of DICOM (C.11.2.1.3.1), `width` above 0."""
    share: Values = expit(4 * (values.astype(np.float64) - centre) / width)
    return np.asarray(np.rint(share * 255), np.uint8)


class Function(NamedTuple):
    apply: Callable[[Values, float, float], Pixels]
    is_width: Callable[[float], bool]


FUNCTIONS = {
    "LINEAR": Function(linear, lambda width: width >= 1),
    "LINEAR_EXACT": Function(linear_exact, lambda width: width > 0),
    "SIGMOID": Function(sigmoid, lambda width: width > 0),
}


class Percentiles:
    """The 0.5 and 99.5% percentiles of all values added, in bounded memory.

    They equal those of `numpy.percentile` as long as at most `MOST` values differ. Beyond, values
    next to each other are joined to their mean, with at most two in `MOST` of all values in a
    joint, unless they are the same.
    """

    def __init__(self) -> None:
        self._values: npt.NDArray[np.float64] = np.empty(0)
        self._counts: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._added: list[tuple[Values, npt.NDArray[np.int64]]] = []

    def add(self, values: Values) -> None:
        """Add finite values of any shape."""
        self._added.append(np.unique(values, return_counts=True))
        if sum(len(counts) for _, counts in self._added) > MOST:
            self._merge()

    def bounds(self) -> tuple[float, float]:
        """The percentiles. Raises `ValueError` where no value was added."""
        low, high = self.quantiles(SHARES)
        return low, high

    def quantiles(self, shares: Iterable[float]) -> list[float]:
        """The values at shares from 0 to 1 of all. Raises as `bounds`."""
        self._merge()
        if not len(self._values):
            raise ValueError("there are no values to take percentiles of")
        return [self._at(share) for share in shares]

    def _at(self, share: float) -> float:
        """The value at a share of the sorted values, linear between two (as numpy, to the bit)."""
        last = np.cumsum(self._counts) - 1  # place of the last of each value, from 0
        place = int(last[-1]) * share
        at = int(place)
        a, b = self._values[np.searchsorted(last, [at, min(at + 1, int(last[-1]))])]
        part = place - at
        return float(a + (b - a) * part if part < 0.5 else b - (b - a) * (1 - part))

    def _merge(self) -> None:
        values = np.concatenate([self._values, *(values for values, _ in self._added)])
        counts = np.concatenate([self._counts, *(counts for _, counts in self._added)])
        self._added = []
        self._values, where = np.unique(values, return_inverse=True)
        self._counts = np.zeros(len(self._values), np.int64)
        np.add.at(self._counts, where, counts)
        if len(self._values) > MOST:
            self._halve()

    def _halve(self) -> None:
        """Join neighbours to at most half of `MOST` joints."""
        before = np.cumsum(self._counts) - self._counts
        joint = before // -(-int(self._counts.sum()) // (MOST // 2))
        first = np.flatnonzero(np.diff(joint, prepend=-1))
        counts = np.add.reduceat(self._counts, first)
        self._values = np.add.reduceat(self._values * self._counts, first) / counts
        self._counts = counts
