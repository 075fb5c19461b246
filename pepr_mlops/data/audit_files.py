"""Reads a data set with all its faults, for `audit`."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from numpy.lib.npyio import NpzFile
from PIL import Image
from tqdm import tqdm

from pepr_mlops.data import NAMES, digits, folder, lidc, medmnist
from pepr_mlops.data.audit import (
    Audit,
    Finding,
    array_part,
    audit,
    classes_of,
    listing,
    mixture,
    patient_faults,
    shortcuts,
    unequal,
)
from pepr_mlops.data.duplicates import ImageKey, Part, image_key
from pepr_mlops.data.groups import TABLE
from pepr_mlops.data.splits import EXAMPLES, SPLITS
from pepr_mlops.errors import WrongUse, nearest, one_line

_Array = npt.NDArray[Any]


def audit_target(target: str, size: int, data_root: str | None) -> tuple[Audit, ...]:
    """The audits of a known name, DIR/{train,val,test}/CLASS/*.png, a file in MedMNIST's .npz
    format, or a folder of such files, each of which is a data set.

    `size` and `data_root` select the file of a MedMNIST name. Faults of the data are findings.
    Raises `WrongUse` if `target` is not a data set.
    """
    path = Path(target)
    if target in NAMES:
        return (_named(target, size, data_root),)
    if os.path.isdir(target):
        if any((path / split).is_dir() for split in SPLITS):
            return (_folder(path),)
        if files := sorted(path.glob("*.npz")):
            return tuple(_file(file) for file in files)
        raise WrongUse(f"dataset: {path} holds neither train/CLASS/*.png nor an .npz file")
    if path.suffix == ".npz" and os.path.isfile(target):
        return (_file(path),)
    neighbours = path.parent.iterdir() if path.parent.is_dir() else ()
    choices = [*NAMES, *map(str, neighbours)]
    raise WrongUse(
        f"dataset: {target!r} is neither a known name nor a folder nor an .npz file"
        f"{nearest(str(path), choices) or '.'} Valid: {', '.join(NAMES)}, DIR with "
        "DIR/train/CLASS/*.png or DIR/*.npz, or FILE.npz"
    )


def _named(name: str, size: int, data_root: str | None) -> Audit:
    if name == "digits":
        splits = digits.load()
        parts = [
            array_part(split, part.images, part.labels[:, None], 1, len(splits.classes))[0]
            for split, part in splits.by_name().items()
        ]
        return audit(name, parts, splits.classes)
    if name == lidc.NAME:
        return _file(lidc.find(data_root))
    path = medmnist.place(medmnist.FLAG_OF[name], size, data_root)
    if not path.exists():
        raise WrongUse(
            f"dataset: {path} does not exist; download it with pepr data get {name} --size {size}, "
            "or choose a size that pepr data list shows on disk",
            reason="missing_data",
        )
    return _file(path)


# Folders of images -----------------------------------------------------------------------------


class _Image(NamedTuple):
    """The properties of an image file; `mode` is Pillow's name, such as RGB or P."""

    key: ImageKey
    mode: str
    format: str
    further_frames: bool


def _folder(root: Path) -> Audit:
    files = {
        split: [
            (label, str(path.relative_to(root)))
            for label, found in folder.files_of(root / split).items()
            for path in found
        ]
        for split in SPLITS
        if (root / split).is_dir()
    }
    names = [name for own in files.values() for _, name in own]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reading = pool.map(lambda name: _decoded(root / name), names)
        shown = tqdm(reading, total=len(names), unit="image", leave=False, disable=None)
        decoded = dict(zip(names, shown, strict=True))
    images = {name: image for name, image in decoded.items() if isinstance(image, _Image)}
    classes = sorted(  # also those without images, which training ignores
        {
            entry.name
            for split in files
            for entry in (root / split).iterdir()
            if entry.is_dir() and not folder.passed_over(entry.name)
        }
        | {label for own in files.values() for label, _ in own}
    )
    parts = [
        Part(
            split,
            [name for _, name in own],
            [images[name].key if name in images else None for _, name in own],
            np.array([classes.index(label) for label, _ in own], dtype=np.int64),
            len(own),
        )
        for split, own in files.items()
    ]
    misplaced = [
        Finding("error", "misplaced", f"the images in {place} would not be read; {remedy}")
        for place, remedy in folder.misplaced(root).items()
    ]
    several = [name for name, image in images.items() if image.further_frames]
    frames = folder.frames_text(len(several), len(images))
    found = [
        *misplaced,
        *_folders_absent(files),
        *_unusable(decoded),
        *_ignored(root, names),
        *listing("warning", "frames", frames, several, EXAMPLES),
        *mixture(parts),
        *_shortcuts(files.get("train", []), images),
    ]
    return audit(str(root), parts, classes, found)


def _decoded(path: Path) -> _Image | str | None:
    """The image as training takes it, but at its own size.

    None if it has over 8 bits a channel; why it cannot be read, if it cannot.
    """
    try:
        with Image.open(path) as image:
            if folder.is_deep(image):
                return None
            mode, kind = image.mode, str(image.format)
            key = image_key(np.asarray(folder.as_seen(image, folder.is_grey(image))))
            return _Image(key, mode, kind, folder.has_further_frames(image))
    except Exception as error:  # Pillow raises any error on damaged files
        return one_line(error)


def _folders_absent(files: Collection[str]) -> list[Finding]:
    absent = [split for split in SPLITS if split not in files]
    if "train" in absent:
        return [Finding("error", "missing", "there is no train folder; add DIR/train/CLASS/*.png")]
    return [
        Finding("warning", "drawn", f"there is no {split} folder; training draws it from train")
        for split in absent
    ]


def _unusable(files: Mapping[str, _Image | str | None]) -> list[Finding]:
    """Findings on the files that `_decoded` could not use."""
    damaged = [f"{name} ({why})" for name, why in files.items() if isinstance(why, str)]
    deep = [name for name, image in files.items() if image is None]
    n = f"{len(files):,}"
    text = f"{len(damaged):,} of {n} files cannot be read as images; repair or remove them"
    deep_text = f"over 8 bits a channel in {len(deep):,} of {n} files; save them windowed to 8"
    return [
        *listing("error", "unreadable", text, damaged),
        *listing("error", "depth", deep_text, deep, EXAMPLES),
    ]


def _shortcuts(files: Sequence[tuple[str, str]], images: Mapping[str, _Image]) -> list[Finding]:
    """Properties of the training files (class and name) that predict the class."""
    usable = [(label, images[name]) for label, name in files if name in images]
    properties = {
        "size in pixels": [image.key.size for _, image in usable],
        "colour mode": [image.mode for _, image in usable],
        "file format": [image.format for _, image in usable],
    }
    return shortcuts(properties, [label for label, _ in usable])


def _ignored(root: Path, used: Iterable[str]) -> list[Finding]:
    """Files that training ignores, except those with a leading dot."""
    visible = {
        str(Path(folder, name).relative_to(root))
        for folder, _, names in os.walk(root)
        for name in names
        if not name.startswith(".")
    }
    ignored = sorted(visible - {*used, TABLE})
    message = f"{len(ignored):,} files are ignored; only images in DIR/SPLIT/CLASS/ are read"
    return listing("warning", "ignored", message, ignored, EXAMPLES)


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
