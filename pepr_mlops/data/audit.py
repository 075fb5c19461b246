"""Whether a data set is sound: its class balance, and what would spoil a result. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, count
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from pepr_mlops.data.duplicates import (
    Duplicates,
    ImageKey,
    Part,
    identical_pairs,
    image_key,
    summarise,
)
from pepr_mlops.data.shortcuts import shortcut
from pepr_mlops.data.splits import EXAMPLES, LEAST, SPLITS, Counts, Labels, per_class, scarce
from pepr_mlops.errors import nearest

STRICT = {"leakage", "conflict", "duplicates", "alone"}  # findings that `--strict` refuses
Severity = Literal["error", "warning", "note"]
_ORDER = get_args(Severity)

_FEW = 10  # images of a class, below which its share of a score means little
_PAIR = ["kind", "split", "path", "class", "other_split", "other_path", "other_class"]
_IMBALANCED = 10  # times the smallest class


@dataclass(frozen=True)
class Finding:
    """An error makes results wrong or training impossible, a warning may be intended, and a note
    says how the data are read."""

    severity: Severity
    kind: str
    message: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Audit:
    """The findings about one data set, errors first and notes last.

    `images` per split, readable or not, None where they cannot be counted. `counts`: `split`,
    `class`, `images` and `share` of the split's images, from 0 to 1. `shapes`: `height`, `width`,
    `colour` and how many `images`, most first. `pairs`: the `kind` (leak, conflict, repeat),
    `split`, `path` and `class` of each image that is identical with another, and the
    `other_split`, `other_path` and `other_class` of that one.
    """

    source: str
    images: Mapping[str, int | None]
    counts: pd.DataFrame
    shapes: pd.DataFrame
    pairs: pd.DataFrame
    findings: tuple[Finding, ...]

    def of(self, severity: str) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.severity == severity)


def listing(
    severity: Severity, kind: str, message: str, examples: Sequence[str], shown: int | None = None
) -> list[Finding]:
    """A finding with its examples, at most `shown` of them, or none where there is no example."""
    return [Finding(severity, kind, message, tuple(examples[:shown]))] if examples else []


def audit(
    source: str, parts: Sequence[Part], classes: Sequence[str], found: Sequence[Finding] = ()
) -> Audit:
    """The audit of splits that were read; `found` are the findings of reading them.

    `parts` are train, val and test, in this order. Those that do not exist are drawn from train.
    """
    listed = {part.name: len(part.names) for part in parts}
    counts = {
        part.name: per_class(part.labels, len(classes))
        for part in parts
        if part.labels is not None and len(part.labels)
    }
    pairs = identical_pairs(parts, classes)
    findings = [
        *found,
        *_empty(parts, classes),
        *_untrained(counts, classes),
        *_imbalance(counts, classes),
        *_few(counts, classes),
        *(_repetition(one, len(parts)) for one in summarise(pairs, listed)),
    ]
    rows = [
        (split, name, int(n), n / listed[split])
        for split, numbers in counts.items()
        for name, n in zip(classes, numbers, strict=True)
    ]
    shapes = Counter(key[1:] for part in parts for key in part.keys if key is not None)
    return Audit(
        source,
        {part.name: part.images for part in parts},
        pd.DataFrame(rows, columns=["split", "class", "images", "share"]),
        pd.DataFrame(
            [(*shape, n) for shape, n in shapes.most_common()],
            columns=["height", "width", "colour", "images"],
        ),
        pd.DataFrame(pairs, columns=_PAIR),
        tuple(sorted(findings, key=lambda finding: _ORDER.index(finding.severity))),
    )


def classes_of(
    labels: Iterable[npt.NDArray[Any] | None], names: Sequence[str] | None
) -> tuple[tuple[str, ...], int]:
    """The classes of label arrays [n, columns], and how many columns they should have.

    Without names the classes are numbered. A single column then has the classes from 0 up to the
    first number without an image: a larger number is a fault and not a new class. If 0 has no
    image, there are as many classes as different numbers.
    """
    usable = [
        array
        for array in labels
        if array is not None and array.dtype.kind in "biu" and array.ndim == 2 and array.shape[1]
    ]
    columns = usable[0].shape[1] if usable else 1
    if names is not None:
        return tuple(names), columns if columns == 1 else len(names)
    if columns > 1:
        return tuple(map(str, range(columns))), columns
    numbers = {n for array in usable for n in np.unique(array).tolist()}
    first_absent = next(n for n in count() if n not in numbers)
    return tuple(map(str, range(first_absent or len(numbers)))), 1


def array_part(
    split: str,
    images: npt.NDArray[Any] | None,
    labels: npt.NDArray[Any] | None,
    columns: int,
    classes: int,
) -> tuple[Part, list[Finding]]:
    """A split of arrays and their faults; None for a missing array.

    `images` should be uint8 [n, s, s] or [n, s, s, 3] and `labels` whole numbers [n, columns]: one
    column of class indices below `classes`, or several of 0 or 1.
    """
    n = len(images) if images is not None and images.ndim else None
    wrong_images = [] if images is None else _image_faults(split, images)
    wrong_labels = [] if labels is None else _label_faults(split, labels, n, columns, classes)
    usable: Labels | None = None
    if labels is not None and not wrong_labels:
        usable = labels.astype(np.int64) if columns > 1 else labels[:, 0].astype(np.int64)
        n = len(usable)
    keys: list[ImageKey | None] = [None] * (n or 0)
    if images is not None and not wrong_images:
        keys = [image_key(image) for image in images]
    names = [f"{split}/{i}" for i in range(len(keys))]
    return Part(split, names, keys, usable, n), [*wrong_images, *wrong_labels]


def unequal(parts: Sequence[Part]) -> list[Finding]:
    """An error if the images differ in size or colour between arrays; in one array they cannot."""
    shapes = {part.name: part.keys[0] for part in parts if part.keys and part.keys[0]}
    if len({key[1:] for key in shapes.values()}) < 2:
        return []
    each = ", ".join(f"{split} {key.size} {key.colour}" for split, key in shapes.items())
    return [Finding("error", "images", f"images differ between splits: {each}; make them equal")]


def patient_faults(manifest: pd.DataFrame, images: Mapping[str, int | None]) -> list[Finding]:
    """Patients in two splits, and rows of the table that do not match the images.

    `manifest` has the text columns `patient` and `split`; `images` is that of an `Audit`.
    """
    named = manifest[manifest["patient"] != ""]
    splits = named.groupby("patient")["split"].unique()
    shared = splits[splits.str.len() > 1]
    findings = []
    if unnamed := len(manifest) - len(named):
        message = f"{unnamed:,} of {len(manifest):,} rows of the table name no patient"
        findings.append(Finding("warning", "patient", message))
    if len(shared):
        findings.append(
            shared_patients(
                f"{len(shared):,} of {len(splits):,} patients are in more than one split"
            )
        )
    rows = manifest["split"].value_counts()
    different = [
        f"{split} ({rows.get(split, 0):,} rows, {images.get(split, 0):,} images)"
        for split in dict.fromkeys([*images, *rows.index])
        if images.get(split, 0) not in (None, rows.get(split, 0))
    ]
    message = "the table of patients does not have one row for each image; create it again"
    return findings + listing("error", "manifest", message, different)


def shared_patients(text: str) -> Finding:
    """The error about patients in several splits; `text` has their number alone."""
    return Finding("error", "patient", f"{text}; move all images of a patient to one")


def mixture(parts: Sequence[Part]) -> list[Finding]:
    """Warnings about images that differ in size or colour, which training converts."""
    keys = [key for part in parts for key in part.keys if key is not None]
    findings = []
    sizes = dict(sorted({(key.height, key.width): key.size for key in keys}.items()))
    if len(sizes) > 1:
        first, *_, last = sizes.values()
        message = (
            f"images have {len(sizes):,} sizes, {first} to {last}; training makes all square of "
            "one size"
        )
        findings.append(Finding("warning", "sizes", message))
    grey = sum(key.colour == "grey" for key in keys)
    if 0 < grey < len(keys):
        message = (
            f"{grey:,} of the {len(keys):,} images are greyscale; training converts all images to "
            "RGB"
        )
        findings.append(Finding("warning", "colours", message))
    return findings


def shortcuts(properties: Mapping[str, Sequence[str]], labels: Sequence[str]) -> list[Finding]:
    """Warnings about properties of the training files that predict the class. `properties` are
    values [n] by name, `labels` the classes [n]."""
    findings = []
    for name, values in properties.items():
        found = shortcut(values, labels)
        if found is None:
            continue
        message = (
            f"the {name} predicts the class: guessing by it is right for "
            f"{found.right / found.n:.0%} of the images of train, always naming the largest class "
            f"for {found.right_by_largest / found.n:.0%}; a model may learn this instead of the "
            "content. Save the files of all classes in the same way"
        )
        examples = [f"{value}: {k} of {n} are {label}" for value, n, label, k in found.values]
        findings.append(Finding("warning", "shortcut", message, tuple(examples[:EXAMPLES])))
    return findings


def _image_faults(split: str, images: npt.NDArray[Any]) -> list[Finding]:
    shape = images.shape
    square = len(shape) in (3, 4) and shape[1] == shape[2] > 0 and shape[3:] in ((), (3,))
    if images.dtype == np.uint8 and square:
        return []
    message = (
        f"{split}_images are {images.dtype} {shape} where uint8 [n, s, s] or [n, s, s, 3] is "
        "expected; save them square and windowed to 8 bits"
    )
    return [Finding("error", "images", message)]


def _label_faults(
    split: str, labels: npt.NDArray[Any], images: int | None, columns: int, classes: int
) -> list[Finding]:
    name = f"{split}_labels"
    top = classes - 1 if columns == 1 else 1
    examples: list[str] = []
    if labels.dtype.kind not in "biu":
        wrong = f"{name} are {labels.dtype} where whole numbers are expected"
    elif labels.ndim != 2 or labels.shape[1] != columns:
        wrong = f"{name} have the shape {labels.shape} where [n, {columns}] is expected"
    elif images is not None and len(labels) != images:
        wrong = f"there are {len(labels):,} {name} and {images:,} {split}_images"
    elif len(outside := np.argwhere((labels < 0) | (labels > top))):
        wrong = f"{len(outside):,} of the {name} are outside 0 to {top}"
        examples = [f"{split}/{row} ({labels[row, column]})" for row, column in outside[:EXAMPLES]]
    else:
        return []
    return [Finding("error", "labels", f"{wrong}; correct them", tuple(examples))]


def _empty(parts: Sequence[Part], classes: Sequence[str]) -> list[Finding]:
    findings = [
        Finding("error", "empty", f"{part.name} has no image; add some or remove it")
        for part in parts
        if part.labels is not None and not len(part.labels)
    ]
    if len(classes) == 1:
        message = f"{classes[0]} is the only class; training needs two"
        findings.append(Finding("error", "classes", message))
    return findings


def _untrained(counts: Mapping[str, Counts], classes: Sequence[str]) -> list[Finding]:
    if "train" not in counts:
        return []
    trained = [name for name, n in zip(classes, counts["train"], strict=True) if n]
    without = [
        f"{classes[i]} ({', '.join(f'{split} {n[i]:,}' for split, n in counts.items())}"
        f"{nearest(classes[i], trained)})"
        for i in np.flatnonzero(counts["train"] == 0).tolist()
    ]
    message = (
        f"{len(without):,} of {len(classes):,} classes have no image in train; add some or remove "
        "the class"
    )
    return listing("error", "untrained", message, without)


def _imbalance(counts: Mapping[str, Counts], classes: Sequence[str]) -> list[Finding]:
    if "train" not in counts or not counts["train"].any():
        return []
    trained = [(n, name) for n, name in zip(counts["train"], classes, strict=True) if n > 0]
    (least, smallest), (most, largest) = min(trained), max(trained)
    if most <= _IMBALANCED * least:
        return []
    message = (
        f"train has {most:,} images of {largest} and {least:,} of {smallest}, over {_IMBALANCED} "
        "times fewer; judge by balanced accuracy"
    )
    return [Finding("warning", "imbalance", message)]


def _few(counts: Mapping[str, Counts], classes: Sequence[str]) -> list[Finding]:
    findings = []
    for split, numbers in counts.items():
        known = (numbers > 0) | (split != "train")  # `_untrained` reports the others
        few = scarce(numbers[known], list(compress(classes, known)), _FEW)
        message = (
            f"{len(few):,} of {len(classes):,} classes have fewer than {_FEW} images in {split}"
        )
        findings += listing("warning", "few", message, few)
        if split != "train":
            trained = counts.get("train", numbers) > 0
            alone = scarce(numbers[trained], list(compress(classes, trained)), LEAST)
            message = f"{split} has one image or none of a class, which decides its recall"
            findings += listing("warning", "alone", message, alone)
    return findings


def _repetition(found: Duplicates, splits: int) -> Finding:
    """Identical images. If a split is drawn from train, copies in train may get into two splits."""
    shown = found.pairs[:EXAMPLES]
    if found.kind == "conflict":
        labelled = tuple(f"{p.path} ({p.label}) = {p.other_path} ({p.other_label})" for p in shown)
        return Finding("error", "conflict", f"{found.text}; keep the right one", labelled)
    examples = tuple(f"{pair.path} = {pair.other_path}" for pair in shown)
    if found.kind == "leak":
        message = f"{found.text}; remove them from one of the two"
        return Finding("error", "leakage", message, examples)
    if found.split == "train" and splits < len(SPLITS):
        message = (
            f"{found.text}, and copies may be drawn into other splits; delete the copies, and "
            "their rows in a table"
        )
        return Finding("error", "duplicates", message, examples)
    return Finding("warning", "duplicates", found.text, examples)
