"""Describes a folder or a table of images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from threading import Lock

import numpy as np
import pandas as pd
from PIL import Image

from pepr_mlops.data.description import (
    SAMPLE,
    Description,
    Measured,
    Sample,
    Sheet,
    patients_of,
    per_class_shown,
    spread,
)
from pepr_mlops.data.own import pixels
from pepr_mlops.data.own.bounds import bounds_text, usable_bounds
from pepr_mlops.data.own.division import Rows, shared_patients
from pepr_mlops.data.own.identity import Names
from pepr_mlops.data.own.kinds import kind_of
from pepr_mlops.data.own.listing import Listing
from pepr_mlops.data.own.load import (
    further_text,
    how_drawn,
    listing_of,
    reading_of,
    rows_of,
    source_digest,
)
from pepr_mlops.data.own.pixels import Unusable
from pepr_mlops.data.own.prepared import Bounds
from pepr_mlops.data.own.scan import (
    Faults,
    Scan,
    image_names,
    of_images,
    scan_usable,
    unusable,
)
from pepr_mlops.data.splits import Pixels, per_class
from pepr_mlops.spec import AUTO, RunSpec

_FORMATS = {"dicom": "DICOM", "nifti": "NIfTI", "array": "NumPy"}


@dataclass(frozen=True)
class Own:
    """The files of a data set that can be used, how they are divided, and the other files."""

    spec: RunSpec
    listing: Listing
    found: Scan
    rows: dict[str, Rows]
    bounds: Bounds | None  # the window of the training images, where they need one
    faults: Faults
    every: Listing

    @property
    def grey(self) -> bool:
        return bool(self.found.grey.all()) or self.spec.channels == "grey"

    def describe(self) -> Description:
        """The description of the images that can be used."""
        listing, found, spec = self.listing, self.found, self.spec
        labels = listing.labels[found.file]
        side, n = spec.image_size, len(found.file)
        sample, damaged = _sample(self)
        return Description(
            name=listing.name,
            task=listing.task,
            classes=listing.classes,
            counts={
                name: per_class(labels[r], len(listing.classes)) for name, r in self.rows.items()
            },
            images={name: len(rows) for name, rows in self.rows.items()},
            splits=how_drawn(listing, found, spec) or "all are given",
            grey=int(found.grey[found.file].sum()),
            sample=sample,
            formats=_counts([_format(listing, file) for file in listing.files.tolist()]),
            window=_window(self),
            patients=patients_of(found.patients),
            groups={
                name: _counts(own[found.file].tolist()) for name, own in listing.groups.items()
            },
            digest=None if self.faults else source_digest(listing, spec),
            stored_bytes=n * side * side * (1 if self.grey else 3),
            notes=_notes(self, len(damaged)),
        )

    def contact_sheet(self) -> Sheet:
        listing, found, spec = self.listing, self.found, self.spec
        shown = per_class_shown(listing.labels[found.file], listing.classes)
        images = np.unique(np.concatenate(list(shown.values())))

        def work(row: int, frames: list[int]) -> list[Pixels]:
            return [
                pixels.square(image, spec.image_size, spec.fit, self.grey)
                for image in _images(self, row, frames)
            ]

        made, _ = of_images(listing, found, images, work, "contact sheet")
        of_image = dict(zip(images.tolist(), made, strict=True))
        return {
            name: [image for row in rows.tolist() if (image := of_image[row]) is not None]
            for name, rows in shown.items()
        }

    def files(self) -> pd.DataFrame:
        if self.faults:  # runs would have other names
            raise unusable(self.every, self.faults)
        listing, found = self.listing, self.found
        splits = np.full(len(found.file), "", dtype="<U5")
        for name, rows in self.rows.items():
            splits[rows] = name
        labels = listing.labels[found.file]
        own = labels > 0 if labels.ndim == 2 else labels[:, None] == np.arange(len(listing.classes))
        classes = np.array(listing.classes, dtype=object)
        return pd.DataFrame(
            {
                "image": Names.of_files(listing).of(image_names(listing, found).tolist()),
                "file": listing.files[found.file],
                "frame": found.frame,
                "split": splits,
                "label": ["+".join(classes[row]) for row in own],
            }
        )


def open_own(spec: RunSpec) -> Own:
    """Read the table and the headers of all files. Raises `WrongUse` where no file can be used, and
    for a table or folder that cannot be used."""
    every, reading = listing_of(spec), reading_of(spec)
    usable = scan_usable(every, reading, Names.of_files(every))
    if not usable.rows:
        raise unusable(every, usable.faults)
    rows = rows_of(spec, usable.listing, usable.found)
    bounds, _ = usable_bounds(usable.listing, usable.found, rows["train"], reading)
    return Own(spec, usable.listing, usable.found, rows, bounds, usable.faults, every)


def _images(source: Own, row: int, frames: list[int]) -> list[Pixels]:
    if source.bounds is None and source.found.bounded[row]:
        raise Unusable("needs a window that no training image gives")
    path = source.listing.root / source.listing.files[row]
    return list(pixels.images(path, frames, reading_of(source.spec), source.bounds))


def _sample(source: Own) -> tuple[Sample, Faults]:
    """What is measured of some of the images, and the files of these that cannot be decoded."""
    measured, lock = Measured(), Lock()
    listing, reading = source.listing, reading_of(source.spec)

    def work(row: int, frames: list[int]) -> list[None]:
        shapes = [image.shape for image in _images(source, row, frames)]
        own = pixels.values(listing.root / listing.files[row], frames, reading)
        for shape, values in zip(shapes, own, strict=True):
            with lock:
                measured.add(shape, values)
        return [None] * len(frames)

    images = spread(np.arange(len(source.found.file)), SAMPLE)
    _, faults = of_images(listing, source.found, images, work, "sample of images")
    return measured.sample(), faults


def _format(listing: Listing, file: str) -> str:
    """What kind of file it is, by its name or mark."""
    path = listing.root / file
    kind = kind_of(path)
    if kind in _FORMATS:
        return _FORMATS[kind]
    return Image.registered_extensions()[path.suffix.lower()]


def _counts(values: list[str]) -> dict[str, int]:
    """How often each value occurs, the most frequent first."""
    return dict(Counter(values).most_common())


def _window(source: Own) -> str:
    given, bounds, bounded = source.spec.window, source.bounds, source.found.bounded
    if bounds is not None:
        others = len(bounded) - int(bounded.sum())
        rest = f"; {others:,} files have their own, or 8 bits" if others else ""
        return f"{bounds_text(bounds)}{rest}"
    if given == AUTO:
        return "that of each file, or 8 bits as they are"
    return "that of each file" if given == "dicom" else f"{given} (centre and width)"


def _notes(source: Own, damaged: int) -> tuple[str, ...]:
    """Sentences on what is odd; `damaged` counts files of the sample."""
    found, every = source.found, source.every
    shared = shared_patients(found.patients, source.rows)
    lines = list(every.notes)
    if shared is not None:
        lines.append(f"{shared}, which training refuses")
    if found.further.any():
        lines.append(further_text(found))
    if source.faults:
        lines.append(
            f"{len(source.faults):,} of {len(every):,} files cannot be used and are left out here; "
            "`pepr data check` lists them"
        )
    if damaged:
        lines.append(
            f"{damaged:,} files of the sample cannot be decoded; `pepr data check` lists them"
        )
    return tuple(lines)
