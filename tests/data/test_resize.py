"""How an image becomes square."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image

from pepr_mlops.data.resize import HALF, square, weights

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
    assert square(image, 4, "stretch", True).tolist() == [[10, 90, 90, 20]] * 4


@pytest.mark.parametrize("shape", [(50, 80), (7, 300), (64, 31, 3)])
def test_stretching_is_pillows_up_to_its_rounding_of_rows(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    theirs = np.asarray(Image.fromarray(image).resize((40, 40), Image.Resampling.BILINEAR))
    ours = square(image, 40, "stretch", len(shape) == 2)
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_a_crop_may_begin_at_half_a_pixel() -> None:
    image = np.array([[0, 100, 200]] * 2, np.uint8)  # the square is from 0.5 to 2.5
    assert square(image, 2, "crop", True).tolist() == [[50, 150]] * 2


def test_half_a_grey_value_is_rounded_up() -> None:
    assert square(np.array([[0, 1], [2, 3]], np.uint8), 1, "stretch", True).tolist() == [[2]]


@pytest.mark.parametrize("fit", FITS)
def test_tensors_with_symbolic_sides_have_the_same_weights(fit: str) -> None:
    class Weights(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = torch.arange(16, dtype=torch.float64)[:, None]
            columns = torch.arange(x.shape[0], dtype=torch.float64)[None]
            return weights(
                *(rows, columns, x.shape[0], 16, x.shape[1], fit),
                least=torch.sym_min,
                most=torch.sym_max,
            )

    dynamic = torch.export.Dim.DYNAMIC
    module = torch.export.export(
        Weights(), (torch.zeros(20, 30),), dynamic_shapes=({0: dynamic, 1: dynamic},)
    ).module()
    for n, other in ((20, 30), (30, 20), (8, 8), (16, 5), (2, 90)):
        rows, columns = np.arange(16.0)[:, None], np.arange(float(n))[None]
        expected = weights(rows, columns, n, 16, other, fit)
        np.testing.assert_allclose(module(torch.zeros(n, other)).numpy(), expected, atol=1e-12)


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


@pytest.mark.parametrize("fit", FITS)
def test_only_the_pixels_near_a_pixel_of_the_square_count_in_it(fit: str) -> None:
    """`square` computes with these alone. With all of an image the result is the same."""
    rng = np.random.default_rng(0)
    for height, width in [(1, 700), (700, 1), (3, 40), (5, 5), (33, 200), (150, 31), (97, 64)]:
        image = rng.integers(0, 256, (height, width), np.uint8)
        for size in (1, 7, 32):
            rows = np.arange(float(size))[:, None]
            down, across = (
                weights(rows, np.arange(float(n))[None], n, size, other, fit)
                for n, other in ((height, width), (width, height))
            )
            expected = np.floor(down @ image @ across.T + HALF).clip(0, 255)
            assert np.array_equal(square(image, size, fit, True), expected)


def test_a_strip_with_a_million_pixels_takes_little_memory() -> None:
    """All weights of its long side would take 2 GB."""
    image = np.tile(np.array([[0, 100]], np.uint8), (2, 500_000))
    tracemalloc.start()
    found = square(image, 256, "stretch", True), square(image.T, 256, "stretch", True)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [np.unique(one).tolist() for one in found] == [[50], [50]]
    assert most_bytes < 200e6
