"""The patches of LIDC-IDRI that `pepr data lidc` builds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile

from pepr_mlops.data import medmnist
from pepr_mlops.data.medmnist import Damaged, folder_of, intact, read
from pepr_mlops.data.splits import SPLITS, Split, Splits
from pepr_mlops.errors import WrongUse

NAME = "lidc"
_OTHERWISE, _REMEDY = "was not built by `pepr data lidc`", "build it again"


def load(data_root: str | None) -> Splits:
    """The data set of the file `lidc.npz` in `data_root`, by default medmnist's own folder.

    Raises `WrongUse` as `find`, and where the file is damaged.
    """
    path = find(data_root)
    with intact(path, _OTHERWISE, _REMEDY) as arrays:
        classes = _classes(arrays)
        splits: dict[str, Any] = {name: _split(arrays, name) for name in SPLITS}
    return Splits(
        name=NAME, source=str(path), task="binary-class", classes=classes, channels=1, **splits
    )


def find(data_root: str | None) -> Path:
    """The file of the data set. Raises `WrongUse` where there is none."""
    path = folder_of(data_root) / f"{NAME}.npz"
    if not path.exists():
        raise WrongUse(
            f"dataset: {path} is not there; build it with `pepr data lidc --dicom ROOT --out "
            f"{path.parent}` from the collection LIDC-IDRI of the Cancer Imaging Archive, or pass "
            "its folder as --data-root (-P data_root=DIR)",
            reason="missing_data",
        )
    return path


def outline(path: Path) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]]]:
    """Names of the classes, and by split the shape [n, size, size] of the images, which are not
    read. Raises `WrongUse` for a damaged file."""
    with intact(path, _OTHERWISE, _REMEDY) as arrays:
        shapes = {name: medmnist.outline(arrays, f"{name}_images").shape for name in SPLITS}
        if wrong := [shape for shape in shapes.values() if len(shape) != 3]:
            raise Damaged(f"images have the shape {wrong[0]}")
        return _classes(arrays), shapes


def _classes(arrays: NpzFile) -> tuple[str, ...]:
    names = read(arrays, "classes")
    if names.dtype.kind != "U" or names.shape != (2,):
        raise Damaged(f"classes are {names.dtype} {names.shape}, not two names")
    return tuple(map(str, names))


def _split(arrays: NpzFile, name: str) -> Split:
    images, labels = read(arrays, f"{name}_images"), read(arrays, f"{name}_labels")
    square = images.ndim == 3 and images.shape[1] == images.shape[2] > 0
    fits = images.dtype == np.uint8 and square and labels.shape == (len(images), 1)
    if not fits or labels.dtype.kind not in "biu" or not np.isin(labels, (0, 1)).all():
        raise Damaged(f"{name}: images {images.dtype} {images.shape}, labels {labels.shape}")
    return Split(images, labels.astype(np.int64)[:, 0], np.arange(len(images)))
