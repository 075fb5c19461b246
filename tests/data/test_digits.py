"""The digits of scikit-learn."""

from __future__ import annotations

import numpy as np

from pepr_mlops import data
from pepr_mlops.spec import RunSpec


def _load(**fields: object) -> data.Splits:
    return data.load(RunSpec(**fields))  # type: ignore[arg-type]


def test_digits_are_all_there_once_in_60_20_20() -> None:
    from sklearn.datasets import load_digits

    splits = _load(dataset="digits")
    parts = (splits.train, splits.val, splits.test)
    assert [len(p) for p in parts] == [1079, 359, 359]
    assert len(splits.classes) == 10
    assert splits.channels == 1
    bunch = load_digits()
    pixels = np.rint(bunch.images * 255 / 16).astype(np.uint8)
    ours = [(int(y), x.tobytes()) for p in parts for x, y in zip(p.images, p.labels, strict=True)]
    theirs = [(int(y), x.tobytes()) for x, y in zip(pixels, bunch.target, strict=True)]
    assert sorted(ours) == sorted(theirs)
    assert splits.classes == tuple(str(name) for name in bunch.target_names)
    assert max(p.images.max() for p in parts) == 255


def test_the_split_does_not_move_with_the_seed() -> None:
    assert _load(dataset="digits").test.digest() == _load(dataset="digits", seed=9).test.digest()


def test_origins_are_rows_of_the_published_set() -> None:
    from sklearn.datasets import load_digits

    test = data.load(RunSpec(dataset="digits", image_size=32)).test
    published = load_digits()
    assert test.origins is not None
    rows = test.origins.astype(int)
    assert np.array_equal(test.labels, published.target[rows])
    assert np.array_equal(test.images, np.rint(published.images[rows] * (255 / 16)))
