"""External sets: evaluated once at the end of a training, and never used to choose."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pepr_mlops.data.own.identity import Names
from pepr_mlops.data.own.kinds import is_own
from pepr_mlops.data.own.listing import Known
from pepr_mlops.data.own.load import (
    listing_of,
    open_source,
    reading_of,
    source_digest,
    split_of,
)
from pepr_mlops.data.own.prepared import prepare
from pepr_mlops.data.splits import Splits
from pepr_mlops.errors import WrongUse
from pepr_mlops.spec import RunSpec

_NAME = re.compile(r"[\w.-]+")


def digest_of(spec: RunSpec, known: Known) -> str:
    """A digest of the names and the content of the external sets of a training."""
    parts = [
        f"{name}={source_digest(listing_of(spec, path, known), spec)}"
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


def load(spec: RunSpec, splits: Splits, names: Names | None, note: Callable[[str], None]) -> Splits:
    """The splits of a training with its external sets: all of their images, with the classes,
    colour and window of the training.

    Patients have the `names` of the training's own, if given, so that they can be compared. `note`
    shows lines that may name files; `Splits.notes` has the others.
    """
    found, notes = {}, []
    for name, path in paths(spec.external).items():
        opened = open_source(spec, path, note, Known(splits.classes, splits.task), names)
        if opened.found.bounded.any() and splits.window is None:
            raise WrongUse(
                f"external: images of {path} need a window, and those of the data set have 8 bits "
                "or windows of their own; save them as those of the data set were saved, or give a "
                "--window CENTER,WIDTH that suits both"
            )
        made = prepare(
            *(opened.listing, opened.found, reading_of(spec), splits.window),
            grey=splits.train.images.ndim == 3,
            note=note,
        )
        found[name] = split_of(opened, made, np.arange(len(opened.found.file)), groups=True)
        own = [*opened.listing.notes, *made.notes()]
        notes += [f"external {name}: {text}" for text in own]
    return replace(splits, external=found, notes=(*splits.notes, *notes))
