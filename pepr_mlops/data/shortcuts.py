"""Whether a property of the files (size, colour mode, format) predicts the class. Pure."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_TENTH = 0.1  # of the mistakes of always guessing the largest class
_BEYOND_CHANCE = 2  # square roots of those mistakes


class Shortcut(NamedTuple):
    """How many of `n` images are guessed right by a property, and by always naming the largest
    class; and by value, most images first: how many have it, and its most frequent class with how
    many of them are of it."""

    n: int
    right: int
    right_by_largest: int
    values: tuple[tuple[str, int, str, int], ...]


def shortcut(values: Sequence[str], labels: Sequence[str]) -> Shortcut | None:
    """What the values [n] of a property say about the labels [n], or None where it is not much.

    The class of an image is guessed from the other half of the images, so that a value that no
    other image has says nothing: the most frequent class of those with its value, or the largest
    class where there is none. In each class every second image is of the second half. A property
    predicts the class where it spares a tenth of the mistakes that always naming the largest class
    makes, and twice their square root, which chance seldom does.
    """
    half = _halves(labels)
    right = right_by_largest = 0
    for own in (0, 1):
        others = [i for i in range(len(labels)) if half[i] != own]
        largest = _most_frequent(labels[i] for i in others)
        by_value: dict[str, list[str]] = defaultdict(list)
        for i in others:
            by_value[values[i]].append(labels[i])
        guess = {value: _most_frequent(of) for value, of in by_value.items()}
        for i in range(len(labels)):
            if half[i] == own:
                right += guess.get(values[i], largest) == labels[i]
                right_by_largest += largest == labels[i]
    mistakes, spared = len(labels) - right_by_largest, right - right_by_largest
    if not mistakes or spared < max(_TENTH * mistakes, _BEYOND_CHANCE * math.sqrt(mistakes)):
        return None
    return Shortcut(len(labels), right, right_by_largest, _by_value(values, labels))


def _halves(labels: Sequence[str]) -> list[int]:
    """0 or 1 for each image: in turns within its class."""
    seen: Counter[str] = Counter()
    halves = []
    for label in labels:
        halves.append(seen[label] % 2)
        seen[label] += 1
    return halves


def _most_frequent(labels: Iterable[str]) -> str | None:
    """Of several the one that comes first."""
    return next((label for label, _ in Counter(labels).most_common(1)), None)


def _by_value(
    values: Sequence[str], labels: Sequence[str]
) -> tuple[tuple[str, int, str, int], ...]:
    by_value: dict[str, Counter[str]] = defaultdict(Counter)
    for value, label in zip(values, labels, strict=True):
        by_value[value][label] += 1
    rows = [(value, of.total(), *of.most_common(1)[0]) for value, of in by_value.items()]
    return tuple(sorted(rows, key=lambda row: -row[1]))
