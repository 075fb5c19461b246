"""Images that a trained model is to predict: files of any form, or a split of a data set by name.

They become what the model was trained on: the same frames, window, colour and resize.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from pepr_mlops import data
from pepr_mlops.data.own import pixels
from pepr_mlops.data.own.columns import Options
from pepr_mlops.data.own.division import Rows
from pepr_mlops.data.own.identity import Names
from pepr_mlops.data.own.labels import places_of
from pepr_mlops.data.own.listing import Known, Listing, Texts
from pepr_mlops.data.own.pixels import Reading, Unusable
from pepr_mlops.data.own.scan import scan_usable
from pepr_mlops.data.own.unlabelled import listing as unlabelled
from pepr_mlops.data.resize import square
from pepr_mlops.data.splits import SPLITS, Labels, Pixels, Split
from pepr_mlops.data.stored import Stored
from pepr_mlops.errors import WrongUse
from pepr_mlops.names import PATIENT
from pepr_mlops.spec import RunSpec
from pepr_mlops.text import cell, few

Image = tuple[int, Pixels]  # the number of the frame or slice in its file, from 0, and its pixels


@dataclass(frozen=True)
class Form:
    """What a model takes: images that are `grey` or else RGB, read as in its training, with the
    grey values `bounds` black and white in those that need a window; its classes, and the name and
    the digest of the data set of its training."""

    reading: Reading
    bounds: tuple[float, float] | None
    grey: bool
    known: Known
    dataset: str
    data_digest: str

    def fitted(self, image: Pixels) -> Pixels:
        """An image [h, w] or [h, w, 3] as [size, size] or [size, size, 3]."""
        return square(image, self.reading.image_size, self.reading.fit, self.grey)


@dataclass(frozen=True)
class Inputs:
    """n files or images of a data set.

    `names` [n] are as a table shows them, each once. `images` gives the images of one of them by
    its number, and raises `Unusable` for a file without. `labels` have the form of `Known.unsure`,
    or are None; then `no_labels` says why. `patients` gives a text for each of some files by their
    number, which those of a patient share, empty where it is not known, or None. In one `source`, a
    folder or a data set, a name is always of the same image.
    """

    names: list[str]
    images: Callable[[int], list[Image]]
    labels: Labels | None
    no_labels: str | None
    patients: Callable[[Rows], Texts | None]
    source: str
    notes: tuple[str, ...] = ()


def find(spec: RunSpec, form: Form, split: str | None = None) -> Inputs:
    """The images of the data set, folder, table or file `spec.dataset`.

    `split` keeps the images of a split: by default the test images of a data set by name, and all
    of one's own. Raises `WrongUse` for data that cannot be read and for a split that is not there.
    """
    if spec.dataset in data.NAMES:
        return _of_name(spec, form, split or "test")
    options = Options(**{f.name: getattr(spec, f.name) for f in fields(Options)})
    listing, why = unlabelled(Path(spec.dataset), options, form.known)
    notes = listing.notes
    if split is not None:
        rows = np.flatnonzero(listing.splits == split)
        if not len(rows):
            raise WrongUse(
                f"split: {spec.dataset} has no folder of {split} with folders of classes; leave "
                "out --split, or name the folder of these images"
            )
        listing = listing.take(rows)
    elif (listing.splits == "train").any():
        notes += ("images of train are among them; --split test takes those of test alone",)
    if listing.name == form.dataset:
        notes += (f"the model was trained on a data set of the same name, {listing.name}",)
    return Inputs(
        _shown(listing),
        lambda i: _of_file(listing.root / listing.files[i], form),
        None if why is not None else listing.labels,
        why,
        lambda rows: _patients(listing.take(rows), form.reading),
        str(listing.root.resolve()),
        notes,
    )


def _shown(listing: Listing) -> list[str]:
    """The files as a table shows them. Raises `WrongUse` for two that it would show alike."""
    names = [cell(file) for file in listing.files.tolist()]
    if twice := [name for name, n in Counter(names).items() if n > 1]:
        remedy = "rename one of each"
        raise WrongUse(
            f"data: {len(twice):,} names are of two files that a table cannot tell apart "
            f"({few(twice, 3)}); {remedy}",
            logged=f"data: {len(twice):,} names are of two files that a table cannot tell apart; "
            f"{remedy}",
        )
    return names


def _of_file(path: Path, form: Form) -> list[Image]:
    head = pixels.head(path, form.reading)
    if head.bounded and form.bounds is None:
        raise Unusable(
            "needs a window, and the images that the model was trained on have 8 bits or windows "
            "of their own; export it as an 8-bit PNG with a window of your choice, or train on "
            "images like it"
        )
    own = pixels.images(path, head.frames, form.reading, form.bounds)
    fitted = (form.fitted(image) for image in own)
    return list(zip(head.frames, fitted, strict=True))


def _patients(listing: Listing, reading: Reading) -> Texts | None:
    """Names that say nothing of the patients of files: as the table has them, else the headers."""
    usable = scan_usable(listing, reading, Names.of_files(listing))
    if usable.found.patients is None:
        return None
    found = np.full(len(listing), "", usable.found.patients.dtype)
    found[np.array(usable.rows, np.int64)[usable.found.file]] = usable.found.patients
    return found


def _of_name(spec: RunSpec, form: Form, split: str) -> Inputs:
    if split not in SPLITS:
        raise WrongUse(f"split: {split!r} is not one of {', '.join(SPLITS)}")
    data.refuse_options(spec)
    splits = data.load(spec)
    own = splits.by_name()[split]
    origins = np.arange(len(own)) if own.origins is None else own.origins
    labels, why = None, None
    try:
        places = places_of(splits.classes, splits.task, form.known, spec.dataset)
    except WrongUse as error:
        why = str(error)
    else:
        labels = form.known.unsure(len(own))
        if form.known.several:
            labels[:, places] = own.labels
        else:
            labels[:] = places[own.labels]
    notes = splits.notes
    if data.identify(spec).data_digest != form.data_digest:
        notes += (f"the model was trained on other images than those of this {spec.dataset}",)
    return Inputs(
        [f"{spec.dataset} {origin}" for origin in origins.tolist()],
        lambda i: [(0, form.fitted(_image(own, i)))],
        labels,
        why,
        lambda rows: own.groups[PATIENT][rows] if PATIENT in own.groups else None,
        f"{splits.source} {split} {_settings(spec)}",
        notes,
    )


def _settings(spec: RunSpec) -> str:
    """What decides which images a data set by name has."""
    return f"size={spec.size} folds={spec.folds} fold={spec.fold}"


def _image(split: Split, i: int) -> Pixels:
    stored = split.images
    if not isinstance(stored, Stored):
        return np.asarray(stored[i])
    one = np.empty((1, *stored.shape[1:]), np.uint8)
    stored.read(np.array([i]), one)
    return one.reshape(one.shape[1:])
