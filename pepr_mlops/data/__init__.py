"""Data sets by name: `load` gives any of them as `Splits`."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pepr_mlops.data import digest, digits, folder, lidc, medmnist
from pepr_mlops.data.doubtful import doubts, in_words, refuse
from pepr_mlops.data.splits import Split, Splits, check, with_channels, with_fraction
from pepr_mlops.errors import WorkFailed, WrongUse, nearest
from pepr_mlops.spec import FILES, Job, RunSpec

__all__ = ["NAMES", "Split", "Splits", "doubts", "fetch", "identify", "in_words", "load", "refuse"]

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


def identify(spec: RunSpec) -> Job:
    """The job of a spec: what its data set and its file of weights hold.

    A file that MedMNIST publishes and that is not here yet is known by the MD5 it will have. Raises
    `WrongUse` for an unknown name and for files that are missing or cannot be read.
    """
    check_name(spec.dataset)
    weights = None
    if spec.weights is not None:
        check_file(spec.weights)
        weights = digest.of_file(Path(spec.weights))
    return Job(**spec.values(), data_digest=_digest(spec), weights_digest=weights)


def check_file(weights: str) -> None:
    """Raise `WrongUse` where there is no such file."""
    if not os.path.isfile(weights):
        raise WrongUse(
            f"weights: there is no file {weights}; give the path of a .safetensors "
            "file or of a PyTorch state dict",
            reason="missing_weights",
        )


def identify_all(specs: Sequence[RunSpec]) -> list[Job]:
    """The jobs of specs, as `identify`; files that several have in common are looked at once."""
    found: dict[tuple[Any, ...], tuple[str, str | None]] = {}
    jobs = []
    for spec in specs:
        files = tuple(getattr(spec, name) for name in FILES)
        if files not in found:
            job = identify(spec)
            found[files] = job.data_digest, job.weights_digest
        data, weights = found[files]
        jobs.append(Job(**spec.values(), data_digest=data, weights_digest=weights))
    return jobs


def _digest(spec: RunSpec) -> str:
    flag = medmnist.ALIASES.get(spec.dataset, spec.dataset)
    if flag in medmnist.FLAGS:
        path = medmnist.place(flag, spec.size, spec.data_root)
        to_come = None if path.exists() else medmnist.published_md5(flag, spec.size)
        return digest.of_file(path, to_come)
    if spec.dataset in NAMES:
        return digest.of_file(
            digits.path() if spec.dataset == "digits" else lidc.find(spec.data_root)
        )
    root = Path(spec.dataset)
    names = [
        f"{split}/{label}/{path.name}"
        for split, classes in folder.find(root).items()
        for label, found in classes.items()
        for path in found
    ]
    return digest.of_files(root, names)


def load(spec: RunSpec) -> Splits:
    """The data set a spec asks for, with its channels and training fraction.

    A name comes before a folder of the same name; write ./NAME for the folder. Raises `WrongUse`
    for an unknown name or unusable data, and `WorkFailed` for a download that fails and for data
    that are not those of a `Job`.
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
    if isinstance(spec, Job):
        _check(spec, "dataset", spec.data_digest, _digest(spec))
    return splits


def check_weights(job: Job) -> None:
    """Raise `WorkFailed` unless the file of weights holds what it held when the job was made."""
    if job.weights is not None:
        _check(job, "weights", job.weights_digest, digest.of_file(Path(job.weights)))


def _check(job: Job, what: str, planned: str | None, here: str) -> None:
    if planned != here:
        raise WorkFailed(
            f"{what}: {getattr(job, what)} on {platform.node()} does not hold what this job was "
            f"started for (digest {here}, not {planned}); copy the same files to all machines or "
            "start it again",
            reason="data_changed",
        )
