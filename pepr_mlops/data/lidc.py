"""The patches of LIDC-IDRI that `pepr data lidc` builds."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from pepr_mlops.data.medmnist import folder_of
from pepr_mlops.data.splits import Split, Splits
from pepr_mlops.errors import WrongUse

NAME = "lidc"


def load(data_root: str | None) -> Splits:
    """The data set of the file `lidc.npz` in `data_root`, by default medmnist's own folder.

    Raises `WrongUse` where there is none or it is damaged.
    """
    path = path_of(data_root)
    if not path.exists():
        raise WrongUse(
            f"dataset: {path} is not there; build it with `pepr data lidc --dicom ROOT --out "
            f"{path.parent}` from the collection LIDC-IDRI of the Cancer Imaging Archive, or pass "
            "its folder as --data-root (-P data_root=DIR)",
            reason="missing_data",
        )
    try:
        with np.load(path) as arrays:
            classes = tuple(str(name) for name in arrays["classes"])
            parts = {name: _split(arrays, name, path) for name in ("train", "val", "test")}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise WrongUse(
            f"dataset: {path} is damaged or was not built by `pepr data lidc` "
            f"({str(error)[:100]}); build it again",
            reason="missing_data",
        ) from error
    return Splits(
        name=NAME, source=str(path), task="binary-class", classes=classes, channels=1, **parts
    )


def path_of(data_root: str | None) -> Path:
    """Where the data set lies or would be put."""
    return folder_of(data_root) / f"{NAME}.npz"


def _split(arrays: Any, name: str, path: Path) -> Split:
    images, labels = arrays[f"{name}_images"], arrays[f"{name}_labels"]
    fits = images.dtype == np.uint8 and images.ndim == 3 and labels.shape == (len(images), 1)
    if not fits or not np.isin(labels, (0, 1)).all():
        raise ValueError(f"{name}: images {images.dtype} {images.shape}, labels {labels.shape}")
    return Split(images, labels.astype(np.int64)[:, 0])
