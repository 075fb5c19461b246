"""The split of each patch. Pure."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from pepr_mlops.data.splits import SPLITS
from pepr_mlops.errors import WrongUse

Way = Literal["patient", "paper"]
_FIFTHS = 5


def check(way: Way, patients: int) -> None:
    """Raise `WrongUse` for too few patients."""
    if way == "patient" and patients < _FIFTHS:
        raise WrongUse(
            f"split: {patients} patients with a nodule are too few to split by patient; take "
            f"{_FIFTHS} or more, or --split paper"
        )


def assign(
    labels: npt.NDArray[np.int64], patients: Sequence[str], way: Way, seed: int
) -> npt.NDArray[np.str_]:
    """The split of each patch [n]: about 60% `train`, 20% `val`, 20% `test`.

    `patient` draws with `seed`: all patches of a patient are in one split, and each split has about
    the same share of each label. `paper` cuts the given order at 60% and 80%, as the PePR paper
    did, which puts slices of one nodule into two splits. Raises `WrongUse` for too few patients or
    patches.
    """
    if way == "paper":
        n = len(labels)
        return np.repeat(SPLITS, np.diff([0, int(0.6 * n), int(0.8 * n), n]))
    check(way, len(set(patients)))
    if np.bincount(labels).max() < _FIFTHS:
        raise WrongUse(f"split: {len(labels)} patches are too few to split; take more patients")
    from sklearn.model_selection import StratifiedGroupKFold

    folds = StratifiedGroupKFold(_FIFTHS, shuffle=True, random_state=seed)
    found = np.full(len(labels), "train")
    with warnings.catch_warnings(action="ignore"):  # about labels with few patches
        parts = [part for _, part in folds.split(labels, labels, list(patients))]
    found[parts[0]], found[parts[1]] = "test", "val"
    return found
