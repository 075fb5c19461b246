"""External sets: evaluated once at the end of a training, and never used to choose."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pepr_mlops.data.own.kinds import is_own
from pepr_mlops.data.own.load import listing_of, open_source, prepared, source_digest, split_of
from pepr_mlops.data.splits import Split, Splits
from pepr_mlops.errors import WrongUse, nearest
from pepr_mlops.spec import RunSpec

_NAME = re.compile(r"[\w.-]+")


def digest_of(spec: RunSpec) -> str:
    """A digest of the names and the content of the external sets."""
    parts = [
        f"{name}={source_digest(listing_of(spec, path), spec)}"
        for name, path in paths(spec.external).items()
    ]
    return ",".join(parts)


def paths(text: str | None) -> dict[str, str]:
    """Paths of the external sets by name, of `NAME=PATH,NAME=PATH`. Raises `WrongUse`."""
    found: dict[str, str] = {}
    for part in (text or "").split(",") if text else ():
        name, separator, path = part.partition("=")
        if not separator or not _NAME.fullmatch(name) or not path:
            raise WrongUse(
                f"external: {part!r} is not NAME=PATH, such as clinic_b=/data/clinic_b; a name has "
                "letters, digits and . _ - only, and a path no comma"
            )
        if name in found:
            raise WrongUse(f"external: two sets are called {name}; rename one")
        if not is_own(path):
            raise WrongUse(f"external: {path} is neither a folder nor a table; correct the path")
        found[name] = path
    return found


def load(spec: RunSpec, splits: Splits, note: Callable[[str], None]) -> dict[str, Split]:
    """All images of each external set, with the classes, colour and window of the training data."""
    grey = splits.train.images.ndim == 3
    return {
        name: _external(spec, path, splits, grey, note)
        for name, path in paths(spec.external).items()
    }


def _external(
    spec: RunSpec, path: str, trained: Splits, grey: bool, note: Callable[[str], None]
) -> Split:
    opened = open_source(spec, path, note)
    listing = opened.listing
    several = trained.train.labels.ndim == 2
    unknown = [name for name in listing.classes if name not in trained.classes]
    if unknown or (listing.labels.ndim == 2) != several:
        what = f"class {unknown[0]!r}{nearest(unknown[0], trained.classes)}" if unknown else "task"
        raise WrongUse(
            f"external: {path} has another {what} than the data set, whose classes are "
            f"{', '.join(trained.classes)}; name them alike"
        )
    if several and len(listing.classes) < len(trained.classes):
        raise WrongUse(
            f"external: {path} has {len(listing.classes)} of the {len(trained.classes)} labels of "
            f"the data set; add {', '.join(set(trained.classes) - set(listing.classes))}"
        )
    if opened.found.bounded.any() and trained.window is None:
        raise WrongUse(
            f"external: images of {path} need a window and those of the data set none; give "
            "--window CENTER,WIDTH"
        )
    made = prepared(spec, opened, trained.window, grey, note)
    split = split_of(opened, made, np.arange(len(opened.found.file)), groups=True)
    places = np.array([trained.classes.index(name) for name in listing.classes])
    if not several:
        return replace(split, labels=places[split.labels])
    labels = np.empty_like(split.labels)
    labels[:, places] = split.labels
    return replace(split, labels=labels)
