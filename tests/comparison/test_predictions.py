"""What a run predicted: the form in a file, the identity of a test set, and faults."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pepr_mlops.comparison.predictions import OfSplit, Predictions, from_arrays
from pepr_mlops.names import MULTI_LABEL

LABELS = np.array([0, 1, 1, 0])
CHANCES = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]])


def _split(labels: np.ndarray = LABELS, chances: np.ndarray = CHANCES) -> OfSplit:
    files = np.array(["0/a.png", "1/b.png", "1/c.png", "0/d.png"])
    return OfSplit(labels, chances, files, {"patient": np.array(["0", "1", "1", "2"])})


def test_arrays_and_back() -> None:
    rows = OfSplit(LABELS, CHANCES, np.array([5, 2, 8, 1]), {"sex": np.array(["f", "m", "f", "f"])})
    made = Predictions("binary-class", ("normal", "sick"), _split(), rows, "d1")
    back = from_arrays(made.arrays())
    assert back.arrays().keys() == made.arrays().keys()
    for name, array in made.arrays().items():
        assert back.arrays()[name].tolist() == array.tolist(), name


def test_a_file_of_an_earlier_version_has_its_task_by_its_form() -> None:
    old = {"labels": LABELS, "probabilities": CHANCES, "classes": np.array(["a", "b"])}
    assert from_arrays(old).task == "binary-class"
    assert from_arrays(old).val is None
    assert from_arrays({**old, "classes": np.array(["a", "b", "c"])}).task == "multi-class"
    several = {**old, "labels": np.eye(4, 2, dtype=int)}
    assert from_arrays(several).task == MULTI_LABEL
    with pytest.raises(KeyError):
        from_arrays({"labels": LABELS})


def test_a_test_set_is_its_labels_and_files() -> None:
    one = _split()
    assert one.test_set == _split(chances=CHANCES[:, ::-1]).test_set
    assert one.test_set != _split(labels=1 - LABELS).test_set
    assert one.test_set != replace(one, images=one.images[::-1]).test_set
    assert one.test_set == replace(one, groups={}).test_set
    assert (
        one.test_set == replace(one, groups={**one.groups, "sex": np.array(list("ffmm"))}).test_set
    )


def test_images_of_a_patient_are_one_cluster() -> None:
    assert _split().clusters.tolist() == [0, 1, 1, 2]
    assert replace(_split(), groups={}).clusters.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("labels", "chances", "fault"),
    [
        (LABELS, CHANCES, None),
        (LABELS[:3], CHANCES, "its test predictions have 4 rows for 3 labels"),
        (LABELS, CHANCES[:, :1], "its test predictions have 1 columns for 2 classes"),
        (LABELS + 1, CHANCES, "its test predictions have a label that is no class"),
        (LABELS, CHANCES * [[np.nan, 1]], "its test predictions are not finite for 4 images"),
        (LABELS, CHANCES - 0.5, "its test predictions are no probabilities in [0, 1]"),
        (
            LABELS,
            CHANCES * [[0.5], [1], [1], [1]],
            "its test predictions do not sum to 1 for 1 of 4 images",
        ),
    ],
)
def test_faults(labels: np.ndarray, chances: np.ndarray, fault: str | None) -> None:
    found = Predictions("binary-class", ("normal", "sick"), OfSplit(labels, chances))
    assert found.fault() == fault


def test_what_is_not_of_every_image_is_a_fault() -> None:
    made = Predictions("binary-class", ("normal", "sick"), _split())
    few = replace(made, test=replace(_split(), images=np.array(["a.png"])))
    assert few.fault() == "its test predictions have 1 values of images for 4 labels"
    one = replace(made, val=replace(_split(), groups={"sex": np.array("f")}))
    assert one.fault() == "its validation predictions have 1 values of sex for 4 labels"
    wide = OfSplit(np.eye(4, 3, dtype=int), CHANCES)
    assert (
        Predictions(MULTI_LABEL, ("a", "b"), wide).fault()
        == "its test predictions have 3 labels for 2 classes"
    )


def test_labels_of_one_image_need_not_sum_to_one() -> None:
    split = OfSplit(np.eye(4, 2, dtype=int), CHANCES / 3)
    assert Predictions(MULTI_LABEL, ("a", "b"), split).fault() is None
