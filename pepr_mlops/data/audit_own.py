"""Reads a folder or a table of images with all its faults, for `audit`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pepr_mlops.data.audit import (
    Audit,
    Finding,
    audit,
    listing,
    mixture,
    shared_patients,
    shortcuts,
)
from pepr_mlops.data.duplicates import ImageKey, Part, image_key
from pepr_mlops.data.own import division, folder, pixels
from pepr_mlops.data.own.bounds import bounds_text, usable_bounds
from pepr_mlops.data.own.identity import Names
from pepr_mlops.data.own.listing import Listing
from pepr_mlops.data.own.load import (
    further_text,
    how_drawn,
    listing_of,
    reading_of,
    rows_of,
)
from pepr_mlops.data.own.prepared import Bounds, blank_text, odd_text
from pepr_mlops.data.own.scan import Faults, Usable, image_names, of_images, scan_usable
from pepr_mlops.data.splits import EXAMPLES, SPLITS
from pepr_mlops.errors import WrongUse
from pepr_mlops.spec import RunSpec

# What is given up in turn, until a table with faults can be read.
_RELAXED: tuple[dict[str, Any], ...] = (
    {},
    {"missing": "skip"},
    {"missing": "skip", "uncertain": "ignore"},
)


class _Image(NamedTuple):
    """An image by the row of its file; without `key` where it cannot be used. `mode` and `format`
    are how the file has it."""

    file: int
    name: str
    key: ImageKey | None = None
    oddity: str | None = None
    mode: str = ""
    format: str = ""


def audit_own(spec: RunSpec) -> Audit:
    """The audit of the folder or table `spec.dataset`, read as its options say.

    The images of training are those with the split train and without any. Faults are findings.
    """
    refused: list[WrongUse] = []
    every = _listing(spec, refused.append)
    if every is not None and not len(every) and not refused:
        raise WrongUse(
            f"dataset: {spec.dataset} holds neither images nor .npz files; expected "
            "DIR/train/CLASS/*, DIR/CLASS/* or DIR/*.npz"
        )
    if every is None or not len(every):
        return audit(spec.dataset, (), (), _refused(refused))
    usable = scan_usable(every, reading_of(spec), Names.of_files(every))
    faults, findings = list(usable.faults), _notes(every)
    examined = [_Image(row, every.files[row]) for row, _ in faults]
    if usable.rows:
        window = _bounds(spec, usable, refused.append)
        images, damaged = _examined(spec, usable, window)
        examined += images
        faults += damaged
        findings += [
            *_read_as(spec, usable, window),
            *_patients(usable),
            *_odd(images, spec.window),
        ]
    examined.sort(key=lambda image: image.file)
    parts = _parts(every, examined)
    findings += [*_unusable(every, faults), *mixture(parts), *_shortcuts(every, examined)]
    return audit(spec.dataset, parts, every.classes, [*_refused(refused), *findings])


def _listing(spec: RunSpec, refuse: Callable[[WrongUse], None]) -> Listing | None:
    """The listing without what is wrong, which `refuse` takes; None where it cannot be read."""
    path = Path(spec.dataset)
    if path.is_dir():
        try:
            return folder.outline(path, refuse).by_path()
        except WrongUse as error:
            refuse(error)
            return None
    texts = set()
    for relaxed in _RELAXED:
        try:
            return listing_of(replace(spec, **relaxed))
        except WrongUse as error:
            if str(error) not in texts:
                refuse(error)
            texts.add(str(error))
    return None


def _refused(faults: Sequence[WrongUse]) -> list[Finding]:
    return [Finding("error", "refused", str(fault).removeprefix("dataset: ")) for fault in faults]


def _notes(every: Listing) -> list[Finding]:
    """What was guessed, passed over and left out."""
    left_out = [
        Finding("note", "left_out", f"{what}: {len(names):,}", tuple(names))
        for what, names in every.left_out.items()
    ]
    details = [d for d in every.details if not any(d.startswith(f.message) for f in left_out)]
    # A detail says more than the note that it begins with.
    notes = [note for note in every.notes if not any(d.startswith(note) for d in details)]
    return [*(Finding("note", "reading", text) for text in (*notes, *details)), *left_out]


def _bounds(spec: RunSpec, usable: Usable, refuse: Callable[[WrongUse], None]) -> Bounds | None:
    """The window of the images that training would use, and the faults of drawing these."""
    found, given = usable.found, usable.listing.splits[usable.found.file]
    train = np.flatnonzero((given == "train") | (given == ""))
    try:
        train = rows_of(spec, usable.listing, found)["train"]
    except WrongUse as error:
        refuse(error)
    try:
        return usable_bounds(usable.listing, found, train, reading_of(spec))[0]
    except WrongUse as error:
        refuse(error)
        return None


def _examined(spec: RunSpec, usable: Usable, window: Bounds | None) -> tuple[list[_Image], Faults]:
    """All images of usable files, decoded one by one as training takes them, but at their own
    size; second, the files that cannot be decoded."""
    some, found, reading = usable.listing, usable.found, reading_of(spec)
    names = image_names(some, found)

    def work(row: int, frames: list[int]) -> list[_Image]:
        path = some.root / some.files[row]
        if window is None and found.bounded[row]:  # it may be damaged all the same
            return [_Image(row, "") for _ in pixels.values(path, frames, reading)]
        mode, form = pixels.saved_as(path)
        return [
            _Image(row, "", key := image_key(image), pixels.oddity(image), mode or key.colour, form)
            for image in pixels.images(path, frames, reading, window)
        ]

    images, faults = of_images(some, found, np.arange(len(names)), work, "checking images")
    rows = [usable.rows[row] for row in found.file.tolist()]
    return [
        _Image(row, name) if image is None else image._replace(file=row, name=name)
        for row, name, image in zip(rows, names.tolist(), images, strict=True)
    ], [(usable.rows[row], why) for row, why in faults]


def _parts(every: Listing, images: Sequence[_Image]) -> list[Part]:
    of_split: dict[str, list[_Image]] = defaultdict(list)
    for image in images:
        of_split[str(every.splits[image.file]) or "train"].append(image)
    return [
        Part(
            split,
            [image.name for image in own],
            [image.key for image in own],
            every.labels[[image.file for image in own]],
            len(own),
        )
        for split in SPLITS
        if (own := of_split[split])
    ]


def _read_as(spec: RunSpec, usable: Usable, window: Bounds | None) -> list[Finding]:
    """How splits, frames and grey values are chosen."""
    found = usable.found
    findings = []
    if (drawn := how_drawn(usable.listing, found, spec)) is not None:
        findings.append(Finding("warning", "drawn", drawn))
    if found.further.any():
        files = usable.listing.files[found.further > 0][:EXAMPLES].tolist()
        findings.append(Finding("warning", "frames", further_text(found), tuple(files)))
    if window is not None:
        n, files = int(found.bounded.sum()), len(found.bounded)
        message = f"{n:,} of {files:,} files have grey values of no window of their own; shown are "
        findings.append(Finding("note", "window", message + bounds_text(window)))
    return findings


def _patients(usable: Usable) -> list[Finding]:
    """Patients in two given splits and images without one, by their numbers alone."""
    patients = usable.found.patients
    if patients is None:
        return []
    try:
        division.refuse_classes_of_patients(usable.listing, patients, usable.found.file)
    except WrongUse as error:
        return _refused([error])
    splits = usable.listing.splits[usable.found.file]
    given = np.where(splits == "", "train", splits)
    rows = {split: np.flatnonzero(given == split) for split in SPLITS}
    shared = division.shared_patients(patients, rows)
    findings = [] if shared is None else [shared_patients(shared)]
    if unknown := int((patients == "").sum()):
        message = (
            f"{unknown:,} of {len(patients):,} images have no patient; each counts as a patient of "
            "its own"
        )
        findings.append(Finding("warning", "patient", message))
    return findings


def _odd(images: Sequence[_Image], window: str) -> list[Finding]:
    by_oddity: dict[str, list[str]] = defaultdict(list)
    for image in images:
        if image.oddity is not None:
            by_oddity[image.oddity].append(image.name)
    blank = blank_text(len(by_oddity[pixels.CONSTANT]), len(images), window)
    findings = [] if blank is None else [Finding("error", "blank", blank)]
    return findings + [
        Finding(
            "warning",
            "odd",
            odd_text(len(names), len(images), oddity),
            tuple(names[:EXAMPLES]),
        )
        for oddity, names in by_oddity.items()
        if names
    ]


def _unusable(every: Listing, faults: Faults) -> list[Finding]:
    examples = [f"{every.files[row]} {why}" for row, why in sorted(faults, key=lambda f: f[0])]
    text = f"{len(faults):,} of {len(every):,} files cannot be used; repair or remove them"
    return listing("error", "unreadable", text, examples)


def _shortcuts(every: Listing, images: Sequence[_Image]) -> list[Finding]:
    """Properties of the training files that predict the class."""
    if every.labels.ndim > 1:
        return []
    usable = [
        (image, image.key)
        for image in images
        if image.key is not None and every.splits[image.file] in ("train", "")
    ]
    properties = {
        "size in pixels": [key.size for _, key in usable],
        "colour mode": [image.mode for image, _ in usable],
        "file format": [image.format for image, _ in usable],
    }
    return shortcuts(properties, [every.classes[every.labels[image.file]] for image, _ in usable])
