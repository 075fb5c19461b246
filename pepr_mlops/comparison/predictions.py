"""What a run predicted for the images of its splits, and whether that can be believed. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pepr_mlops.comparison.metrics import Floats, Ints, Predicted, thresholds_of
from pepr_mlops.names import MULTI_LABEL, PATIENT, TASKS, Task

_SUM = 1e-3  # by which the probabilities of an image may miss 1
_VAL, _GROUP = "val_", "group_"  # what the names of arrays begin with

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class OfSplit:
    """The predictions for one split, in the order of its images.

    `labels` and `probabilities` are those of `metrics`. `images` are files or rows of the published
    data set, or None. `groups` are columns of the data by name, [n] texts: the patients (numbers
    that mean nothing elsewhere) as `PATIENT`, and what subgroups are made of, such as `sex`.
    """

    labels: Ints
    probabilities: Floats
    images: npt.NDArray[np.str_] | npt.NDArray[np.int64] | None = None
    groups: Mapping[str, npt.NDArray[np.str_]] = field(default_factory=dict)

    @cached_property
    def test_set(self) -> str:
        """A digest of the images: labels and files. Splits that share it are the same images in the
        same order, of one data set."""
        state = hashlib.blake2b(digest_size=16)
        for array in (self.labels, self.images):
            if array is not None:
                state.update(f"{array.dtype.kind}{array.shape}".encode())
                state.update("\n".join(map(str, array.ravel().tolist())).encode())
        return state.hexdigest()

    @property
    def clusters(self) -> Ints:
        """Which images are of one patient, by number from 0; each its own where that is unknown."""
        patients = self.groups.get(PATIENT)
        if patients is None:
            return np.arange(len(self.labels))
        return np.unique(patients, return_inverse=True)[1]


@dataclass(frozen=True)
class Predictions:
    """The predictions of one run after its last epoch; `val` is None where they were not logged,
    and so is `data_digest`, that of the data set."""

    task: Task
    classes: tuple[str, ...]
    test: OfSplit
    val: OfSplit | None = None
    data_digest: str | None = None

    @cached_property
    def thresholds(self) -> Floats | None:
        """Chosen on validation, as `metrics.thresholds_of`."""
        return None if self.val is None else thresholds_of(self._of(self.val, None))

    def of(self, split: str) -> Predicted:
        """The predictions for `test` or `val`, as metrics take them."""
        found = self.on(split)
        if found is None:
            raise KeyError(split)
        return self._of(found, self.thresholds)

    def on(self, split: str) -> OfSplit | None:
        """Those for `test` or `val`, None for others and where they were not logged."""
        return {"test": self.test, "val": self.val}.get(split)

    def _of(self, split: OfSplit, thresholds: Floats | None) -> Predicted:
        return Predicted(split.labels, split.probabilities, self.task, thresholds)

    def arrays(self) -> dict[str, Array]:
        """As arrays by name, for a file; `from_arrays` is the inverse."""
        found: dict[str, Array] = dict(_arrays("", self.test))
        if self.val is not None:
            found |= _arrays(_VAL, self.val)
        found |= {"classes": np.array(self.classes), "task": np.array(self.task)}
        if self.data_digest is not None:
            found["data_digest"] = np.array(self.data_digest)
        return found

    def fault(self) -> str | None:
        """Why these are no predictions, as a clause, or None."""
        for name, split in (("test", self.test), ("validation", self.val)):
            why = None if split is None else _fault(split, self.task, len(self.classes))
            if why is not None:
                return f"its {name} predictions {why}"
        return None


def from_arrays(arrays: Mapping[str, Array]) -> Predictions:
    """The predictions in the arrays of a file. Files of earlier versions have neither `task` nor
    validation. Raises `KeyError`, `TypeError` and `ValueError` for other arrays."""
    classes = tuple(str(name) for name in arrays["classes"].tolist())
    test = _of_split(arrays, "")
    task = str(arrays["task"]) if "task" in arrays else _task(test.labels, classes)
    if task not in TASKS:
        raise ValueError(f"{task!r} is no task")
    digest = str(arrays["data_digest"]) if "data_digest" in arrays else None
    val = _of_split(arrays, _VAL) if f"{_VAL}labels" in arrays else None
    return Predictions(task, classes, test, val, digest)


def _arrays(prefix: str, split: OfSplit) -> Iterator[tuple[str, Array]]:
    yield f"{prefix}labels", split.labels
    yield f"{prefix}probabilities", split.probabilities
    if split.images is not None:
        yield f"{prefix}{'files' if split.images.dtype.kind == 'U' else 'index'}", split.images
    for name, values in split.groups.items():
        yield f"{prefix}{_GROUP}{name}", values


def _of_split(arrays: Mapping[str, Array], prefix: str) -> OfSplit:
    start = f"{prefix}{_GROUP}"
    images = arrays.get(f"{prefix}files", arrays.get(f"{prefix}index"))
    return OfSplit(
        arrays[f"{prefix}labels"].astype(np.int64, copy=False),
        arrays[f"{prefix}probabilities"].astype(np.float64, copy=False),
        images,  # type: ignore[arg-type]
        {
            name.removeprefix(start): values.astype(str, copy=False)
            for name, values in arrays.items()
            if name.startswith(start)
        },
    )


def _task(labels: Ints, classes: tuple[str, ...]) -> Task:
    if labels.ndim == 2:
        return MULTI_LABEL
    return "binary-class" if len(classes) == 2 else "multi-class"


def _fault(split: OfSplit, task: Task, classes: int) -> str | None:
    labels, chances = split.labels, split.probabilities
    if labels.ndim != (2 if task == MULTI_LABEL else 1) or chances.ndim != 2 or not len(labels):
        return "have another form than labels and probabilities by class"
    if len(labels) != len(chances):
        return f"have {len(chances)} rows for {len(labels)} labels"
    of_images = {"images": split.images, **split.groups}
    for name, values in of_images.items():
        if values is not None and values.shape != (len(labels),):
            return f"have {values.size} values of {name} for {len(labels)} labels"
    if chances.shape[1] != classes:
        return f"have {chances.shape[1]} columns for {classes} classes"
    if task == MULTI_LABEL and labels.shape != chances.shape:
        return f"have {labels.shape[1]} labels for {classes} classes"
    lowest, highest = (-1, 1) if task == MULTI_LABEL else (0, classes - 1)  # -1: not known
    if not ((labels >= lowest) & (labels <= highest)).all():
        return "have a label that is no class"
    if not np.isfinite(chances).all():
        return f"are not finite for {int((~np.isfinite(chances)).any(axis=1).sum())} images"
    if not ((chances >= 0) & (chances <= 1)).all():
        return "are no probabilities in [0, 1]"
    off = np.abs(chances.sum(axis=1) - 1) > _SUM
    if task != MULTI_LABEL and off.any():
        return f"do not sum to 1 for {int(off.sum())} of {len(chances)} images"
    return None
