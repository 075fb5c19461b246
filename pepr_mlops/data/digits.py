"""scikit-learn's bundled handwritten digits: 1,797 real 8×8 images, no download."""

from __future__ import annotations

from importlib import util
from pathlib import Path
from typing import Any

import numpy as np

from pepr_mlops.data.own.division import divide
from pepr_mlops.data.splits import Split, Splits, draw

CLASSES = tuple("0123456789")
# The split is the same for every run, so that seeds compare on one test set.
_SPLIT_SEED = 0


def load(folds: int | None = None, fold: int | None = None) -> Splits:
    """60% / 20% / 20% by class as in the PePR paper, or `folds` parts of which `fold` is test;
    16 grey levels spread over 0 to 255."""
    # What `load_digits` reads, without the second that importing scikit-learn takes: 64 grey
    # levels and the digit.
    rows = np.loadtxt(path(), delimiter=",")
    images = np.rint(rows[:, :64].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    everything = Split(images, rows[:, 64].astype(np.int64), np.arange(len(rows)))
    if folds is None:
        test, rest = draw(everything.labels, 0.2, _SPLIT_SEED)
        val, train = draw(everything.labels[rest], 0.25, _SPLIT_SEED)
        parts = {"train": rest[train], "val": rest[val], "test": test}
    else:
        none_given = np.full(len(rows), "")
        parts = divide(everything.labels, none_given, None, seed=0, folds=folds, fold=fold)
    splits: dict[str, Any] = {name: everything.take(part) for name, part in parts.items()}
    return Splits(
        name="digits",
        source="sklearn.datasets.load_digits",
        task="multi-class",
        classes=CLASSES,
        channels=1,
        **splits,
    )


def path() -> Path:
    """The file of `sklearn.datasets.load_digits`."""
    found = util.find_spec("sklearn")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
