"""The 2-D MedMNIST+ data sets, downloaded by the `medmnist` package."""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import psutil
from numpy.lib import format as npy
from numpy.lib.npyio import NpzFile

from pepr_mlops.data.splits import SPLITS, Split, Splits
from pepr_mlops.errors import WorkFailed, WrongUse, one_line
from pepr_mlops.names import MULTI_LABEL, Task
from pepr_mlops.spec import SIZES

ALIASES = {"derma": "dermamnist", "pneumonia": "pneumoniamnist"}
FLAGS = (
    *("bloodmnist", "breastmnist", "chestmnist", "dermamnist", "octmnist", "organamnist"),
    *("organcmnist", "organsmnist", "pathmnist", "pneumoniamnist", "retinamnist", "tissuemnist"),
)
FLAG_OF = {flag: flag for flag in FLAGS} | ALIASES  # by name


def same_data(name: str) -> set[str]:
    """All names of the data set of this name."""
    flag = FLAG_OF.get(name)
    return {name} | {other for other, one in FLAG_OF.items() if one == flag}


def load(flag: str, size: int, data_root: str | None) -> Splits:
    """The data set `flag` from its file of `size`-pixel images, fetched as `fetch` does.

    Raises `WrongUse` when the file differs from MedMNIST's description.
    """
    import medmnist

    info = medmnist.INFO[flag]
    path, _ = fetch(flag, size, data_root)
    remedy = f"delete it to download it again, or fetch {info[f'url{_suffix(size)}']}"
    with intact(path, "no MedMNIST file", remedy) as arrays:
        splits: dict[str, Any] = {
            split: _split(arrays, split, flag, size, path) for split in SPLITS
        }
    return Splits(
        name=flag,
        source=str(path),
        task=task_of(flag),
        classes=class_names(flag),
        channels=info["n_channels"],
        **splits,
    )


def fetch(flag: str, size: int, data_root: str | None) -> tuple[Path, bool]:
    """The file of `flag` with `size`-pixel images, and whether it was downloaded now.

    Raises `WrongUse` as `place` does and `WorkFailed` when the file cannot be downloaded.
    """
    path = place(flag, size, data_root)
    if path.exists():
        return path, False
    _download(flag, size, path)
    return path, True


def verify(flag: str, size: int, path: Path) -> None:
    """Raise `WrongUse` unless the file has the MD5 that MedMNIST publishes for it."""
    published = published_md5(flag, size)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != published:
        raise WrongUse(
            f"dataset: {path} is not the file that MedMNIST publishes (MD5 {found}, not "
            f"{published}); delete it to download it again, or inspect it: "
            f"pepr data check {path}",
            reason="missing_data",
        )


def published_md5(flag: str, size: int) -> str:
    """The MD5 that MedMNIST publishes for the file of `flag` with `size`-pixel images."""
    import medmnist

    return str(medmnist.INFO[flag][f"MD5{_suffix(size)}"])


def place(flag: str, size: int, data_root: str | None) -> Path:
    """`path_of`, where a file need not exist. Raises `WrongUse` if the folder does not."""
    path = path_of(flag, size, data_root)
    if not path.parent.is_dir():
        raise WrongUse(
            f"data_root: there is no folder {path.parent}; create it or name another",
            reason="missing_data",
        )
    return path


def present(name: str, size: int, data_root: str | None) -> Path:
    """The path of the file of a data set on this disk. Raises `WrongUse` where it is not there."""
    path = place(FLAG_OF[name], size, data_root)
    if not path.exists():
        raise WrongUse(
            f"dataset: {path} does not exist; download it with pepr data get {name} --size {size}, "
            "or choose a size that pepr data list shows on disk",
            reason="missing_data",
        )
    return path


def path_of(flag: str, size: int, data_root: str | None) -> Path:
    """The path of the file of a data set in `folder_of(data_root)`, downloaded or not."""
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


class Damaged(Exception):
    """An .npz file, or an array in it, that cannot be read."""


class Outline(NamedTuple):
    """The header of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def open_file(path: Path) -> NpzFile:
    """An .npz file, whose arrays `read` reads. Raises `Damaged`."""
    try:
        # np.load takes any other file for an array or a pickle, and advises to trust it.
        return NpzFile(path)  # type: ignore[arg-type]  # it takes a path too
    except Exception as error:  # zipfile's, or a RuntimeError where it looks encrypted or too new
        raise Damaged(one_line(error)) from error


@contextmanager
def intact(path: Path, otherwise: str, remedy: str) -> Iterator[NpzFile]:
    """The file as `open_file` gives it; `Damaged` becomes `WrongUse`. It says that the file is
    damaged or `otherwise`."""
    try:
        with open_file(path) as arrays:
            yield arrays
    except Damaged as error:
        raise WrongUse(
            f"dataset: {path} is damaged or {otherwise} ({str(error)[:100]}); {remedy}",
            reason="missing_data",
        ) from error


def outline(arrays: NpzFile, name: str) -> Outline:
    """The header of an array. Raises `Damaged` if the array does not fit the archive or memory."""
    try:
        archive, member = arrays.zip, f"{name}.npy"
        assert archive is not None
        with archive.open(member) as file:
            version = npy.read_magic(file)
            header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
            shape, _, dtype = header[version](file)
            start = file.tell()
        stored = archive.getinfo(member).file_size - start
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or not dtype.itemsize:
            raise ValueError(f"it holds {dtype}, which are not numbers")
        if min(shape, default=0) < 0 or size != stored:
            raise ValueError(f"{dtype} {shape} are {size:,} bytes and there are {stored:,}")
        free = psutil.virtual_memory().available
        if size > free:
            raise ValueError(f"it takes {size / 1e9:.1f} GB of memory; {free / 1e9:.1f} are free")
        return Outline(shape, dtype)
    except Exception as error:  # zipfile's, numpy's and Python's, of a header that is anything
        raise Damaged(one_line(error)) from error


def read(arrays: NpzFile, name: str) -> npt.NDArray[Any]:
    """An array of the file. Raises `Damaged` as `outline`, and if it cannot be read."""
    outline(arrays, name)
    try:
        return arrays[f"{name}.npy"]
    except Exception as error:
        raise Damaged(one_line(error)) from error


def fault(
    flag: str, size: int, split: str, images: Outline | npt.NDArray[Any], labels: npt.NDArray[Any]
) -> str | None:
    """How the arrays of a split differ from MedMNIST's description, or None."""
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


def task_of(flag: str) -> Task:
    import medmnist

    task: Task = medmnist.INFO[flag]["task"]
    return task


def _suffix(size: int) -> str:
    return "" if size == 28 else f"_{size}"


def _split(arrays: NpzFile, split: str, flag: str, size: int, path: Path) -> Split:
    declared, labels = outline(arrays, f"{split}_images"), read(arrays, f"{split}_labels")
    if wrong := fault(flag, size, split, declared, labels):
        raise WrongUse(f"dataset: in {path} the {split} {wrong}; delete it to download it again")
    images, labels = read(arrays, f"{split}_images"), labels.astype(np.int64)
    labels = labels if labels.shape[1] > 1 else labels[:, 0]
    return Split(images, labels, np.arange(len(images)))


def _download(flag: str, size: int, path: Path) -> None:
    """Download next to `path` and move it there once medmnist has verified its MD5."""
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
