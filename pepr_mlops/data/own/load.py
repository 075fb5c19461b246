"""A data set of one's own, from its folder or table to the splits that a model is trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from pepr_mlops.data.own import folder, table
from pepr_mlops.data.own.columns import Options
from pepr_mlops.data.own.division import Rows, divide, shared_patients
from pepr_mlops.data.own.identity import Names, identify
from pepr_mlops.data.own.listing import Listing, Texts
from pepr_mlops.data.own.pixels import Reading, Unusable, values
from pepr_mlops.data.own.prepared import Bounds, Prepared, prepare
from pepr_mlops.data.own.scan import Scan, of_files, scan, unusable
from pepr_mlops.data.own.window import Percentiles
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


def listing_of(spec: RunSpec, dataset: str | None = None) -> Listing:
    """The listing of the folder or table `dataset`, by default that of the spec."""
    path = Path(spec.dataset if dataset is None else dataset)
    if path.is_dir():
        return folder.listing(path).by_path()
    options = Options(**{f.name: getattr(spec, f.name) for f in fields(Options)})
    return table.listing(path, options).by_path()


def digest_of(spec: RunSpec) -> str:
    """The digest of a data set of one's own, as `identity.identify`."""
    return source_digest(listing_of(spec), spec)


def load(spec: RunSpec, note: Callable[[str], None]) -> tuple[Splits, str]:
    """The splits of a folder or a table, with the images on disk as the model takes them, and the
    digest of the data set.

    `note` shows lines that may name files. Raises `WrongUse` for data that cannot be used.
    """
    opened = open_source(spec, spec.dataset, note)
    listing, found = opened.listing, opened.found
    labels, given = listing.labels[found.file], listing.splits[found.file]
    rows = divide(
        *(labels, given, found.patients), seed=spec.seed, folds=spec.folds, fold=spec.fold
    )
    shared = shared_patients(found.patients, rows)
    if shared is not None and not spec.allow_leak:
        raise WrongUse(
            f"dataset: {shared}: the model would be tested on patients it was trained on; move all "
            "images of a patient to one split, remove the splits to have them drawn by patient, or "
            "train all the same with --allow-leak, which flags the run",
            reason="doubtful_data",
        )
    bounds = _bounds(opened, rows["train"], _reading(spec))
    grey = bool(found.grey.all()) or spec.channels == "grey"
    made = prepared(spec, opened, bounds, grey, note)
    own: dict[str, Any] = {
        name: split_of(opened, made, rows[name], groups=name != "train") for name in rows
    }
    splits = Splits(
        name=listing.name,
        source=str(Path(spec.dataset).resolve()),
        task=listing.task,
        classes=listing.classes,
        channels=1 if grey else 3,
        notes=(*listing.notes, *_notes(found, made, bounds, _drawn(opened, spec))),
        shared_patients=shared,
        window=bounds,
        **own,
    )
    return splits, source_digest(listing, spec)


def _reading(spec: RunSpec) -> Reading:
    return Reading(**{f.name: getattr(spec, f.name) for f in fields(Reading)})


def source_digest(listing: Listing, spec: RunSpec) -> str:
    used = ("frames", "window", "axis", "every", "fit")
    other = [f"{n}={getattr(spec, n)}" for n in used if getattr(spec, n) != getattr(_USUAL, n)]
    return identify(listing, " ".join(other))


def open_source(spec: RunSpec, path: str, note: Callable[[str], None]) -> Opened:
    listing = listing_of(spec, path)
    for line in listing.details:
        note(line)
    names = Names(listing)
    return Opened(listing, scan(listing, _reading(spec), names), names)


def _bounds(opened: Opened, train: Rows, reading: Reading) -> Bounds | None:
    """The grey values shown as black and white: percentiles of the training images that need them,
    None where no image of the set does."""
    listing, found = opened.listing, opened.found
    if not found.bounded.any():
        return None
    percentiles = Percentiles()
    rows = np.flatnonzero(found.bounded & np.isin(np.arange(len(listing)), found.file[train]))
    if not len(rows):
        raise WrongUse(
            "window: images of val or test need the percentiles of training images, and no "
            "training image has over 8 bits; give --window CENTER,WIDTH"
        )

    def work(row: int) -> None:
        frames = found.frame[train[found.file[train] == row]].tolist()
        for one in values(listing.root / listing.files[row], frames, reading):
            percentiles.add(one)

    results = of_files(listing, work, "window of training images", rows.tolist(), threads=1)
    faults = [
        (int(row), error)
        for row, error in zip(rows, results, strict=True)
        if isinstance(error, Unusable)
    ]
    if faults:
        raise unusable(listing, faults)
    try:
        return percentiles.bounds()
    except ValueError as error:
        raise WrongUse(
            "window: the training images have no value to take percentiles of, only padding; give "
            "--window CENTER,WIDTH"
        ) from error


def prepared(
    spec: RunSpec,
    opened: Opened,
    bounds: Bounds | None,
    grey: bool,
    note: Callable[[str], None],
) -> Prepared:
    return prepare(
        *(opened.listing, opened.found, _reading(spec), bounds),
        grey=grey,
        digest=source_digest(opened.listing, spec),
        note=note,
    )


def split_of(opened: Opened, made: Prepared, rows: Rows, *, groups: bool) -> Split:
    listing, found = opened.listing, opened.found
    files = found.file[rows]
    one_each = len(found.file) == len(listing)
    texts = listing.files[files].tolist()
    if not one_each:
        texts = [f"{t}#{n}" for t, n in zip(texts, found.frame[rows].tolist(), strict=True)]
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


def _drawn(opened: Opened, spec: RunSpec) -> str | None:
    """How the splits were drawn, None where all are given."""
    given = set(np.unique(opened.listing.splits))
    by = "by class" if opened.found.patients is None else "by patient and class"
    if spec.folds is not None:
        return f"test is fold {spec.fold} of {spec.folds}, drawn {by}; val is the next fold"
    absent = [name for name in ("val", "test") if name not in given]
    if not absent:
        return None
    be = "are" if len(absent) > 1 else "is"
    return f"{' and '.join(absent)} {be} drawn from the images of train, {by}, with the seed"


def _notes(
    found: Scan, made: Prepared, bounds: Bounds | None, drawn: str | None
) -> tuple[str, ...]:
    """Sentences about the images, which are logged."""
    n = len(found.file)
    lines = [] if drawn is None else [drawn]
    if further := int(found.further.sum()):
        several = int((found.further > 0).sum())
        have = "has" if several == 1 else "have"
        lines.append(
            f"{several:,} of {len(found.further):,} files {have} further frames or slices, "
            f"{further:,} in all, which are passed over"
        )
    if bounds is not None:
        low, high = bounds
        lines.append(f"window: {low:g} to {high:g}, 0.5 to 99.5 % of the training images' values")
    lines += [
        f"{count:,} of {n:,} images may be wrong: each {what}"
        for what, count in made.oddities.items()
    ]
    return tuple(lines)
