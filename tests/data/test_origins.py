"""Where each image of a split is from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pepr_mlops import data
from pepr_mlops.data.splits import Split
from pepr_mlops.spec import RunSpec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten images of each of two classes in `train` alone, each of a grey of its own."""
    for i in range(20):
        path = tmp_path / "set" / "train" / "ab"[i % 2] / f"{i:02d} ä.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 10 * i).save(path)
    return tmp_path / "set"


def _named(split: Split, folder: Path) -> None:
    assert split.origins is not None
    for image, name in zip(split.images, split.origins, strict=True):
        with Image.open(folder / name) as opened:
            assert np.array_equal(image, np.asarray(opened))


def test_drawn_images_keep_the_names_of_their_files(folder: Path) -> None:
    spec = RunSpec(dataset=str(folder), image_size=8, fraction=0.5, seed=3)
    splits = data.load(spec)
    assert [len(s) for s in (splits.train, splits.val, splits.test)] == [6, 4, 4]
    for split in (splits.train, splits.val, splits.test):
        _named(split, folder)


def test_images_turned_grey_keep_the_names_of_their_files(folder: Path) -> None:
    Image.new("RGB", (8, 8), (90, 90, 90)).save(folder / "train" / "a" / "00 ä.png")
    splits = data.load(RunSpec(dataset=str(folder), image_size=8, channels="grey"))
    names = [name for s in (splits.train, splits.val, splits.test) for name in s.origins]  # type: ignore[union-attr]
    assert len(set(names)) == 20


def test_digits_are_rows_of_the_published_set() -> None:
    from sklearn.datasets import load_digits

    test = data.load(RunSpec(dataset="digits", image_size=32)).test
    published = load_digits()
    assert test.origins is not None
    rows = test.origins.astype(int)
    assert np.array_equal(test.labels, published.target[rows])
    assert np.array_equal(test.images, np.rint(published.images[rows] * (255 / 16)))
