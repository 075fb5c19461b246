"""Shares that are, or are not, counts of one number of images."""

from __future__ import annotations

import numpy as np
import pytest

from pepr_mlops.comparison.image_counts import image_count, is_count_of


@pytest.mark.parametrize("n", [24, 360, 624, 1984, 2005, 7180, 17778])
def test_the_count_is_found_and_what_is_none_of_it(n: int) -> None:
    rng = np.random.default_rng(n)
    shares = rng.integers(n // 2, n, 60) / n
    assert image_count(shares) == n
    assert image_count(shares.astype(np.float32).astype(float)) == n
    odd = np.append(shares, 0.123456789)
    assert image_count(odd) == n
    assert is_count_of(odd, n).tolist() == [True] * 60 + [False]


def test_honest_sets_of_any_size_are_never_doubted() -> None:
    rng = np.random.default_rng(0)
    for n in (24, 359, 624, 3008, 17778):
        for runs in (5, 6, 8, 12, 131):
            for _ in range(50):
                shares = rng.integers(n // 2, n, runs) / n
                found = image_count(shares)
                assert found is None or is_count_of(shares, found).all()


def test_where_no_count_can_be_known_there_is_none() -> None:
    rng = np.random.default_rng(1)
    assert image_count(rng.random(131)) is None  # AUC, say
    assert image_count(np.round(rng.random(50), 3)) is None  # decimals are no images
    assert image_count(np.array([0.5, 0.25, 0.75, 0.5, 0.25, 1.0, 0.0])) is None  # three of a kind
    assert image_count(np.array([])) is None
