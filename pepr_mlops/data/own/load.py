"""A data set of one's own, from its folder or table to the splits that a model is trained on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from pepr_mlops.data.own import folder, table
from pepr_mlops.data.own.bounds import bounds_of, bounds_text
from pepr_mlops.data.own.columns import Options
from pepr_mlops.data.own.division import (
    Rows,
    divide,
    refuse_classes_of_patients,
    shared_patients,
)
from pepr_mlops.data.own.identity import Names, identify
from pepr_mlops.data.own.listing import Known, Listing, Texts
from pepr_mlops.data.own.pixels import CONSTANT, Reading
from pepr_mlops.data.own.prepared import Bounds, Prepared, blank_text, prepare
from pepr_mlops.data.own.scan import Scan, image_names, patient_of_file, scan
from pepr_mlops.data.splits import Split, Splits
from pepr_mlops.errors import WrongUse
from pepr_mlops.names import PATIENT
from pepr_mlops.spec import RunSpec

_USUAL = RunSpec()


@dataclass(frozen=True)
class Opened:
    """A listing, what its files hold, and names for its patients and files."""

    listing: Listing
    found: Scan
    names: Names


def listing_of(spec: RunSpec, dataset: str | None = None, known: Known | None = None) -> Listing:
    """The listing of the folder or table `dataset`, by default that of the spec.

    An external set is read for the classes `known`, and the files of its table are below the
    table's own folder.
    """
    path = Path(spec.dataset if dataset is None else dataset)
    if path.is_dir():
        return folder.listing(path, known).by_path()
    options = Options(**{f.name: getattr(spec, f.name) for f in fields(Options)})
    if known is not None:
        options = replace(options, images=None)
    return table.listing(path, options, known).by_path()


def digest_of(spec: RunSpec) -> str:
    """The digest of a data set of one's own, as `identity.identify`."""
    return source_digest(listing_of(spec), spec)


def load(spec: RunSpec, note: Callable[[str], None]) -> tuple[Splits, str, Names]:
    """The splits of a folder or a table, with the images on disk as the model takes them, the
    digest of the data set and the names of its files and patients.

    `note` shows lines that may name files. Raises `WrongUse` for data that cannot be used.
    """
    opened = open_source(spec, spec.dataset, note)
    listing, found = opened.listing, opened.found
    rows = rows_of(spec, listing, found)
    shared = shared_patients(found.patients, rows)
    if shared is not None and not spec.allow_leak:
        raise WrongUse(
            f"dataset: {shared}, so scores would be too good; move all images of a patient to one "
            "split, remove the splits to have them drawn by patient, or train all the same with "
            "--allow-leak, which flags the run",
            reason="doubtful_data",
        )
    bounds = bounds_of(listing, found, rows["train"], reading_of(spec))
    grey = bool(found.grey.all()) or spec.channels == "grey"
    made = prepare(listing, found, reading_of(spec), bounds, grey=grey, note=note)
    _refuse_blank(made, spec.window)
    own: dict[str, Any] = {
        name: split_of(opened, made, rows[name], groups=name != "train") for name in rows
    }
    splits = Splits(
        name=listing.name,
        source=str(Path(spec.dataset).resolve()),
        task=listing.task,
        classes=listing.classes,
        channels=1 if grey else 3,
        notes=(
            *listing.notes,
            *_notes(
                found,
                made,
                bounds,
                source_of_patients(opened),
                how_drawn(listing, found, spec),
            ),
        ),
        shared_patients=shared,
        window=bounds,
        **own,
    )
    return splits, source_digest(listing, spec), opened.names


def _refuse_blank(made: Prepared, window: str) -> None:
    text = blank_text(made.oddities.get(CONSTANT, 0), len(made.keys), window)
    if text is not None:
        raise WrongUse(f"dataset: {text}", reason="doubtful_data")


def rows_of(spec: RunSpec, listing: Listing, found: Scan) -> dict[str, Rows]:
    """The images of each split, as `divide`."""
    labels, given = listing.labels[found.file], listing.splits[found.file]
    return divide(
        *(labels, given, found.patients), seed=spec.seed, folds=spec.folds, fold=spec.fold
    )


def reading_of(spec: RunSpec) -> Reading:
    return Reading(**{f.name: getattr(spec, f.name) for f in fields(Reading)})


def source_digest(listing: Listing, spec: RunSpec) -> str:
    used = ("frames", "window", "axis", "every", "fit")
    other = [f"{n}={getattr(spec, n)}" for n in used if getattr(spec, n) != getattr(_USUAL, n)]
    return identify(listing, " ".join(other))


def open_source(
    spec: RunSpec,
    path: str,
    note: Callable[[str], None],
    known: Known | None = None,
    names: Names | None = None,
) -> Opened:
    """A folder or a table and what its files hold; an external set is read for the classes `known`,
    and with the `names` of the training."""
    listing = listing_of(spec, path, known)
    if sys.stderr is not None and sys.stderr.isatty():  # a log is no place for names of files
        for line in listing.details:
            note(line)
    names = names or Names.of_files(listing)
    found = scan(listing, reading_of(spec), names)
    if known is None:
        refuse_classes_of_patients(listing, found.patients, found.file)
    return Opened(listing, found, names)


def split_of(opened: Opened, made: Prepared, rows: Rows, *, groups: bool) -> Split:
    listing, found = opened.listing, opened.found
    files, texts = found.file[rows], image_names(listing, found)[rows].tolist()
    named: dict[str, Texts] = {}
    if groups:
        named = {name: column[files] for name, column in listing.groups.items()}
    if found.patients is not None:
        own = found.patients[rows]  # an image of an unknown patient is one of its own
        alone = opened.names.of(f"image {text}" for text in texts)
        named[PATIENT] = np.where(own == "", alone, own)
    return Split(
        made.images.take(rows),
        listing.labels[files],
        opened.names.of(texts),
        named,
        keys=made.keys[rows],
    )


def how_drawn(listing: Listing, found: Scan, spec: RunSpec) -> str | None:
    """How the splits are drawn, None where all are given."""
    given = set(np.unique(listing.splits))
    by = "by patient and class"
    if found.patients is None:
        by = "by class, since no patient is known"
    if spec.folds is not None:
        return f"test is fold {spec.fold} of {spec.folds}, drawn {by}; val is the next fold"
    absent = [name for name in ("val", "test") if name not in given]
    if not absent:
        return None
    be = "are" if len(absent) > 1 else "is"
    return f"{' and '.join(absent)} {be} drawn from the images of train, {by}, with the seed"


def source_of_patients(opened: Opened) -> str | None:
    """Where the patients are from, if not from a table."""
    if opened.listing.patients is not None or opened.found.patients is None:
        return None
    files = opened.names.of(patient_of_file(file) for file in opened.listing.files.tolist())
    found = np.unique(opened.found.patients)
    named = np.setdiff1d(found[found != ""], files)
    texts = ["patients are those that the DICOM files name (PatientID)"] * bool(len(named))
    if n := int(np.isin(found, files).sum()):
        texts.append(f"{n:,} files of several images count as a patient each, since none is named")
    return "; ".join(texts)


def _notes(
    found: Scan, made: Prepared, bounds: Bounds | None, patients: str | None, drawn: str | None
) -> tuple[str, ...]:
    """Sentences about the images, which are logged."""
    lines = [] if drawn is None else [drawn]
    if patients is not None:
        lines.insert(0, patients)
    if found.further.any():
        lines.append(further_text(found))
    if bounds is not None:
        lines.append(f"window: {bounds_text(bounds)}")
    return (*lines, *made.notes())


def further_text(found: Scan) -> str:
    """The sentence on frames that are passed over."""
    several = int((found.further > 0).sum())
    have = "has" if several == 1 else "have"
    return (
        f"{several:,} of {len(found.further):,} files {have} further frames or slices, "
        f"{found.further.sum():,} in all, which are passed over"
    )
