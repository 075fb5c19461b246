"""Reads a data set with all its faults, for `audit`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from numpy.lib.npyio import NpzFile

from pepr_mlops.data import NAMES, check_spec, digits, lidc, medmnist, refuse_options
from pepr_mlops.data.audit import (
    Audit,
    Finding,
    array_part,
    audit,
    classes_of,
    patient_faults,
    unequal,
)
from pepr_mlops.data.audit_own import audit_own
from pepr_mlops.data.own import walk
from pepr_mlops.data.own.kinds import is_own
from pepr_mlops.data.splits import SPLITS
from pepr_mlops.errors import WrongUse, nearest, one_line
from pepr_mlops.spec import RunSpec

_Array = npt.NDArray[Any]


def audit_target(spec: RunSpec) -> tuple[Audit, ...]:
    """The audit of the data set of a spec: a known name, a folder or table of images, a file in
    MedMNIST's .npz format, or a folder of such files, each of which is a data set.

    Faults of the data are findings. Raises `WrongUse` for what is no data set, and for options that
    the data set does not have.
    """
    path = Path(spec.dataset)
    if spec.dataset in NAMES:
        check_spec(spec)
        return (_named(spec),)
    files = sorted(path.glob("*.npz")) if path.is_dir() else []
    if path.suffix == ".npz" and path.is_file():
        files = [path]
    if files == [path] or (files and not walk.find(path).images):
        refuse_options(spec)
        return tuple(_file(file) for file in files)
    if is_own(spec.dataset):
        check_spec(spec)
        return (audit_own(spec),)
    neighbours = path.parent.iterdir() if path.parent.is_dir() else ()
    choices = [*NAMES, *map(str, neighbours)]
    raise WrongUse(
        f"dataset: {spec.dataset!r} is neither a known name nor a folder, a table of images or an "
        f".npz file{nearest(str(path), choices) or '.'} Valid: {', '.join(NAMES)}, DIR, LABELS.csv "
        "or FILE.npz"
    )


def _named(spec: RunSpec) -> Audit:
    if spec.dataset == lidc.NAME:
        return _file(lidc.find(spec.data_root))
    if spec.dataset != "digits":
        return _file(medmnist.present(spec.dataset, spec.size, spec.data_root))
    splits = digits.load(spec.folds, spec.fold)
    parts = [
        array_part(split, np.asarray(part.images), part.labels[:, None], 1, len(splits.classes))[0]
        for split, part in splits.by_name().items()
    ]
    return audit(splits.name, parts, splits.classes)


# Files in MedMNIST's format --------------------------------------------------------------------


def _file(path: Path) -> Audit:
    try:
        arrays = medmnist.open_file(path)
    except medmnist.Damaged as error:
        message = f"the file is damaged or not an .npz file ({error}); replace it"
        return audit(str(path), (), (), [Finding("error", "unreadable", message)])
    with arrays:
        return _arrays(path, arrays)


def _arrays(path: Path, arrays: NpzFile) -> Audit:
    """The audit of an open file. Images are large, so one split of them is read at a time."""
    known = medmnist.known_file(path)
    found = _arrays_absent(arrays)
    labels = {split: _read(arrays, f"{split}_labels", found) for split in SPLITS}
    names = medmnist.class_names(known[0]) if known else _names(arrays, found)
    classes, columns = classes_of(labels.values(), names)
    parts = []
    for split, given in labels.items():
        images = _read(arrays, f"{split}_images", found)
        part, faults = array_part(split, images, given, columns, len(classes))
        if known and images is not None and given is not None and not faults:
            faults = _medmnist_faults(*known, split, images, given)
        del images  # before those of the next split are read
        parts.append(part)
        found += faults
    found += unequal(parts)
    found += _patients(path.with_suffix(".csv"), {part.name: part.images for part in parts})
    return audit(str(path), parts, classes, found)


def _medmnist_faults(
    flag: str, size: int, split: str, images: _Array, labels: _Array
) -> list[Finding]:
    """Why training refuses a file that has the name of a MedMNIST file."""
    wrong = medmnist.fault(flag, size, split, images, labels)
    if wrong is None:
        return []
    message = f"{split} {wrong}; delete the file and run pepr data get {flag} --size {size}"
    return [Finding("error", "medmnist", message)]


def _arrays_absent(arrays: NpzFile) -> list[Finding]:
    names = [f"{split}_{content}" for split in SPLITS for content in ("images", "labels")]
    absent = ", ".join(name for name in names if name not in arrays)
    message = f"the file has no {absent}; add it"
    return [Finding("error", "missing", message)] if absent else []


def _read(arrays: NpzFile, name: str, found: list[Finding]) -> _Array | None:
    """An array, or None where it is absent or damaged; damage is added to `found`."""
    if name not in arrays:
        return None
    try:
        return medmnist.read(arrays, name)
    except medmnist.Damaged as error:
        message = f"{name} cannot be read ({error}); replace the file"
        found.append(Finding("error", "unreadable", message))
        return None


def _names(arrays: NpzFile, found: list[Finding]) -> tuple[str, ...] | None:
    """The names in the array `classes`; files of MedMNIST have none."""
    names = _read(arrays, "classes", found)
    if names is None:
        return None
    if names.dtype.kind != "U" or names.ndim != 1:
        message = f"classes are {names.dtype} {names.shape} where names are expected; correct them"
        found.append(Finding("error", "classes", message))
        return None
    return tuple(map(str, names))


def _patients(path: Path, images: Mapping[str, int | None]) -> list[Finding]:
    """Findings on the table of patients next to a file, if there is one."""
    if not path.exists():
        return []
    try:
        manifest = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        message = f"{path.name} is not a readable table ({one_line(error)}); replace it"
        return [Finding("error", "manifest", message)]
    if not {"patient", "split"} <= set(manifest.columns):
        message = f"{path.name} has no columns patient and split, so patients are not compared"
        return [Finding("warning", "manifest", message)]
    return patient_faults(manifest, images)
