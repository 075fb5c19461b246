"""Cutting, windowing and splitting, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pepr_mlops.data.lidc_build.nodules import Outlined
from pepr_mlops.data.lidc_build.output import labels, votes
from pepr_mlops.data.lidc_build.patches import corner, grey
from pepr_mlops.data.lidc_build.splits import assign
from pepr_mlops.errors import WrongUse


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


def _outlined(ratings: tuple[int, ...], marked: tuple[bool, ...]) -> Outlined:
    return Outlined(1, -12.5, 100, 100, ratings, marked)


def test_more_than_two_of_four_radiologists_decide() -> None:
    seen = [
        _outlined((5, 4, 4, 1), (True, False, False, False)),
        _outlined((5, 4, 3, 1), (True, True, True, True)),
        _outlined((5, 5, 5), (True, True, True)),
        _outlined((5, 5), (True, True)),
    ]
    malignant, marked = votes(seen, "malignant"), votes(seen, "marked")
    assert malignant.tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, -1], [1, 1, -1, -1]]
    assert marked.tolist() == [[1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]]
    assert labels(malignant).tolist() == [1, 0, 1, 0]
    assert labels(marked).tolist() == [0, 1, 1, 0]


def test_no_patient_is_in_two_splits_and_each_has_its_share_of_the_labels() -> None:
    rng = np.random.default_rng(0)
    patients = [f"p{i}" for i in np.repeat(np.arange(100), rng.integers(1, 20, 100))]
    truth = (rng.random(len(patients)) < 0.3).astype(np.int64)
    split = assign(truth, patients, "patient", 0)
    owners = [{p for p, s in zip(patients, split, strict=True) if s == n} for n in set(split)]
    assert sum(map(len, owners)) == len(set.union(*owners)) == 100
    for name, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
        assert (split == name).mean() == pytest.approx(share, abs=0.02)
        assert truth[split == name].mean() == pytest.approx(truth.mean(), abs=0.03)
    assert np.array_equal(split, assign(truth, patients, "patient", 0))
    assert not np.array_equal(split, assign(truth, patients, "patient", 1))


def test_the_papers_split_cuts_the_order_as_its_code_does() -> None:
    """15,096 patches: 9,057, 3,019 and 3,020, as the paper says."""
    split = assign(np.zeros(15_096, np.int64), ["one"] * 15_096, "paper", 0)
    assert [int((split == n).sum()) for n in ("train", "val", "test")] == [9057, 3019, 3020]
    assert list(dict.fromkeys(split)) == ["train", "val", "test"]


def test_too_few_patients_are_refused() -> None:
    with pytest.raises(WrongUse, match="4 patients with a nodule are too few"):
        assign(np.zeros(8, np.int64), list("aabbccdd"), "patient", 0)
