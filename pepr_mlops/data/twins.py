"""Identical images: in two splits, of two classes, within a split. Pure.

Of an image only a digest and its shape are needed, so that any number of them can be compared.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, compress
from typing import Literal, NamedTuple

import numpy as np

from pepr_mlops.data.splits import Labels, Pixels

Kind = Literal["leak", "conflict", "repeat"]


class Look(NamedTuple):
    """What is kept of an image: a digest of its pixels and their kind, its size, its colour."""

    digest: bytes
    height: int
    width: int
    colour: Literal["grey", "RGB"]


@dataclass(frozen=True)
class Part:
    """One split: `names` [n] by which each image is found, `looks` [n] with None where the
    pixels cannot be used, `labels` class indices [n] or 0/1 [n, labels], None where they cannot."""

    name: str
    names: Sequence[str]
    looks: Sequence[Look | None]
    labels: Labels | None


class Twins(NamedTuple):
    """Two identical images: a `leak` is in two splits, a `repeat` in one, a `conflict` has two
    labels. The `other` comes first in the data set; a label is None where it cannot be used."""

    kind: Kind
    split: str
    path: str
    label: str | None
    other_split: str
    other_path: str
    other_label: str | None


class Found(NamedTuple):
    """How many pairs there are of one kind, in words. `split` and `other_split` are None where it
    is about all splits."""

    kind: Kind
    split: str | None
    other_split: str | None
    text: str
    pairs: Sequence[Twins]


class _Seen(NamedTuple):
    """An image among those with its pixels."""

    split: str
    path: str
    label: str | None


def look(pixels: Pixels) -> Look:
    """Of an image [height, width] grey or [height, width, 3] RGB."""
    colour: Literal["grey", "RGB"] = "grey" if pixels.ndim == 2 else "RGB"
    state = hashlib.blake2b(f"{colour}{pixels.shape}".encode(), digest_size=16)
    state.update(np.ascontiguousarray(pixels).data)
    return Look(state.digest(), pixels.shape[0], pixels.shape[1], colour)


def twins(parts: Sequence[Part], classes: Sequence[str]) -> list[Twins]:
    """All pairs of identical images: leaks, then conflicts, then repeats.

    Each image is paired with the first that has its pixels: in each earlier split, of another
    label, in its own split. One pair may be a conflict and a leak or a repeat as well.
    """
    groups = list(_groups(parts, classes))
    found: list[Twins] = []
    for earlier, later in combinations([part.name for part in parts], 2):
        found += _across(groups, "leak", earlier, later)
    found += (
        Twins("conflict", *seen, *labelled[0])
        for group in groups
        if (labelled := [seen for seen in group if seen.label is not None])
        for seen in labelled
        if seen.label != labelled[0].label
    )
    for part in parts:
        found += _across(groups, "repeat", part.name, part.name)
    return found


def summed(pairs: Sequence[Twins], images: Mapping[str, int]) -> Iterator[Found]:
    """How many pairs there are of each kind and splits; `images` are those of each split."""
    for (later, earlier), of in _by_splits(pairs, "leak").items():
        text = f"{len(of):,} of {images[later]:,} images of {later} are also in {earlier}"
        yield Found("leak", later, earlier, text, of)
    if conflicts := [pair for pair in pairs if pair.kind == "conflict"]:
        images_contradict = "image contradicts" if len(conflicts) == 1 else "images contradict"
        text = f"{len(conflicts):,} {images_contradict} the label of an earlier identical image"
        yield Found("conflict", None, None, text, conflicts)
    for (split, _), of in _by_splits(pairs, "repeat").items():
        text = f"{len(of):,} of {images[split]:,} images of {split} repeat another of its images"
        yield Found("repeat", split, split, text, of)


def _by_splits(pairs: Sequence[Twins], kind: Kind) -> dict[tuple[str, str], list[Twins]]:
    by: dict[tuple[str, str], list[Twins]] = defaultdict(list)
    for pair in pairs:
        if pair.kind == kind:
            by[pair.split, pair.other_split].append(pair)
    return by


def _groups(parts: Sequence[Part], classes: Sequence[str]) -> Iterator[list[_Seen]]:
    """The images that share their pixels, two or more of each."""
    images = Counter(image.digest for part in parts for image in part.looks if image is not None)
    groups: dict[bytes, list[_Seen]] = defaultdict(list)
    for part in parts:
        for i, image in enumerate(part.looks):
            if image is not None and images[image.digest] > 1:
                seen = _Seen(part.name, part.names[i], _label(part, i, classes))
                groups[image.digest].append(seen)
    yield from groups.values()


def _label(part: Part, i: int, classes: Sequence[str]) -> str | None:
    """The label of an image in words."""
    if part.labels is None:
        return None
    label = part.labels[i]
    if part.labels.ndim == 1:
        return classes[int(label)]
    return "+".join(compress(classes, label)) or "no label"


def _across(
    groups: Sequence[Sequence[_Seen]], kind: Kind, earlier: str, later: str
) -> Iterator[Twins]:
    """Each image of `later` with the first of `earlier` that has its pixels."""
    for group in groups:
        first = next((seen for seen in group if seen.split == earlier), None)
        if first is not None:
            for seen in group:
                if seen.split == later and seen is not first:
                    yield Twins(kind, *seen, *first)
