"""Data sets by name: `load` gives any of them as `Splits`."""

from __future__ import annotations

import os
from pathlib import Path

from pepr_mlops.data import digits, folder, lidc, medmnist
from pepr_mlops.data.splits import Split, Splits, check, with_channels, with_fraction
from pepr_mlops.errors import WrongUse, nearest
from pepr_mlops.spec import RunSpec

__all__ = ["NAMES", "Split", "Splits", "fetch", "load"]

NAMES = ("digits", *medmnist.ALIASES, lidc.NAME, *medmnist.FLAGS)


def check_name(name: str) -> None:
    """Raise `WrongUse` with the nearest names unless `name` is a data set or a folder."""
    if name not in NAMES and not os.path.isdir(name):
        raise WrongUse(
            f"dataset: {name!r} is neither a known name nor a folder{nearest(name, NAMES) or '.'} "
            f"Valid: {', '.join(NAMES)}, or DIR with DIR/train/CLASS/*.png"
        )


def missing(spec: RunSpec) -> str | None:
    """The file of its data set that a job would have to download, or None."""
    flag = medmnist.ALIASES.get(spec.dataset, spec.dataset)
    if flag not in medmnist.FLAGS:
        return None
    path = medmnist.path_of(flag, spec.size, spec.data_root)
    return None if path.exists() else f"{path.name} to {path.parent}"


def fetch(name: str, size: int, data_root: str | None) -> tuple[Path, bool] | None:
    """The file of a data set by name and whether it had to be downloaded, or None.

    There is none of a data set that comes with a library. What is published is verified. Raises
    `WrongUse` for an unknown name, a folder `data_root` or a file that is absent, or a file that is
    not the published one, and `WorkFailed` for a download that fails.
    """
    if name not in NAMES:
        raise WrongUse(
            f"dataset: {name!r} is not a known name{nearest(name, NAMES) or '.'} "
            f"Valid: {', '.join(NAMES)}"
        )
    if name == "digits":
        return None
    if name == lidc.NAME:
        path = lidc.find(data_root)
        lidc.load(data_root)  # or it is damaged
        return path, False
    flag = medmnist.ALIASES.get(name, name)
    path, new = medmnist.fetch(flag, size, data_root)
    if not new:
        medmnist.verify(flag, size, path)
    return path, new


def load(spec: RunSpec) -> Splits:
    """The data set a spec asks for, with its channels and training fraction.

    A name comes before a folder of the same name; write ./NAME for the folder. Raises `WrongUse`
    for an unknown name or unusable data and `WorkFailed` for a download that fails.
    """
    check_name(spec.dataset)
    name = spec.dataset
    flag = medmnist.ALIASES.get(name, name)
    if name == "digits":
        splits = digits.load()
    elif name == lidc.NAME:
        splits = lidc.load(spec.data_root)
    elif flag in medmnist.FLAGS:
        splits = medmnist.load(flag, spec.size, spec.data_root)
    else:
        splits = folder.load(name, spec.image_size, spec.seed)
    splits = with_channels(with_fraction(splits, spec.fraction, spec.seed), spec.channels)
    check(splits)
    return splits
