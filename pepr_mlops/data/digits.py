"""scikit-learn's bundled handwritten digits: 1,797 real 8×8 images, no download."""

from __future__ import annotations

from importlib import util
from pathlib import Path

import numpy as np

from pepr_mlops.data.splits import Split, Splits, draw

# The split is the same for every run, so that seeds compare on one test set.
_SPLIT_SEED = 0


def load() -> Splits:
    """60 % / 20 % / 20 % by class as in the PePR paper; 16 grey levels spread over 0 to 255."""
    # What `load_digits` reads, without the second that importing scikit-learn takes: 64 grey
    # levels and the digit.
    rows = np.loadtxt(path(), delimiter=",")
    images = np.rint(rows[:, :64].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    everything = Split(images, rows[:, 64].astype(np.int64), np.arange(len(rows)))
    test, rest = draw(everything.labels, 0.2, _SPLIT_SEED)
    val, train = draw(everything.labels[rest], 0.25, _SPLIT_SEED)
    return Splits(
        name="digits",
        source="sklearn.datasets.load_digits",
        task="multi-class",
        classes=tuple("0123456789"),
        channels=1,
        train=everything.take(rest[train]),
        val=everything.take(rest[val]),
        test=everything.take(test),
    )


def path() -> Path:
    """The file of `sklearn.datasets.load_digits`."""
    found = util.find_spec("sklearn")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
