"""scikit-learn's bundled handwritten digits: 1,797 real 8×8 images, no download."""

from __future__ import annotations

import numpy as np

from pepr_mlops.data.splits import Split, Splits, draw

# The split is the same for every run, so that seeds compare on one test set.
_SPLIT_SEED = 0


def load() -> Splits:
    """60 % / 20 % / 20 % by class as in the PePR paper; 16 grey levels spread over 0 to 255."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    everything = Split(images, bunch.target.astype(np.int64))
    test, rest = draw(everything.labels, 0.2, _SPLIT_SEED)
    val, train = draw(everything.labels[rest], 0.25, _SPLIT_SEED)
    return Splits(
        name="digits",
        source="sklearn.datasets.load_digits",
        task="multi-class",
        classes=tuple(str(name) for name in bunch.target_names),
        channels=1,
        train=everything.take(rest[train]),
        val=everything.take(rest[val]),
        test=everything.take(test),
    )
