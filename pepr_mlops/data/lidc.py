"""The patches of LIDC-IDRI that `pepr data lidc` builds."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from pepr_mlops.data.medmnist import DAMAGED, folder_of, open_file
from pepr_mlops.data.splits import Split, Splits
from pepr_mlops.errors import WrongUse

NAME = "lidc"


def load(data_root: str | None) -> Splits:
    """The data set of the file `lidc.npz` in `data_root`, by default medmnist's own folder.

    Raises `WrongUse` as `find`, and where the file is damaged.
    """
    path = find(data_root)
    try:
        with open_file(path) as arrays:
            classes = tuple(str(name) for name in arrays["classes"])
            parts = {name: _split(arrays, name) for name in ("train", "val", "test")}
    except DAMAGED as error:
        raise _damaged(path, error) from error
    return Splits(
        name=NAME, source=str(path), task="binary-class", classes=classes, channels=1, **parts
    )


def find(data_root: str | None) -> Path:
    """The file of the data set. Raises `WrongUse` where there is none."""
    path = path_of(data_root)
    if not path.exists():
        raise WrongUse(
            f"dataset: {path} is not there; build it with `pepr data lidc --dicom ROOT --out "
            f"{path.parent}` from the collection LIDC-IDRI of the Cancer Imaging Archive, or pass "
            "its folder as --data-root (-P data_root=DIR)",
            reason="missing_data",
        )
    return path


def path_of(data_root: str | None) -> Path:
    """Where the file lies or would be put."""
    return folder_of(data_root) / f"{NAME}.npz"


def outline(path: Path) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]]]:
    """Names of the classes, and by split the shape [n, size, size] of the images, which are not
    read. Raises `WrongUse` for a damaged file."""
    shapes = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in ("train", "val", "test"):
                with archive.open(f"{name}_images.npy") as file:
                    np.lib.format.read_magic(file)
                    shapes[name] = np.lib.format.read_array_header_1_0(file)[0]
                    if len(shapes[name]) != 3:
                        raise ValueError(f"images have the shape {shapes[name]}")
        with open_file(path) as arrays:
            return tuple(map(str, arrays["classes"])), shapes
    except DAMAGED as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> WrongUse:
    return WrongUse(
        f"dataset: {path} is damaged or was not built by `pepr data lidc` ({str(error)[:100]}); "
        "build it again",
        reason="missing_data",
    )


def _split(arrays: NpzFile, name: str) -> Split:
    images, labels = arrays[f"{name}_images"], arrays[f"{name}_labels"]
    fits = images.dtype == np.uint8 and images.ndim == 3 and labels.shape == (len(images), 1)
    if not fits or not np.isin(labels, (0, 1)).all():
        raise ValueError(f"{name}: images {images.dtype} {images.shape}, labels {labels.shape}")
    return Split(images, labels.astype(np.int64)[:, 0])
