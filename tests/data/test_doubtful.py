"""Doubts about the images of a data set, counted by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from pepr_mlops import data
from pepr_mlops.data import Split, Splits
from pepr_mlops.errors import WrongUse
from pepr_mlops.names import DOUBTS
from pepr_mlops.spec import RunSpec


def _split(values: Sequence[int], labels: Sequence[Any]) -> Split:
    """Grey images of 2×2, all of whose pixels have one value."""
    pixels = np.repeat(np.array(values, np.uint8), 4).reshape(-1, 2, 2)
    return Split(pixels, np.array(labels, np.int64))


def _splits(**changed: Split) -> Splits:
    """Six images of two classes in train, four in val and in test; all differ."""
    parts = {
        "train": _split([1, 2, 3, 4, 5, 6], [0, 0, 0, 1, 1, 1]),
        "val": _split([11, 12, 13, 14], [0, 0, 1, 1]),
        "test": _split([21, 22, 23, 24], [0, 0, 1, 1]),
    }
    return Splits("mine", "/mine", "binary-class", ("a", "b"), 1, **(parts | changed))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, {}),
        (
            {"test": _split([1, 2, 23, 5], [0, 0, 1, 1])},
            {"pepr.data_leak": "3 of 4 images of test are also in train"},
        ),
        (
            {"val": _split([1, 12, 13, 14], [0, 0, 1, 1])},
            {"pepr.data_val": "1 of 4 images of val are also in train"},
        ),
        (  # which the validation has seen, and no training
            {"test": _split([11, 12, 23, 24], [0, 0, 1, 1])},
            {"pepr.data_val": "2 of 4 images of test are also in val"},
        ),
        (
            {"train": _split([1, 2, 3, 4, 5, 1], [0, 0, 0, 1, 1, 1])},
            {
                "pepr.data_conflict": "1 image contradicts the label of an earlier identical image",
                "pepr.data_repeats": "1 of 6 images of train repeat another of its images",
            },
        ),
        (
            {
                "train": _split([1, 1, 1, 4, 5, 6], [0, 0, 0, 1, 1, 1]),
                "test": _split([21, 22, 23, 23], [0, 0, 1, 1]),
            },
            {
                "pepr.data_repeats": "2 of 6 images of train repeat another of its images; "
                "1 of 4 images of test repeat another of its images"
            },
        ),
        (
            {"test": _split([21, 22, 23], [0, 0, 1])},
            {"pepr.data_few": "test has fewer than 2 images for 1 of 2 classes, b (1)"},
        ),
        (
            {"val": _split([11, 12], [0, 0])},
            {"pepr.data_val": "val has fewer than 2 images for 1 of 2 classes, b (0)"},
        ),
    ],
)
def test_doubts_have_counts(changed: dict[str, Split], expected: dict[str, str]) -> None:
    assert data.doubts(_splits(**changed)) == expected


def test_all_labels_of_an_image_are_compared() -> None:
    splits = _splits(
        train=_split([1, 2, 3], [[1, 0], [0, 1], [1, 1]]),
        val=_split([11, 12], [[1, 1], [1, 1]]),
        test=_split([2, 22, 23], [[1, 1], [1, 1], [1, 0]]),
    )
    assert data.doubts(splits) == {
        "pepr.data_leak": "1 of 3 images of test are also in train",
        "pepr.data_conflict": "1 image contradicts the label of an earlier identical image",
    }


def test_every_doubt_can_be_refused() -> None:
    data.refuse_doubts("mine", {})
    for doubt in DOUBTS:
        with pytest.raises(
            WrongUse, match=r"dataset: mine: 3 of 4 x\. Correct .* without --strict"
        ):
            data.refuse_doubts("mine", {doubt.tag: "3 of 4 x"})


def test_digits_are_beyond_doubt_and_pneumonia_has_the_papers_repetitions(
    pneumonia_root: Any,
) -> None:
    assert data.doubts(data.load(RunSpec(dataset="digits"))) == {}
    spec = RunSpec(dataset="pneumonia", size=28, data_root=str(pneumonia_root))
    found = data.doubts(data.load(spec))
    assert found == {
        "pepr.data_val": "8 of 524 images of val are also in train",
        "pepr.data_repeats": "18 of 4,708 images of train repeat another of its images; "
        "3 of 624 images of test repeat another of its images",
    }
    assert not {doubt.tag for doubt in DOUBTS if doubt.flagged} & set(found)  # it is compared
