"""How an image becomes square."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pepr_mlops.data.own.fit import square

FITS = ("stretch", "pad", "crop")


def test_a_wide_image_is_stretched_padded_or_cropped() -> None:
    image = np.repeat(np.array([[10, 90, 90, 20]], np.uint8), 2, axis=0)  # 2 rows, 4 columns
    assert square(image, 4, "pad", True).tolist() == [
        [0, 0, 0, 0],
        [10, 90, 90, 20],
        [10, 90, 90, 20],
        [0, 0, 0, 0],
    ]
    assert square(image, 2, "crop", True).tolist() == [[90, 90], [90, 90]]
    stretched = np.asarray(Image.fromarray(image).resize((4, 4), Image.Resampling.BILINEAR))
    assert np.array_equal(square(image, 4, "stretch", True), stretched)


def test_an_odd_bar_is_below_or_on_the_right() -> None:
    tall = np.full((4, 1), 200, np.uint8)
    assert square(tall, 4, "pad", True).tolist() == [[0, 200, 0, 0]] * 4
    assert square(tall.T, 4, "pad", True)[:, 0].tolist() == [0, 200, 0, 0]


@pytest.mark.parametrize("fit", FITS)
def test_a_square_image_is_the_same_however_it_is_fitted(fit: str) -> None:
    rng = np.random.default_rng(0)
    for shape in ((37, 37), (37, 37, 3)):
        image = rng.integers(0, 256, shape, np.uint8)
        for size in (16, 37, 50):
            grey = image.ndim == 2
            found = square(image, size, fit, grey)
            assert found.dtype == np.uint8
            assert np.array_equal(found, square(image, size, "stretch", grey))
    assert np.array_equal(square(image, 37, fit, False), image)


@pytest.mark.parametrize("fit", FITS)
def test_a_grey_image_among_coloured_ones_has_three_equal_channels(fit: str) -> None:
    image = np.arange(60, dtype=np.uint8).reshape(6, 10)
    found = square(image, 8, fit, False)
    assert found.shape == (8, 8, 3)
    assert all(np.array_equal(found[..., i], square(image, 8, fit, True)) for i in range(3))


def test_a_strip_hundreds_of_times_as_long_as_wide_stays_visible() -> None:
    assert square(np.full((1, 900), 255, np.uint8), 8, "pad", True).max() == 255
