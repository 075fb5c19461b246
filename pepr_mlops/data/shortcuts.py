"""Whether a property of the files (size, colour mode, format) predicts the class. Pure."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import compress
from statistics import mode
from typing import NamedTuple

import pandas as pd

_TENTH = 0.1  # of the mistakes of always guessing the largest class
_BEYOND_CHANCE = 2  # square roots of those mistakes


class Shortcut(NamedTuple):
    """How many of `n` images are guessed right by a property, and by always naming the largest
    class. `values` are those of the property, those of most images first: value, images, the most
    frequent class of these images, and how many of them are of it."""

    n: int
    right: int
    right_by_largest: int
    values: tuple[tuple[str, int, str, int], ...]


def shortcut(values: Sequence[str], labels: Sequence[str]) -> Shortcut | None:
    """How well the values [n] of a property predict the labels [n], or None if not well enough.

    Half of the images, every second of each class, serve to guess the classes of the others, and
    the reverse, so that a value of a single image predicts nothing. The guess is the most frequent
    class among images of the same value, or the largest class if there is none. A property predicts
    the class if it spares a tenth of the mistakes of always naming the largest class, and twice
    their square root, which rarely happens by chance.
    """
    classes = pd.Series(labels, dtype=object)
    half = classes.groupby(classes, sort=False).cumcount().to_numpy() % 2
    images = list(zip(values, labels, strict=True))
    right = right_by_largest = 0
    for own in (0, 1):
        others = list(compress(images, half != own))
        largest = mode(label for _, label in others) if others else None
        guess = {value: label for value, _, label, _ in _by_value(others)}
        for value, label in compress(images, half == own):
            right += guess.get(value, largest) == label
            right_by_largest += largest == label
    mistakes, spared = len(labels) - right_by_largest, right - right_by_largest
    if not mistakes or spared < max(_TENTH * mistakes, _BEYOND_CHANCE * math.sqrt(mistakes)):
        return None
    return Shortcut(len(labels), right, right_by_largest, tuple(_by_value(images)))


def _by_value(images: Iterable[tuple[str, str]]) -> list[tuple[str, int, str, int]]:
    """The `values` of a `Shortcut`. Of classes that are equally frequent the first counts."""
    by_value: dict[str, Counter[str]] = defaultdict(Counter)
    for value, label in images:
        by_value[value][label] += 1
    rows = [(value, n.total(), *n.most_common(1)[0]) for value, n in by_value.items()]
    return sorted(rows, key=lambda row: -row[1])
