"""Who is trained on and who is tested: splits in which no patient is twice. Pure.

Where patients are known, splits are drawn by patient with scikit-learn's `StratifiedGroupKFold`,
so that each has about the same share of every class. An image with several labels counts as one of
the rarest of its labels, since a class is what the method takes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from pepr_mlops.data.own.listing import Listing, Texts
from pepr_mlops.data.splits import SPLITS, Labels, draw
from pepr_mlops.errors import WrongUse

Rows = npt.NDArray[np.int64]

DRAWN_SHARE = 0.2  # of the images, for each split that is drawn: 60 / 20 / 20% as in the paper
_MOST_ALIKE = 3  # as many classes, each of one patient, are no coincidence
_FOLDS_SEED = 0  # the parts are the same for all models and seeds, so that these compare


def divide(
    labels: Labels,
    given: Texts,
    patients: Texts | None,
    *,
    seed: int,
    folds: int | None = None,
    fold: int | None = None,
) -> dict[str, Rows]:
    """The rows of train, val and test, each sorted.

    `labels` [n] or [n, labels]; `given` [n] are train, val or test, or empty; `patients` [n],
    empty where unknown, or None. A split that is not given is drawn with `seed` from the images
    of train and those without a split: 20% of them. With `folds` the images are cut into as many
    parts, of which `fold` (from 1) is test and the next one val.

    Raises `WrongUse` for folds of given splits and for too few patients.
    """
    if folds is not None:
        assert fold is not None
        return _folded(labels, given, patients, folds, fold)
    rows = {name: np.flatnonzero(given == name) for name in SPLITS}
    rows["train"] = np.flatnonzero((given == "train") | (given == ""))
    absent = [name for name in ("test", "val") if not len(rows[name])]
    if not absent:
        return rows
    pool = rows["train"]
    if patients is None:
        drawn, rest = draw(labels[pool], DRAWN_SHARE * len(absent), seed)
        parts = [drawn]
        if len(absent) == 2:
            first, second = draw(labels[pool][drawn], 0.5, seed)
            parts = [drawn[second], drawn[first]]
    else:
        cut = round(1 / DRAWN_SHARE)
        part_of = _parts(labels[pool], patients[pool], cut, seed)
        parts = [np.flatnonzero(part_of == i) for i in range(len(absent))]
        rest = np.flatnonzero(part_of >= len(absent))
    for name, part in zip(absent, parts, strict=True):
        rows[name] = pool[part]
    rows["train"] = pool[rest]
    return rows


def shared_patients(patients: Texts | None, rows: Mapping[str, Rows]) -> str | None:
    """How many patients are in more than one split, as a clause with counts, or None."""
    if patients is None:
        return None
    own = {name: np.unique(patients[found]) for name, found in rows.items()}
    named, counts = np.unique(np.concatenate(list(own.values())), return_counts=True)
    several = named[(counts > 1) & (named != "")]
    if not len(several):
        return None
    where = [name for name, found in own.items() if np.isin(several, found).any()]
    n = int((named != "").sum())
    be = "are" if len(several) > 1 else "is"
    return f"{len(several):,} of {n:,} patients {be} in more than one split ({', '.join(where)})"


def refuse_classes_of_patients(listing: Listing, patients: Texts | None, file: Rows) -> None:
    """Raise `WrongUse` if each class is of one patient and each patient of one class: then the
    folders are those of patients. `patients` and `file` [images] are those of a `Scan`."""
    classes = len(listing.classes)
    if patients is None or listing.labels.ndim > 1 or classes < _MOST_ALIKE:
        return
    pairs = set(zip(listing.labels[file].tolist(), patients.tolist(), strict=True))
    if len(pairs) == len({patient for _, patient in pairs if patient}) == classes:
        raise WrongUse(
            f"dataset: each of the {classes:,} classes is of one patient; folders of patients are "
            "no classes: move their images below folders of classes, or name a table with a row "
            "for each image (LABELS.csv)"
        )


def strata(labels: Labels) -> Labels:
    """The class [n] that an image counts as when splits are drawn; of several labels the rarest,
    and one more class for images without any."""
    if labels.ndim == 1:
        return labels
    positive = labels > 0
    counts = positive.sum(axis=0)
    rarity = np.where(positive, counts, len(labels) + 1)
    found: Labels = np.where(positive.any(axis=1), rarity.argmin(axis=1), labels.shape[1])
    return found


def _folded(
    labels: Labels, given: Texts, patients: Texts | None, folds: int, fold: int
) -> dict[str, Rows]:
    if set(np.unique(given)) - {"", "train"}:
        raise WrongUse(
            "folds: the data set has its own test or val images, which folds would mix with those "
            "of train; name the folder or table of its training images as the data set, and the "
            "test images as --external NAME=PATH"
        )
    part_of = _parts(labels, patients, folds, _FOLDS_SEED)
    test, val = part_of == fold - 1, part_of == fold % folds
    return {
        "train": np.flatnonzero(~(test | val)),
        "val": np.flatnonzero(val),
        "test": np.flatnonzero(test),
    }


def _parts(labels: Labels, patients: Texts | None, n: int, seed: int) -> Rows:
    """The number of the part [images] of each image, from 0 to below `n`."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    classes = strata(labels)
    if patients is None:
        groups, kind = np.arange(len(labels)), StratifiedKFold
    else:  # an image of an unknown patient is one of its own
        alone = [f"\0{i}" for i in range(len(patients))]
        groups = np.unique(np.where(patients == "", alone, patients), return_inverse=True)[1]
        kind = StratifiedGroupKFold
    why = f", of which each is {DRAWN_SHARE:.0%} of the images" if n == 1 / DRAWN_SHARE else ""
    if (number := len(np.unique(groups))) < n:
        what = "images" if patients is None else "patients"
        raise WrongUse(
            f"dataset: {number} {what} are too few to be cut into {n} parts{why}; add some, or "
            "give train, val and test"
        )
    if np.bincount(classes).max() < n:
        raise WrongUse(
            f"dataset: no class has {n} images, too few to be cut into {n} parts{why}; add some, "
            "or give train, val and test"
        )
    part_of = np.zeros(len(labels), np.int64)
    cut = kind(n_splits=n, shuffle=True, random_state=seed)
    with warnings.catch_warnings(action="ignore"):  # a rare class is reported by `data.doubts`
        for i, (_, rows) in enumerate(cut.split(np.zeros(len(labels)), classes, groups)):
            part_of[rows] = i
    return part_of
