"""Reads a data set as it lies there, faults and all, for `audit`."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from numpy.lib.npyio import NpzFile
from PIL import Image
from tqdm import tqdm

from pepr_mlops.data import NAMES, digits, folder, lidc, medmnist
from pepr_mlops.data.audit import (
    SPLITS,
    Audit,
    Finding,
    array_part,
    audit,
    classes_of,
    mixture,
    patient_faults,
    shortcuts,
    size_text,
    unequal,
)
from pepr_mlops.data.splits import EXAMPLES
from pepr_mlops.data.twins import Look, Part, look
from pepr_mlops.errors import WrongUse, nearest, one_line

_Array = npt.NDArray[Any]


def examine(target: str, size: int, data_root: str | None) -> tuple[Audit, ...]:
    """What is to be said of a data set: a known name, DIR/{train,val,test}/CLASS/*.png, a file in
    MedMNIST's .npz format, or a folder of such files, each of which is a data set.

    `size` and `data_root` find the file of a MedMNIST name. Faults of the data are findings;
    raises `WrongUse` where `target` is no data set at all.
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
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    choices = [*NAMES, *(str(entry) for entry in beside)]
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
            for split, part in zip(SPLITS, (splits.train, splits.val, splits.test), strict=True)
        ]
        return audit(name, parts, splits.classes)
    if name == lidc.NAME:
        return _file(lidc.find(data_root))
    path = medmnist.place(medmnist.ALIASES.get(name, name), size, data_root)
    if not path.exists():
        raise WrongUse(
            f"dataset: there is no {path}; fetch it with pepr data get {name} --size {size}, or "
            "choose a size that pepr data list finds on disk",
            reason="missing_data",
        )
    return _file(path)


# Folders of images -----------------------------------------------------------------------------


class _Image(NamedTuple):
    """What is kept of a file that is an image."""

    look: Look
    mode: str  # Pillow's name of how its pixels are kept, such as RGB or P
    format: str
    further_frames: bool


class _Unusable(NamedTuple):
    """Why a file is no image of 8 bits a channel."""

    kind: Literal["unreadable", "depth"]
    why: str


def _folder(root: Path) -> Audit:
    files = {
        split: [
            (label, path)
            for label, found in folder.files_of(root / split).items()
            for path in found
        ]
        for split in SPLITS
        if (root / split).is_dir()
    }
    paths = [path for of in files.values() for _, path in of]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = tqdm(
            pool.map(_decoded, paths), total=len(paths), unit="image", leave=False, disable=None
        )
        seen = dict(zip(paths, decoded, strict=True))
    images = {path: image for path, image in seen.items() if isinstance(image, _Image)}
    classes = sorted(  # training would not miss one without images
        {
            entry.name
            for split in files
            for entry in (root / split).iterdir()
            if entry.is_dir() and not folder.passed_over(entry.name)
        }
        | {label for of in files.values() for label, _ in of}
    )
    parts = [
        Part(
            split,
            [str(path.relative_to(root)) for _, path in of],
            [images[path].look if path in images else None for _, path in of],
            np.array([classes.index(label) for label, _ in of], dtype=np.int64),
        )
        for split, of in files.items()
    ]
    unusable = {
        str(path.relative_to(root)): image
        for path, image in seen.items()
        if isinstance(image, _Unusable)
    }
    found = [
        *_misplaced(root),
        *_folders_absent(files),
        *_unusable(unusable, len(paths)),
        *_ignored(root, paths),
        *_further_frames(root, images),
        *mixture(parts),
        *_shortcuts(files.get("train", []), images),
    ]
    return audit(str(root), parts, classes, found)


def _decoded(path: Path) -> _Image | _Unusable:
    """The image as training takes it, but at its own size."""
    try:
        with Image.open(path) as image:
            if folder.is_deep(image):
                return _Unusable("depth", image.mode)
            mode, kind = image.mode, str(image.format)
            seen = look(np.asarray(folder.as_seen(image, folder.is_grey(image))))
            return _Image(seen, mode, kind, folder.has_further_frames(image))
    except Exception as error:  # Pillow's readers of damaged files raise anything
        return _Unusable("unreadable", one_line(error))


def _misplaced(root: Path) -> list[Finding]:
    """Images that are meant for training and would not be read."""
    return [
        Finding("error", "misplaced", f"the images in {place} would not be read; {remedy}")
        for place, remedy in folder.misplaced(root).items()
    ]


def _folders_absent(files: Collection[str]) -> list[Finding]:
    absent = [split for split in SPLITS if split not in files]
    if "train" in absent:
        return [Finding("error", "missing", "there is no train folder; add DIR/train/CLASS/*.png")]
    return [
        Finding("warning", "drawn", f"there is no {split} folder; training draws it from train")
        for split in absent
    ]


def _unusable(files: Mapping[str, _Unusable], n: int) -> list[Finding]:
    """Findings on those of `n` files that are of no use."""
    damaged = [f"{name} ({file.why})" for name, file in files.items() if file.kind == "unreadable"]
    deep = [name for name, file in files.items() if file.kind == "depth"]
    findings = []
    if damaged:
        message = f"{len(damaged):,} of {n:,} files cannot be read as images; repair or remove them"
        findings.append(Finding("error", "unreadable", message, tuple(damaged)))
    if deep:
        message = f"over 8 bits a channel in {len(deep):,} of {n:,} files; save them windowed to 8"
        findings.append(Finding("error", "depth", message, tuple(deep[:EXAMPLES])))
    return findings


def _further_frames(root: Path, images: Mapping[Path, _Image]) -> list[Finding]:
    several = [str(path.relative_to(root)) for path, of in images.items() if of.further_frames]
    if not several:
        return []
    message = folder.frames_text(len(several), len(images))
    return [Finding("warning", "frames", message, tuple(several[:EXAMPLES]))]


def _shortcuts(files: Sequence[tuple[str, Path]], images: Mapping[Path, _Image]) -> list[Finding]:
    """What the files of train, each with its class, say of that besides their pixels."""
    seen = [(label, images[path]) for label, path in files if path in images]
    properties = {
        "size in pixels": [size_text(image.look.height, image.look.width) for _, image in seen],
        "colour mode": [image.mode for _, image in seen],
        "file format": [image.format for _, image in seen],
    }
    return shortcuts(properties, [label for label, _ in seen])


def _ignored(root: Path, taken: Collection[Path]) -> list[Finding]:
    """Files that training passes over; those with a leading dot are meant to be."""
    known = set(taken)
    ignored = [
        str(path.relative_to(root))
        for folder, _, names in os.walk(root)
        for name in names
        if not name.startswith(".") and (path := Path(folder, name)) not in known
    ]
    if not ignored:
        return []
    message = f"files that are ignored: {len(ignored):,}; only images in DIR/SPLIT/CLASS/ are read"
    return [Finding("warning", "ignored", message, tuple(sorted(ignored)[:EXAMPLES]))]


# Files in MedMNIST's format --------------------------------------------------------------------


def _file(path: Path) -> Audit:
    try:
        arrays = medmnist.open_file(path)
    except medmnist.Damaged as error:
        message = f"the file is damaged or no .npz file ({error}); replace it"
        return audit(str(path), (), (), [Finding("error", "unreadable", message)])
    with arrays:
        return _arrays(path, arrays)


def _arrays(path: Path, arrays: NpzFile) -> Audit:
    """The audit of a file that opens. Its images are read split by split, since they are large."""
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
        if part.names or part.labels is not None:  # else it is not even known how many images
            del images  # before those of the next split are read
        parts.append(part)
        found += faults
    found += unequal(parts)
    found += _patients(path.with_suffix(".csv"), {part.name: len(part.names) for part in parts})
    return audit(str(path), parts, classes, found)


def _medmnist_faults(
    flag: str, size: int, split: str, images: _Array, labels: _Array
) -> list[Finding]:
    """What makes training refuse a file that bears a name of MedMNIST."""
    wrong = medmnist.fault(flag, size, split, images, labels)
    if wrong is None:
        return []
    message = f"{split} {wrong}; delete the file and run pepr data get {flag} --size {size}"
    return [Finding("error", "medmnist", message)]


def _arrays_absent(arrays: NpzFile) -> list[Finding]:
    wanted = [f"{split}_{of}" for split in SPLITS for of in ("images", "labels")]
    absent = [name for name in wanted if name not in arrays]
    if not absent:
        return []
    return [Finding("error", "missing", f"there is no {', '.join(absent)} in the file; add it")]


def _read(arrays: NpzFile, name: str, found: list[Finding]) -> _Array | None:
    """An array, or None where it is absent or, as is then added to `found`, damaged."""
    if name not in arrays:
        return None
    try:
        return medmnist.read(arrays, name)
    except medmnist.Damaged as error:
        message = f"{name} cannot be read ({error}); replace the file"
        found.append(Finding("error", "unreadable", message))
        return None


def _names(arrays: NpzFile, found: list[Finding]) -> tuple[str, ...] | None:
    """The names in the array `classes`, which files of MedMNIST do not have."""
    names = _read(arrays, "classes", found)
    if names is None:
        return None
    if names.dtype.kind != "U" or names.ndim != 1:
        message = f"classes are {names.dtype} {names.shape} where names are expected; correct them"
        found.append(Finding("error", "classes", message))
        return None
    return tuple(map(str, names))


def _patients(path: Path, images: Mapping[str, int]) -> list[Finding]:
    """What the table of patients beside a file says, if there is one."""
    if not path.exists():
        return []
    try:
        manifest = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        message = f"{path.name} is no readable table ({one_line(error)}); replace it"
        return [Finding("error", "manifest", message)]
    if not {"patient", "split"} <= set(manifest.columns):
        message = f"{path.name} has no columns patient and split, so patients are not compared"
        return [Finding("warning", "manifest", message)]
    return patient_faults(manifest, images)
