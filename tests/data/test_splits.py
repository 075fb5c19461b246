"""Digests, fractions and channels of splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pepr_mlops import data
from pepr_mlops.data.splits import draw
from pepr_mlops.errors import WrongUse
from pepr_mlops.spec import RunSpec


def _load(**fields: object) -> data.Splits:
    return data.load(RunSpec(**fields))  # type: ignore[arg-type]


def test_a_digest_changes_with_any_pixel_label_or_order() -> None:
    split = _load(dataset="digits").test
    pixels = split.images.copy()
    pixels[0, 0, 0] ^= 1
    labels = split.labels.copy()
    labels[0] = (labels[0] + 1) % 10
    order = np.arange(len(split))[::-1].copy()
    others = [
        data.Split(pixels, split.labels),
        data.Split(split.images, labels),
        split.take(order),
    ]
    assert len({split.digest(), *(o.digest() for o in others)}) == 4
    assert data.Split(split.images.copy(), split.labels.copy()).digest() == split.digest()


def test_a_fraction_keeps_the_shares_of_the_classes() -> None:
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    drawn, rest = draw(labels, 0.1, seed=1)
    assert np.bincount(labels[drawn]).tolist() == [10, 5, 1]
    assert np.array_equal(np.sort(np.concatenate([drawn, rest])), np.arange(160))
    assert np.array_equal(drawn, draw(labels, 0.1, seed=1)[0])
    assert not np.array_equal(drawn, draw(labels, 0.1, seed=2)[0])


def test_a_fraction_leaves_the_other_splits_alone() -> None:
    full, tenth = _load(dataset="digits"), _load(dataset="digits", fraction=0.1)
    sizes = np.bincount(full.train.labels)
    assert sizes.min() == 104  # of the class with the fewest images, 174
    assert np.bincount(tenth.train.labels).tolist() == [round(n / 10) for n in sizes]
    assert tenth.val.digest() == full.val.digest()
    assert tenth.test.digest() == full.test.digest()


def test_a_fraction_without_an_image_of_a_class_is_refused() -> None:
    with pytest.raises(WrongUse, match="no training image of class"):
        _load(dataset="digits", fraction=0.001)


def test_grey_is_pillows_grey(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for label in ("a", "b"):
            (tmp_path / split / label).mkdir(parents=True)
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / label / "0.png")
    splits = _load(dataset=str(tmp_path), image_size=16, channels="grey")
    with Image.open(tmp_path / "test" / "a" / "0.png") as image:
        expected = np.asarray(image.convert("L"))
    (images,) = splits.test.images.parts()
    assert np.array_equal(images[0], expected)
    assert splits.channels == 1
    assert _load(dataset=str(tmp_path), image_size=16).channels == 3
    assert _load(dataset="digits", channels="rgb").channels == 3
