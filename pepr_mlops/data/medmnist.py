"""The 2-D MedMNIST+ data sets, downloaded by the `medmnist` package."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.npyio import NpzFile

from pepr_mlops.data.splits import Split, Splits
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.performance import MULTI_LABEL
from pepr_mlops.schema import SIZES

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
# What reading a damaged .npz file raises; a RuntimeError where it looks encrypted or too new.
DAMAGED = (
    *(OSError, ValueError, EOFError, KeyError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)


def load(flag: str, size: int, data_root: str | None) -> Splits:
    """The data set `flag` from its file of `size`-pixel images, fetched as `fetch` does.

    Raises `WrongUse` when the file is not what MedMNIST says it is.
    """
    import medmnist

    info = medmnist.INFO[flag]
    path, _ = fetch(flag, size, data_root)
    try:
        with open_file(path) as arrays:
            parts = {split: _split(arrays, split, flag, size, path) for split in info["n_samples"]}
    except DAMAGED as error:
        raise WrongUse(
            f"dataset: {path} is damaged or no MedMNIST file ({str(error)[:100]}); delete it to "
            f"download it again, or fetch {info[f'url{_suffix(size)}']}",
            reason="missing_data",
        ) from error
    return Splits(
        name=flag,
        source=str(path),
        task=info["task"],
        classes=class_names(flag),
        channels=info["n_channels"],
        **parts,
    )


def fetch(flag: str, size: int, data_root: str | None) -> tuple[Path, bool]:
    """The file of `flag` with `size`-pixel images, and whether it had to be downloaded.

    Raises `WrongUse` as `place` does and `WorkFailed` when the file cannot be downloaded.
    """
    path = place(flag, size, data_root)
    if path.exists():
        return path, False
    _download(flag, size, path)
    return path, True


def verify(flag: str, size: int, path: Path) -> None:
    """Raise `WrongUse` unless the file has the MD5 that MedMNIST publishes for it."""
    import medmnist

    published = medmnist.INFO[flag][f"MD5{_suffix(size)}"]
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != published:
        raise WrongUse(
            f"dataset: {path} is not the file that MedMNIST publishes (MD5 {found}, not "
            f"{published}); delete it to download it again, or see what it is: "
            f"pepr data check {path}",
            reason="missing_data",
        )


def place(flag: str, size: int, data_root: str | None) -> Path:
    """`path_of`, which needs no file there; raises `WrongUse` where its folder is absent."""
    path = path_of(flag, size, data_root)
    if not path.parent.is_dir():
        raise WrongUse(
            f"data_root: there is no folder {path.parent}; create it or name another",
            reason="missing_data",
        )
    return path


def path_of(flag: str, size: int, data_root: str | None) -> Path:
    """Where the file of a data set lies or would be put, in `folder_of(data_root)`."""
    return folder_of(data_root) / f"{flag}{_suffix(size)}.npz"


def folder_of(data_root: str | None) -> Path:
    """`data_root`, or medmnist's own folder; raises `WrongUse` without either."""
    import medmnist

    folder = data_root or medmnist.info.DEFAULT_ROOT
    if folder is None:
        raise WrongUse("data_root: medmnist has no folder of its own here; name one")
    return Path(folder).expanduser()


def known_file(path: Path) -> tuple[str, int] | None:
    """The data set and size that a file's name stands for, or None for any other name."""
    names = {f"{flag}{_suffix(size)}": (flag, size) for flag in FLAGS for size in SIZES}
    return names.get(path.stem)


def open_file(path: Path) -> NpzFile:
    """The arrays of an .npz file, each read when it is asked for; raises any of `DAMAGED`."""
    # np.load takes what is no archive for an array or a pickle, and advises to trust it.
    return NpzFile(path)  # type: ignore[arg-type]  # it takes a path, as it says


def fault(
    flag: str, size: int, split: str, images: npt.NDArray[Any], labels: npt.NDArray[Any]
) -> str | None:
    """What tells the arrays of a split from those that MedMNIST describes, or None."""
    import medmnist

    info = medmnist.INFO[flag]
    n, classes = info["n_samples"][split], len(info["label"])
    shape = (n, size, size) if info["n_channels"] == 1 else (n, size, size, 3)
    columns = classes if info["task"] == MULTI_LABEL else 1
    top = 1 if info["task"] == MULTI_LABEL else classes - 1
    if images.shape != shape or images.dtype != np.uint8:
        return f"images are {images.dtype} {images.shape} where MedMNIST has uint8 {shape}"
    if labels.shape != (n, columns) or not np.isin(labels, np.arange(top + 1)).all():
        return f"labels are {labels.shape} where MedMNIST has {(n, columns)} from 0 to {top}"
    return None


def class_names(flag: str) -> tuple[str, ...]:
    import medmnist

    names = medmnist.INFO[flag]["label"]
    return tuple(names[str(i)] for i in range(len(names)))


def _suffix(size: int) -> str:
    return "" if size == 28 else f"_{size}"


def _split(arrays: NpzFile, split: str, flag: str, size: int, path: Path) -> Split:
    images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    if wrong := fault(flag, size, split, images, labels):
        raise WrongUse(f"dataset: in {path} the {split} {wrong}; delete it to download it again")
    labels = labels.astype(np.int64)
    return Split(images, labels if labels.shape[1] > 1 else labels[:, 0])


def _download(flag: str, size: int, path: Path) -> None:
    """Download beside `path` and move it there once medmnist has verified its MD5."""
    import medmnist

    info = medmnist.INFO[flag]
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
            f"dataset: {path.name} could not be downloaded ({str(cause)[:120]}); offline: fetch "
            f"{info[f'url{_suffix(size)}']} elsewhere and put it at {path}, or pass its folder as "
            "--data-root (-P data_root=DIR)",
            reason="missing_data",
        ) from error
