"""A folder of images: DIR/CLASS/*, or DIR/{train,val,test}/CLASS/*."""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pepr_mlops.data.own import cells, columns, walk
from pepr_mlops.data.own.labels import check_classes, places_of, task_of
from pepr_mlops.data.own.listing import Known, Listing
from pepr_mlops.data.own.pairs import plain_path
from pepr_mlops.data.own.split_names import split_of
from pepr_mlops.data.own.table import patients_in, texts
from pepr_mlops.data.splits import SPLITS
from pepr_mlops.errors import WrongUse, nearest
from pepr_mlops.text import few

TABLE = "images.csv"
Refuse = Callable[[WrongUse], None]

_FILE = "file"
_EXAMPLES = 3  # that a message names
_FORMS = "expected DIR/train/CLASS/*, DIR/CLASS/* or a table LABELS.csv"


class _Image(NamedTuple):
    """An image with its split, which is empty where there is none, and its class."""

    split: str
    label: str
    file: str


def listing(root: Path, known: Known | None = None) -> Listing:
    """The images below the folders of classes in `root`, sorted by split, class and file.

    Splits may have other names that people give them, and be in the only folder of `root`. Images
    may be in any depth below their class. The table images.csv in `root` has their patients and
    subgroups. Raises `WrongUse` for images outside of a class, for two folders of one split, for a
    class without an image in train, and for a table that lacks images of val or test. The folder of
    an external set needs no train and may lack some of the classes `known` of a training.
    """
    found, images, splits = _read(root, _raise, external=known is not None)
    if known is not None:
        if not images:
            raise WrongUse(
                f"external: {root} has no image in the folder of a class; add DIR/CLASS/*"
            )
        places = places_of(found.classes, found.task, known, str(root))
        return replace(found, labels=places[found.labels], classes=known.classes, task=known.task)
    _refuse_without_train(root, images, _raise)
    trained = sorted({image.label for image in images if image.split in ("", "train")})
    check_classes(trained, len(images), str(root), _FORMS)
    _refuse_untrained(root, splits, images, trained)
    return found


def outline(root: Path, refuse: Refuse) -> Listing:
    """As `listing` of a folder with faults, each of which `refuse` takes: images outside of a class
    are left out and folders of one split joined. The classes are those of any split, and may be too
    few or lack images in train."""
    found, images, _ = _read(root, refuse)
    _refuse_without_train(root, images, refuse)
    try:
        if len(found.classes) > 1:
            check_classes(found.classes, len(found), str(root), _FORMS)
    except WrongUse as error:
        refuse(error)
    return found


def _raise(error: WrongUse) -> None:
    raise error


def _read(
    root: Path, refuse: Refuse, *, external: bool = False
) -> tuple[Listing, list[_Image], dict[str, str]]:
    """The listing, its images and the split of each folder that is called like one. The splits of
    an external set have no use."""
    found = walk.find(root, without={TABLE})
    splits = _split_folders(root, found.folders, refuse)
    _refuse_misplaced(root, found, splits, refuse)
    images = _images(root, found.images, splits, refuse)
    classes = tuple(sorted({image.label for image in images}))
    number = {name: i for i, name in enumerate(classes)}
    notes, details = _passed_over(found, splits, images)
    bare = Listing(
        name=root.resolve().name,
        root=root,
        files=texts([image.file for image in images]),
        labels=np.array([number[image.label] for image in images], dtype=np.int64),
        classes=classes,
        task=task_of(classes),
        splits=texts([image.split for image in images]),
        notes=notes,
        details=details,
    )
    try:
        return _described(bare, external), images, splits
    except WrongUse as error:
        refuse(error)
        return bare, images, splits


def _split_folders(root: Path, folders: Sequence[str], refuse: Refuse) -> dict[str, str]:
    """The split of each folder that is called like one, in `root` or in its only folder."""
    top = [folder for folder in folders if "/" not in folder]
    inner = [folder for folder in folders if folder.count("/") == 1] if len(top) == 1 else []
    found: dict[str, str] = {}
    for folder in top if any(map(split_of, top)) else inner:
        split = split_of(posixpath.basename(folder))
        if split is None:
            continue
        if split in found.values():
            other = next(name for name in found if found[name] == split)
            refuse(
                WrongUse(
                    f"dataset: {root / other} and {root / folder} are both {split}; merge "
                    "them or, to exclude one, rename it to a name unlike a split's"
                )
            )
        found[folder] = split
    return found


def _refuse_misplaced(
    root: Path, found: walk.Found, splits: Mapping[str, str], refuse: Refuse
) -> None:
    """Refuse folders of images that are called like splits but would be read as parts of a class.

    Any folder in that of a split may have such a name.
    """
    if splits:
        return
    named = [f for f in found.folders if split_of(posixpath.basename(f))]
    misplaced = [f for f in named if any(image.startswith(f"{f}/") for image in found.images)]
    if misplaced:
        remedy = (
            "move them to DIR/train/CLASS/*, name the folder that they are in as the data set, or "
            "give them names unlike a split's"
        )
        start = f"dataset: {len(misplaced):,} folders that are called like splits would not be"
        refuse(
            WrongUse(
                f"{start} read as splits in {root}: {few(misplaced, _EXAMPLES)}; {remedy}",
                logged=f"{start} read as splits in {root}; {remedy}",
            )
        )


def _refuse_without_train(root: Path, images: Sequence[_Image], refuse: Refuse) -> None:
    if images and not any(image.split in ("", "train") for image in images):
        refuse(
            WrongUse(
                f"dataset: {root} has no train folder with images; add DIR/train/CLASS/*, or name "
                "the folder of a split to use that alone"
            )
        )


def _images(
    root: Path, files: Iterable[str], splits: Mapping[str, str], refuse: Refuse
) -> list[_Image]:
    """The images in folders of classes, sorted; the files are sorted already.

    Those outside of the folders of splits are left out, unless they are next to these.
    """
    misplaced = {"", *splits, *map(posixpath.dirname, splits)}
    places = {file: posixpath.dirname(file) for file in files}
    for place in sorted(misplaced & set(places.values())):
        to = root / (place if place in splits else next(iter(splits), ""))
        remedy = "move them to"
        refuse(
            WrongUse(
                f"dataset: the images in {root / place} would not be read; {remedy} {to}/CLASS/",
                logged="dataset: images outside of a folder of their class would not be read; "
                f"{remedy} {to}/CLASS/",
            )
        )
    found = []
    for file, place in places.items():
        if place in misplaced:
            continue
        if not splits:
            found.append(_Image("", _class(root, place.split("/")[0]), file))
        for folder, split in splits.items():
            if file.startswith(f"{folder}/"):
                first = file.removeprefix(f"{folder}/").split("/")[0]
                found.append(_Image(split, _class(root / folder, first), file))
    order = ("", *SPLITS)
    return sorted(found, key=lambda image: (order.index(image.split), image.label))


def _class(folder: Path, name: str) -> str:
    """The name of a class in the form in which the letters of all file systems are alike."""
    if any(0xD800 <= ord(c) <= 0xDFFF for c in name):  # bytes that are no text (PEP 383)
        raise WrongUse(
            f"dataset: the folder {name!r} in {folder} has a name that is not UTF-8 text and "
            "cannot be logged as a class; rename it"
        )
    return unicodedata.normalize("NFC", name)


def _refuse_untrained(
    root: Path, splits: Mapping[str, str], images: Iterable[_Image], classes: Sequence[str]
) -> None:
    folder_of = {split: root / folder for folder, split in splits.items()}
    for image in images:
        if image.label not in classes:
            raise WrongUse(
                f"dataset: class {image.label!r} in {folder_of[image.split]} has no training image "
                f"in {folder_of['train']}{nearest(image.label, classes) or '.'} Name its folders "
                "alike in all splits, add images or remove it"
            )


def _passed_over(
    found: walk.Found, splits: Mapping[str, str], images: Sequence[_Image]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Sentences on what was passed over, and lines that name it."""
    used = {image.file for image in images}
    depth = next(iter(splits)).count("/") + 2 if splits else 1
    full = {"/".join(file.split("/")[:depth]) for file in used}
    parents = splits or {""}
    empty = [
        folder
        for folder in found.folders
        if posixpath.dirname(folder) in parents and folder not in full
    ]
    passed = {
        "folders of classes without images": empty,
        "images outside of the folders of splits": [f for f in found.images if f not in used],
    }
    lines = [(f"{what}: {len(names):,}", few(names, 3)) for what, names in passed.items() if names]
    details = tuple(f"{line} ({names})" for line, names in lines)
    return (*found.notes, *(line for line, _ in lines)), (*found.details, *details)


def _described(found: Listing, external: bool) -> Listing:
    """The same images with the patients and the subgroups of the table, if there is one."""
    path = found.root / TABLE
    if not path.exists():
        return found
    table = cells.read(path)
    if _FILE not in table.columns:
        raise WrongUse(
            f"dataset: {path} has no column {_FILE}; name the columns in its first line, such as "
            f"{_FILE},patient,sex"
        )
    uses = columns.further(table, _FILE, str(path))
    rows = table.set_index(table[_FILE].map(plain_path))
    if twice := list(rows.index[rows.index.duplicated()]):
        raise WrongUse(
            f"dataset: {path} has two rows for {twice[0]}; remove one",
            logged=f"dataset: {path} has several rows for {len(twice):,} files; remove all but one",
        )
    if uses.split is not None and not external and not found.splits.any():
        raise WrongUse(
            f"dataset: {path} has the column of splits {uses.split}, and splits of a folder are "
            "folders; move the images to DIR/train/CLASS/* and so on, or make one table of splits "
            "and classes and name that as the data set"
        )
    files = [plain_path(file) for file in found.files.tolist()]
    lacking = _refuse_lacking(path, found, [file not in rows.index for file in files])
    rows = rows.reindex(files, fill_value="")
    patients, merged = patients_in(rows, uses.patient)
    return replace(
        found,
        patients=patients,
        groups={name: texts(columns.group(rows[name])) for name in uses.groups},
        columns={use: ",".join(names) for use, names in replace(uses, split=None).by_use.items()},
        notes=(*found.notes, *uses.notes, *lacking, *merged),
    )


def _refuse_lacking(path: Path, found: Listing, absent: Sequence[bool]) -> tuple[str, ...]:
    """Raise `WrongUse` if an image that may be evaluated has no row; a note on the others."""
    drawn = not {"val", "test"} <= set(found.splits.tolist())
    lacking = [
        file
        for file, split, lacks in zip(found.files.tolist(), found.splits, absent, strict=True)
        if lacks and (drawn or split != "train")
    ]
    if lacking:
        n = len(lacking)
        have = "image that may be evaluated has" if n == 1 else "images that may be evaluated have"
        remedy = f"add one for each, with exactly its path in the column {_FILE}"
        raise WrongUse(
            f"dataset: {n:,} {have} no row in {path}: {few(lacking, _EXAMPLES)}; {remedy}",
            logged=f"dataset: {n:,} {have} no row in {path}; {remedy}",
        )
    return (f"{TABLE} has no row for {sum(absent):,} training images",) if any(absent) else ()
