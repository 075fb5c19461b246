"""Whether shares of images, such as accuracies, are counts of one number of images. Pure.

An accuracy on n images is a multiple of 1/n. One that is none comes from other images or from
another computation: the GRIM test (N. Brown, J. Heathers, "The GRIM Test", Social Psychological and
Personality Science 2017). Here n is what the others of the set agree on: it need not be that of the
test set, since some programs average over full batches only.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Shares = NDArray[np.float64]

_EXACT = 1e-7  # of shares that were computed in single precision
_MOST = 50_000  # images, of which one in a hundred shares is a count by chance
_FEWEST = 5  # different shares that have to agree, ...
_AGREE = 0.8  # ... and their part of all
_CHANCE = 1e-6  # that most counts of a multiple of n images happen to be counts of n
_FROM = 40  # different shares are enough to find the count


def image_count(shares: Shares) -> int | None:
    """The number of images of which most `shares` are counts; None where too few are, or where it
    may be that of their decimals."""
    values = np.unique(shares[(shares > 0) & (shares < 1)])
    if len(values) < _FEWEST:
        return None
    some = values[:: math.ceil(len(values) / _FROM)]
    every = np.arange(2, _MOST + 1)
    for n in every[is_count_of(some[:, None], every).mean(axis=0) >= _AGREE].tolist():
        agree = int(is_count_of(values, n).sum())
        if agree >= max(_FEWEST, _AGREE * len(values)):
            n *= _factor(values, n, agree)
            return None if n == 10 ** round(math.log10(n)) else n
    return None


def is_count_of(shares: Shares, n: int | NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which shares are counts of n images."""
    counts = shares * n
    return np.asarray(np.abs(counts - np.round(counts)) <= _EXACT * n)


def _factor(values: Shares, n: int, agree: int) -> int:
    """By how much n has to be multiplied to be that of all values, where it may be by chance that
    so many of them are counts of n; else 1."""
    total = len(values)
    for k in range(1, _MOST // n + 1):
        ways = sum(math.comb(total, i) * (k - 1) ** (total - i) for i in range(agree, total + 1))
        if Fraction(ways, k**total) < _CHANCE:
            return 1
        if is_count_of(values, k * n).all():
            return k
    return 1
