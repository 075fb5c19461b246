"""Identical images: in two splits, of two classes, within a split. Pure.

Images are compared by a digest, so that their number is not limited by memory.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, compress, groupby
from typing import Literal, NamedTuple

import numpy as np

from pepr_mlops.data.splits import Labels, Pixels

Kind = Literal["leak", "conflict", "repeat"]


class ImageKey(NamedTuple):
    """A digest of an image's pixels, colour and shape, its size in pixels, and its colour."""

    digest: bytes
    height: int
    width: int
    colour: Literal["grey", "RGB"]

    @property
    def size(self) -> str:
        return f"{self.height}×{self.width}"


@dataclass(frozen=True)
class Part:
    """One split: `names` [n] of the images, `keys` [n] with None for unusable pixels, `labels`
    class indices [n] or 0/1 [n, labels], None if they are unusable. `images` is n, or None if
    neither images nor labels can be counted."""

    name: str
    names: Sequence[str]
    keys: Sequence[ImageKey | None]
    labels: Labels | None
    images: int | None


class Pair(NamedTuple):
    """Two identical images: a `leak` is in two splits, a `repeat` in one, a `conflict` has two
    labels. The `other` image comes first in the data set. An unusable label is None."""

    kind: Kind
    split: str
    path: str
    label: str | None
    other_split: str
    other_path: str
    other_label: str | None


class Duplicates(NamedTuple):
    """The pairs of one kind and their number as a sentence. `split` and `other_split` are None
    where they come from all splits."""

    kind: Kind
    split: str | None
    other_split: str | None
    text: str
    pairs: Sequence[Pair]


class _Copy(NamedTuple):
    split: str
    path: str
    label: str | None


def image_key(pixels: Pixels) -> ImageKey:
    """The key of an image [height, width] grey or [height, width, 3] RGB. A grey image that was
    saved as RGB has the digest of the grey one."""
    colour: Literal["grey", "RGB"] = "grey" if pixels.ndim == 2 else "RGB"
    content = pixels
    if pixels.ndim == 3 and _is_grey(pixels[:1]) and _is_grey(pixels):  # most end at the first row
        content = pixels[..., 0]
    state = hashlib.blake2b(f"{content.shape}".encode(), digest_size=16)
    state.update(np.ascontiguousarray(content).data)
    return ImageKey(state.digest(), pixels.shape[0], pixels.shape[1], colour)


def _is_grey(pixels: Pixels) -> bool:
    return bool((pixels[..., :1] == pixels[..., 1:]).all())


def identical_pairs(parts: Sequence[Part], classes: Sequence[str]) -> list[Pair]:
    """All pairs of identical images: leaks, then conflicts, then repeats.

    An image is paired with the first identical one of each earlier split (a leak), of those with a
    label (a conflict, if it is another label) and of its own split (a repeat). Two images may be a
    conflict and also a leak or a repeat.
    """
    groups = _groups(parts, classes)
    pairs: list[Pair] = []
    for earlier, later in combinations([part.name for part in parts], 2):
        pairs += _across(groups, "leak", earlier, later)
    for group in groups:
        labelled = [copy for copy in group if copy.label is not None]
        pairs += (
            Pair("conflict", *copy, *labelled[0])
            for copy in labelled
            if copy.label != labelled[0].label
        )
    for part in parts:
        pairs += _across(groups, "repeat", part.name, part.name)
    return pairs


def summarise(pairs: Sequence[Pair], images: Mapping[str, int]) -> Iterator[Duplicates]:
    """The pairs of `identical_pairs` by kind and splits; `images` counts those of each split."""
    for kind, same_kind in groupby(pairs, key=lambda pair: pair.kind):
        if kind == "conflict":
            conflicts = list(same_kind)
            contradict = "image contradicts" if len(conflicts) == 1 else "images contradict"
            text = f"{len(conflicts):,} {contradict} the label of an earlier identical image"
            yield Duplicates(kind, None, None, text, conflicts)
            continue
        by_splits = groupby(same_kind, key=lambda pair: (pair.split, pair.other_split))
        for (split, other), same_splits in by_splits:
            own = list(same_splits)
            found = f"are also in {other}" if kind == "leak" else "repeat another of its images"
            text = f"{len(own):,} of {images[split]:,} images of {split} {found}"
            yield Duplicates(kind, split, other, text, own)


def _groups(parts: Sequence[Part], classes: Sequence[str]) -> list[list[_Copy]]:
    """The images that share their pixels, two or more of each."""
    counts = Counter(key.digest for part in parts for key in part.keys if key is not None)
    groups: dict[bytes, list[_Copy]] = defaultdict(list)
    for part in parts:
        for i, key in enumerate(part.keys):
            if key is not None and counts[key.digest] > 1:
                copy = _Copy(part.name, part.names[i], _label(part, i, classes))
                groups[key.digest].append(copy)
    return list(groups.values())


def _label(part: Part, i: int, classes: Sequence[str]) -> str | None:
    if part.labels is None:
        return None
    label = part.labels[i]
    if part.labels.ndim == 1:
        return classes[int(label)]
    return "+".join(compress(classes, label > 0)) or "no label"


def _across(
    groups: Sequence[Sequence[_Copy]], kind: Kind, earlier: str, later: str
) -> Iterator[Pair]:
    """Each image of `later` with the first of `earlier` that has its pixels."""
    for group in groups:
        first = next((copy for copy in group if copy.split == earlier), None)
        if first is not None:
            for copy in group:
                if copy.split == later and copy is not first:
                    yield Pair(kind, *copy, *first)
