"""Data sets by name: `load` gives any of them as `Splits`."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pepr_mlops.data import digest, digits, lidc, medmnist
from pepr_mlops.data.doubtful import doubt_texts, doubts, refuse_doubts
from pepr_mlops.data.own.kinds import is_own
from pepr_mlops.data.own.listing import Known
from pepr_mlops.data.splits import (
    Split,
    Splits,
    check,
    check_external,
    with_channels,
    with_fraction,
)
from pepr_mlops.errors import WorkFailed, WrongUse, nearest
from pepr_mlops.files import TABLES
from pepr_mlops.spec import FILES, OF_FILES, OF_TABLES, OWN, Job, RunSpec

__all__ = [
    "NAMES",
    "Split",
    "Splits",
    "doubt_texts",
    "doubts",
    "fetch",
    "identify",
    "load",
    "refuse_doubts",
]

NAMES = ("digits", *medmnist.ALIASES, lidc.NAME, *medmnist.FLAGS)


_USUAL = RunSpec()


def check_name(name: str) -> None:
    """Raise `WrongUse` with the nearest names unless `name` is a data set, a folder or a table."""
    if name not in NAMES and not is_own(name):
        if os.path.exists(name):
            raise WrongUse(
                f"dataset: {name} is neither a folder nor a table ({', '.join(TABLES)}); save a "
                "spreadsheet as CSV in UTF-8, unpack an archive, and name the folder of images"
            )
        raise WrongUse(
            f"dataset: {name!r} is neither a known name nor a folder nor a table of images"
            f"{nearest(name, NAMES) or '.'} Valid: {', '.join(NAMES)}, DIR with DIR/CLASS/* or "
            "DIR/train/CLASS/*, or LABELS.csv"
        )


def check_spec(spec: RunSpec) -> None:
    """`check_name`, and raise `WrongUse` for options that the data set does not have."""
    check_name(spec.dataset)
    if spec.external is not None:
        from pepr_mlops.data.own.external import paths

        paths(spec.external)
    if spec.dataset not in NAMES:
        _refuse_options_of_tables(spec)
        return
    refuse_options(spec)
    if spec.folds is not None and spec.dataset != "digits":
        raise WrongUse(
            f"folds: {spec.dataset} has published splits, which folds would mix; leave out folds "
            "and fold, or name a folder or table of images without splits"
        )


def _refuse_options_of_tables(spec: RunSpec) -> None:
    given = [name for name in OF_TABLES if getattr(spec, name) != getattr(_USUAL, name)]
    if given and os.path.isdir(spec.dataset) and spec.external is None:
        raise WrongUse(
            f"{given[0]}: it is of tables, and {spec.dataset} is a folder; name the table as the "
            "data set and the folder of its images as --images, or write images.csv in the folder"
        )


def refuse_options(spec: RunSpec) -> None:
    """Raise `WrongUse` for options of folders and tables, where the data set is neither."""
    given = [name for name in OWN if getattr(spec, name) != getattr(_USUAL, name)]
    if given and not (spec.external and set(given) <= set(OF_FILES)):
        raise WrongUse(
            f"{given[0]}: it is of folders and tables of images, and {spec.dataset} is none; leave "
            f"out {', '.join(given)}"
        )


def missing(spec: RunSpec) -> str | None:
    """The data file that a job has to download, and its folder, or None."""
    flag = medmnist.FLAG_OF.get(spec.dataset)
    if flag is None:
        return None
    path = medmnist.path_of(flag, spec.size, spec.data_root)
    return None if path.exists() else f"{path.name} to {path.parent}"


def fetch(name: str, size: int, data_root: str | None) -> tuple[Path, bool] | None:
    """The file of a data set and whether it was downloaded now, or None if a library has the data.

    Published files are verified. Raises `WrongUse` for an unknown name, an absent `data_root` or
    file, or a file that is not the published one, and `WorkFailed` for a download that fails.
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
    flag = medmnist.FLAG_OF[name]
    path, new = medmnist.fetch(flag, size, data_root)
    if not new:
        medmnist.verify(flag, size, path)
    return path, new


def identify(spec: RunSpec) -> Job:
    """The job of a spec, with digests of its data set and its file of weights.

    A MedMNIST file that has to be downloaded first has the digest of its published MD5.
    Raises `WrongUse` for an unknown name and for files that are missing or cannot be read.
    """
    check_spec(spec)
    weights = None
    if spec.weights is not None:
        check_file(spec.weights)
        weights = digest.of_file(Path(spec.weights))
    return Job(
        **spec.values(),
        data_digest=_digest(spec),
        weights_digest=weights,
        external_digest=_external_digest(spec),
    )


def check_file(weights: str) -> None:
    """Raise `WrongUse` if there is no such file."""
    if not os.path.isfile(weights):
        raise WrongUse(
            f"weights: there is no file {weights}; give the path of a .safetensors "
            "file or of a PyTorch state dict",
            reason="missing_weights",
        )


def identify_all(specs: Iterable[RunSpec]) -> list[Job]:
    """The jobs of specs, as `identify`; files that several jobs share are read once."""
    found: dict[tuple[Any, ...], Job] = {}
    jobs = []
    for spec in specs:
        files = tuple(getattr(spec, name) for name in (*FILES, *OF_FILES))
        if files not in found:
            found[files] = identify(spec)
        jobs.append(replace(found[files], **spec.values()))
    return jobs


def _digest(spec: RunSpec) -> str:
    if flag := medmnist.FLAG_OF.get(spec.dataset):
        path = medmnist.place(flag, spec.size, spec.data_root)
        published = None if path.exists() else medmnist.published_md5(flag, spec.size)
        return digest.of_file(path, published)
    if spec.dataset == "digits":
        return digest.of_file(digits.path())
    if spec.dataset == lidc.NAME:
        return digest.of_file(lidc.find(spec.data_root))
    from pepr_mlops.data.own.load import digest_of

    return digest_of(spec)


def _known(spec: RunSpec) -> Known:
    """The classes and the task of the data set, whose images are not read."""
    if flag := medmnist.FLAG_OF.get(spec.dataset):
        return Known(medmnist.class_names(flag), medmnist.task_of(flag))
    if spec.dataset == "digits":
        return Known(digits.CLASSES, "multi-class")
    if spec.dataset == lidc.NAME:
        return Known(lidc.outline(lidc.find(spec.data_root))[0], "binary-class")
    from pepr_mlops.data.own.load import listing_of

    own = listing_of(spec)
    return Known(own.classes, own.task)


def _external_digest(spec: RunSpec, known: Known | None = None) -> str | None:
    if spec.external is None:
        return None
    from pepr_mlops.data.own.external import digest_of

    return digest_of(spec, known or _known(spec))


def load(spec: RunSpec, note: Callable[[str], None] = lambda line: None) -> Splits:
    """The data set of a spec, with its channels and training fraction, and its external sets.

    A name comes before a folder of the same name; write ./NAME for the folder. `note` shows lines
    that may name files. Raises `WrongUse` for an unknown name or unusable data, and `WorkFailed`
    for a download that fails and for data that have changed since their `Job` was made.
    """
    check_spec(spec)
    name, here, names = spec.dataset, None, None
    if name == "digits":
        splits = digits.load(spec.folds, spec.fold)
    elif name == lidc.NAME:
        splits = lidc.load(spec.data_root)
    elif flag := medmnist.FLAG_OF.get(name):
        splits = medmnist.load(flag, spec.size, spec.data_root)
    else:
        from pepr_mlops.data.own.load import load as load_own

        splits, here, names = load_own(spec, note)
    splits = with_channels(with_fraction(splits, spec.fraction, spec.seed), spec.channels)
    check(splits)
    if spec.external is not None:
        from pepr_mlops.data.own.external import load as load_external

        splits = load_external(spec, splits, names, note)
        check_external(splits)
    if isinstance(spec, Job):
        _check(spec, "dataset", spec.data_digest, here or _digest(spec))
        known = Known(splits.classes, splits.task)
        _check(spec, "external", spec.external_digest, _external_digest(spec, known))
    return splits


def check_weights(job: Job) -> None:
    """Raise `WorkFailed` if the file of weights has changed since the job was made."""
    if job.weights is not None:
        _check(job, "weights", job.weights_digest, digest.of_file(Path(job.weights)))


def _check(job: Job, what: str, planned: str | None, here: str | None) -> None:
    if planned != here:
        raise WorkFailed(
            f"{what}: {getattr(job, what)} on {platform.node()} has changed since this job was "
            f"started (digest {here}, not {planned}); copy the same files to all machines or start "
            "the job again",
            reason="data_changed",
        )
