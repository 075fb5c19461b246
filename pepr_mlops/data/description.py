"""What a data set holds, in numbers and in words. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from pepr_mlops.data.own.window import Percentiles
from pepr_mlops.data.splits import Counts, Pixels
from pepr_mlops.names import Task
from pepr_mlops.text import few, number

SAMPLE = 200  # images at most, of which sizes and intensities are measured
_EACH, _SHEET = 8, 160  # images of a class and of all classes in a contact sheet, at most
_SHOWN = 5  # sizes in a sentence

Sheet = Mapping[str, Sequence[Pixels]]  # images [s, s] or [s, s, 3] by class


class Patients(NamedTuple):
    """How many patients there are, how many images each has, and how many images have none."""

    n: int
    least: int
    median: float
    most: int
    unknown: int


class Intensities(NamedTuple):
    """Grey values of the files, or 0 to 255 of each colour."""

    least: float
    low: float  # 1%
    middle: float
    high: float  # 99%
    most: float


@dataclass(frozen=True)
class Sample:
    """Some of the images: how many were decoded, and how many have each size, such as 28×28."""

    images: int
    sizes: Mapping[str, int]
    intensities: Intensities | None


@dataclass(frozen=True, kw_only=True)
class Description:
    """A data set, without any file or patient by name.

    `counts` are images of each class by split, and `images` all images of each split. `splits`
    says how these come about. `formats` counts files, and `grey` images of one channel of all.
    `window` says which grey values are black and white, `groups` counts images by subgroup and
    value. `digest` is None where training would refuse the files. `stored_bytes` are those of the
    prepared images, None for images in memory.
    """

    name: str
    task: Task
    classes: tuple[str, ...]
    counts: Mapping[str, Counts]
    images: Mapping[str, int]
    splits: str
    grey: int
    sample: Sample
    formats: Mapping[str, int] = field(default_factory=dict)
    window: str | None = None
    patients: Patients | None = None
    groups: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    digest: str | None
    stored_bytes: int | None = None
    notes: tuple[str, ...] = ()

    def rows(self) -> Iterator[tuple[str, list[int]]]:
        """The images of each class in each split, in the order of `images`, and of all."""
        for i, name in enumerate(self.classes):
            yield name, [int(self.counts[split][i]) for split in self.images]
        yield "all images", list(self.images.values())

    def facts(self) -> list[tuple[str, str]]:
        """Headings and texts of everything but the counts."""
        texts = {
            "task": f"{self.task}, {len(self.classes):,} classes",
            "splits": self.splits,
            "patients": _patients(self.patients),
            **{f"group {name}": _counted(values) for name, values in self.groups.items()},
            "files": _counted(self.formats),
            "sizes": _sizes(self.sample),
            "colour": self._colour(),
            "intensities": _intensities(self.sample),
            "window": self.window,
            "digest": self.digest or "not known until all files can be used",
            "prepared images": None if self.stored_bytes is None else _size(self.stored_bytes),
        }
        return [(heading, text) for heading, text in texts.items() if text]

    def _colour(self) -> str:
        n = sum(self.images.values())
        if self.grey in (0, n):
            return "grey" if self.grey else "RGB"
        return f"{self.grey:,} of {n:,} images are grey, the others RGB"


class Target(Protocol):
    """A data set that can be described."""

    def describe(self) -> Description: ...
    def contact_sheet(self) -> Sheet:
        """Some images of each class as the model sees them."""
        ...

    def files(self) -> pd.DataFrame:
        """A row for each image: its `image` as runs log it, `file`, `frame`, `split` and `label`,
        where + joins several. Raises `WrongUse` where there are no such names."""
        ...


class Measured:
    """Adds up the sizes and values of images."""

    def __init__(self) -> None:
        self._percentiles = Percentiles()
        self._sizes: Counter[str] = Counter()
        self._ends: list[float] = []  # exact, as percentiles of many values are not

    def add(self, shape: Sequence[int], values: npt.NDArray[Any]) -> None:
        """An image of the shape [h, w] or [h, w, 3], and its values, in any shape."""
        self._sizes[f"{shape[0]}×{shape[1]}"] += 1
        if values.size:
            self._percentiles.add(values)
            self._ends += [float(values.min()), float(values.max())]

    def sample(self) -> Sample:
        found = None
        if self._ends:
            low, middle, high = self._percentiles.quantiles((0.01, 0.5, 0.99))
            found = Intensities(min(self._ends), low, middle, high, max(self._ends))
        return Sample(self._sizes.total(), dict(self._sizes.most_common()), found)


def spread(rows: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    """At most so many of sorted rows, with even steps between them."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]


def per_class_shown(
    labels: npt.NDArray[np.int64], classes: Sequence[str]
) -> dict[str, npt.NDArray[np.int64]]:
    """The rows of the images [n] or [n, labels] that stand for each class in a contact sheet."""
    each = max(1, min(_EACH, _SHEET // len(classes)))
    own = labels > 0 if labels.ndim == 2 else labels[:, None] == np.arange(len(classes))
    return {name: spread(np.flatnonzero(own[:, i]), each) for i, name in enumerate(classes)}


def patients_of(patients: npt.NDArray[np.str_] | None) -> Patients | None:
    """`patients` [n] are empty where unknown; None where none is known."""
    if patients is None or not (patients != "").any():
        return None
    known = patients[patients != ""]
    counts = np.unique(known, return_counts=True)[1].tolist()
    unknown = len(patients) - len(known)
    return Patients(len(counts), min(counts), median(counts), max(counts), unknown)


def _patients(found: Patients | None) -> str:
    if found is None:
        return "not known"
    unknown = f"; {found.unknown:,} images have none" if found.unknown else ""
    if found.least == found.most:
        return f"{found.n:,}, with {found.most:,} images each{unknown}"
    return (
        f"{found.n:,}, with {found.least:,} to {found.most:,} images each, median "
        f"{number(found.median)}{unknown}"
    )


def _counted(values: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in values.items())


def _sizes(sample: Sample) -> str:
    each = few([f"{size} ({n:,})" for size, n in sample.sizes.items()], _SHOWN)
    return f"{each}, height × width, of {sample.images:,} images"


def _intensities(sample: Sample) -> str | None:
    if sample.intensities is None:
        return None
    least, low, middle, high, most = map(number, sample.intensities)
    return f"{least} to {most}; 1%: {low}, 50%: {middle}, 99%: {high} (of {sample.images:,} images)"


def _size(n: int) -> str:
    return f"{n / 1e9:,.1f} GB on disk" if n >= 1e9 else f"{n / 1e6:,.1f} MB on disk"
