"""The 2-D MedMNIST+ data sets, downloaded by the `medmnist` package."""

from __future__ import annotations

import os
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from pepr_mlops.data.splits import Split, Splits
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.performance import MULTI_LABEL

ALIASES = {"derma": "dermamnist", "pneumonia": "pneumoniamnist"}
FLAGS = (
    "bloodmnist",
    "breastmnist",
    "chestmnist",
    "dermamnist",
    "octmnist",
    "organamnist",
    "organcmnist",
    "organsmnist",
    "pathmnist",
    "pneumoniamnist",
    "retinamnist",
    "tissuemnist",
)


def load(flag: str, size: int, data_root: str | None) -> Splits:
    """The data set `flag` from its file of `size`-pixel images, downloaded when absent.

    `data_root` must exist; without it medmnist's own folder is used. Raises `WorkFailed` when the
    file cannot be downloaded and `WrongUse` when it is not what MedMNIST says it is.
    """
    import medmnist

    info = medmnist.INFO[flag]
    path = path_of(flag, size, data_root)
    if not path.parent.is_dir():
        raise WrongUse(
            f"data_root: there is no folder {path.parent}; create it or name another",
            reason="missing_data",
        )
    suffix = _suffix(size)
    if not path.exists():
        _download(flag, size, info, suffix, path)
    try:
        with np.load(path) as arrays:
            parts = {name: _split(arrays, name, info, size, path) for name in info["n_samples"]}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise WrongUse(
            f"dataset: {path} is damaged or no MedMNIST file ({str(error)[:100]}); delete it to "
            f"download it again, or fetch {info[f'url{suffix}']}",
            reason="missing_data",
        ) from error
    return Splits(
        name=flag,
        source=str(path),
        task=info["task"],
        classes=tuple(info["label"][str(i)] for i in range(len(info["label"]))),
        channels=info["n_channels"],
        **parts,
    )


def path_of(flag: str, size: int, data_root: str | None) -> Path:
    """Where the file of a data set lies or would be put, as `load` says."""
    return folder_of(data_root) / f"{flag}{_suffix(size)}.npz"


def folder_of(data_root: str | None) -> Path:
    """`data_root`, or medmnist's own folder without one."""
    import medmnist

    folder = data_root or medmnist.info.DEFAULT_ROOT
    if folder is None:
        raise WrongUse("data_root: medmnist has no folder of its own here; name one")
    return Path(folder).expanduser()


def _suffix(size: int) -> str:
    return "" if size == 28 else f"_{size}"


def _split(arrays: Any, name: str, info: dict[str, Any], size: int, path: Path) -> Split:
    images, labels = arrays[f"{name}_images"], arrays[f"{name}_labels"]
    n, classes = info["n_samples"][name], len(info["label"])
    shape = (n, size, size) if info["n_channels"] == 1 else (n, size, size, 3)
    columns = classes if info["task"] == MULTI_LABEL else 1
    top = 1 if info["task"] == MULTI_LABEL else classes - 1
    if images.shape != shape or images.dtype != np.uint8:
        wrong = f"images are {images.dtype} {images.shape} where MedMNIST has uint8 {shape}"
    elif labels.shape != (n, columns) or not np.isin(labels, np.arange(top + 1)).all():
        wrong = f"labels are {labels.shape} where MedMNIST has {(n, columns)} from 0 to {top}"
    else:
        return Split(images, labels.astype(np.int64)[:, slice(None) if columns > 1 else 0])
    raise WrongUse(f"dataset: in {path} the {name} {wrong}; delete it to download it again")


def _download(flag: str, size: int, info: dict[str, Any], suffix: str, path: Path) -> None:
    """Download beside `path` and move it there once medmnist has verified its MD5."""
    import medmnist

    kind = getattr(medmnist, info["python_class"])
    try:
        with tempfile.TemporaryDirectory(prefix=".download-", dir=path.parent) as folder:
            kind(split="train", download=True, root=folder, size=size)
            os.replace(Path(folder) / path.name, path)
    except (RuntimeError, OSError) as error:  # no connection or a wrong checksum, or no place
        cause = error.__context__ or error
        if isinstance(cause, KeyboardInterrupt | SystemExit):
            raise cause from None  # medmnist hides that it was interrupted
        raise WorkFailed(
            f"dataset: {path.name} could not be downloaded ({str(cause)[:120]}); offline: "
            f"fetch {info[f'url{suffix}']} elsewhere and put it at {path}, or pass its folder "
            "as --data-root (-P data_root=DIR)",
            reason="missing_data",
        ) from error
