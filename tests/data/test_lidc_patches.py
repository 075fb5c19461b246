"""Cutting and windowing, by hand."""

from __future__ import annotations

import numpy as np

from pepr_mlops.data.lidc_build.patches import corner, grey


def test_a_square_is_around_its_pixel_or_moved_inside_the_slice() -> None:
    assert corner(200, 300, 128) == (136, 236)
    assert corner(10, 500, 128) == (0, 384)
    assert corner(0, 511, 512) == (0, 0)


def test_the_window_becomes_black_to_white() -> None:
    square = np.array([[-2000, -1000], [-300, 400]], dtype=np.float32)
    assert grey(square, (-1000, 400), 2).tolist() == [[0, 0], [128, 255]]  # 127.5 to the even
    assert grey(square, (-400, 0), 2).tolist() == [[0, 0], [64, 255]]


def test_metal_does_not_outshine_its_neighbours_when_shrunk() -> None:
    square = np.array([[3000, -1000], [-1000, -1000]], dtype=np.float32)
    assert grey(square, (-1000, 400), 1).item() == 64  # a quarter of white
