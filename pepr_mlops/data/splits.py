"""Images and labels in memory, and drawing subsets of them by class."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pepr_mlops.data.stored import Stored
from pepr_mlops.errors import WrongUse
from pepr_mlops.names import Task

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int64]
Origins = npt.NDArray[np.str_] | npt.NDArray[np.int64]

SPLITS = ("train", "val", "test")
EXAMPLES = 5  # that a message lists
LEAST = 2  # images of each class in val and test: with a single one, its recall is 0 or 1


@dataclass(frozen=True)
class Split:
    """`images` [n, height, width] grey or [n, height, width, 3] RGB, 8 bits per channel, in memory
    or on disk; `labels` class indices [n], or 0/1 [n, labels] for a multi-label task, -1 where one
    is not known. `origins` [n] are names of the images, or their rows in the published data set.
    `groups` are the columns of `comparison.predictions.OfSplit.groups`, [n] texts by name; of train
    the patients alone. `keys` [n] are digests of the images before they were resized, where known.
    """

    images: Pixels | Stored
    labels: Labels
    origins: Origins | None = None
    groups: Mapping[str, npt.NDArray[np.str_]] = field(default_factory=dict)
    keys: npt.NDArray[np.bytes_] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def digest(self) -> str:
        """32 hexadecimal digits that change with any pixel, label or their order."""
        state = hashlib.blake2b(digest_size=16)
        for array in (self.images, self.labels):
            state.update(f"{array.dtype}{array.shape}".encode())
            for part in _parts(array):
                state.update(np.ascontiguousarray(part).data)
        return state.hexdigest()

    def take(self, indices: npt.NDArray[np.int64]) -> Split:
        origins = None if self.origins is None else self.origins[indices]
        groups = {name: values[indices] for name, values in self.groups.items()}
        keys = None if self.keys is None else self.keys[indices]
        images: Pixels | Stored
        if isinstance(self.images, Stored):
            images = self.images.take(indices)
        else:
            images = self.images[indices]
        return Split(images, self.labels[indices], origins, groups, keys)


@dataclass(frozen=True)
class Splits:
    """A data set for training. `classes` are the names of the classes or labels. `channels` is the
    number of channels that the model sees: grey images are repeated to 3. `notes` are about its
    files and are logged. `shared_patients` says how many patients are in two splits, if any.
    `window` are the grey values that became black and white, where they are those of the training
    images. `external` are sets by name that are evaluated at the end."""

    name: str
    source: str
    task: Task
    classes: tuple[str, ...]
    channels: int
    train: Split
    val: Split
    test: Split
    notes: tuple[str, ...] = ()
    shared_patients: str | None = None
    window: tuple[float, float] | None = None
    external: Mapping[str, Split] = field(default_factory=dict)

    def by_name(self) -> dict[str, Split]:
        return {"train": self.train, "val": self.val, "test": self.test}


def _parts(array: npt.NDArray[Any] | Stored) -> Iterable[npt.NDArray[Any]]:
    """The rows of an array, some at a time."""
    if isinstance(array, Stored):
        return array.parts()
    return np.array_split(array, max(1, array.nbytes >> 26))


def draw(
    labels: Labels, share: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Indices (drawn, rest), both sorted: `share` of each class, rounded, drawn with `seed`.

    Images with several labels have no class to draw by: they are drawn from all images.
    """
    rng = np.random.default_rng(seed)
    groups = [np.arange(len(labels))]
    if labels.ndim == 1:
        groups = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    drawn = np.concatenate(
        [rng.permutation(group)[: round(share * len(group))] for group in groups]
    ).astype(np.int64)
    drawn.sort()
    return drawn, np.setdiff1d(np.arange(len(labels)), drawn)


def with_fraction(splits: Splits, fraction: float, seed: int) -> Splits:
    """The same splits with `fraction` of the training set, drawn by class with `seed`."""
    if fraction == 1.0:
        return splits
    drawn, _ = draw(splits.train.labels, fraction, seed)
    return replace(splits, train=splits.train.take(drawn))


def per_class(labels: Labels, classes: int) -> Counts:
    """Images of each class or label; a label of -1 is not known and does not count."""
    counts = (
        (labels == 1).sum(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=classes)
    )
    return np.asarray(counts, dtype=np.int64)


def scarce(counts: Counts, classes: Sequence[str], least: int) -> list[str]:
    """The classes with fewer than `least` images, each with how many it has."""
    return [f"{name} ({n})" for name, n in zip(classes, counts, strict=True) if n < least]


def check(splits: Splits) -> None:
    """Raise `WrongUse` if a split is empty or has no known label, or a class no training image."""
    for name in ("val", "test"):
        if len(getattr(splits, name)) == 0:
            raise WrongUse(
                f"dataset: {splits.name} has no image in its {name} split; add some there, or to "
                "train where that split is drawn from it"
            )
        if (getattr(splits, name).labels < 0).all():
            raise WrongUse(
                f"dataset: {splits.name} has no known label in its {name} split; add some, or "
                "choose what unknown labels count as (uncertain)"
            )
    counts = per_class(splits.train.labels, len(splits.classes))
    if not counts.all():
        absent = ", ".join(splits.classes[i] for i in np.flatnonzero(counts == 0)[:EXAMPLES])
        rest = "; add images, remove the class from all splits or raise fraction"
        raise WrongUse(
            f"dataset: {splits.name} has no training image of class {absent}{rest}",
            logged=f"dataset: {splits.name} has no training image of {(counts == 0).sum()} of "
            f"{len(counts)} classes{rest}",
        )


def check_external(splits: Splits) -> None:
    """Raise `WrongUse` if an external set has no known label."""
    for name, split in splits.external.items():
        if (split.labels < 0).all():
            raise WrongUse(
                f"external: {name} has no known label; add some, leave the set out, or choose what "
                "unknown labels count as (uncertain)"
            )


def with_channels(splits: Splits, channels: str) -> Splits:
    """The same splits seen as `native`, `grey` or `rgb`."""
    if channels == "rgb":
        return replace(splits, channels=3)
    if channels == "grey" and splits.channels == 3:
        grey: dict[str, Any] = {name: _grey(split) for name, split in splits.by_name().items()}
        return replace(splits, channels=1, **grey)
    return splits


def _grey(split: Split) -> Split:
    assert isinstance(split.images, np.ndarray)  # those on disk were stored in grey
    luma = np.empty(split.images.shape[:3], dtype=np.uint8)
    for i, image in enumerate(split.images):
        luma[i] = np.asarray(Image.fromarray(image).convert("L"))  # ITU-R 601-2 luma
    return replace(split, images=luma)
