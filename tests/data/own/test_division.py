"""No patient is in two splits, and the splits have the classes of the data set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from pepr_mlops.data.own.division import divide, shared_patients, strata
from pepr_mlops.data.splits import draw
from pepr_mlops.errors import WrongUse

RNG = np.random.default_rng(0)
PATIENTS = np.array([f"p{i // 4:03}" for i in range(400)])  # 100 patients of 4 images
LABELS = np.repeat(RNG.integers(0, 2, 100), 4)  # of which one in two is ill
NONE = np.full(400, "")


def test_drawn_splits_are_those_of_scikit_learn_by_patient() -> None:
    rows = divide(LABELS, NONE, PATIENTS, seed=3)
    cut = StratifiedGroupKFold(5, shuffle=True, random_state=3)
    parts = [test for _, test in cut.split(LABELS, LABELS, PATIENTS)]
    assert rows["test"].tolist() == sorted(parts[0])
    assert rows["val"].tolist() == sorted(parts[1])
    assert rows["train"].tolist() == sorted(np.concatenate(parts[2:]))
    assert shared_patients(PATIENTS, rows) is None
    ill = {name: LABELS[own].mean() for name, own in rows.items()}
    assert all(abs(share - LABELS.mean()) < 0.06 for share in ill.values())


def test_without_patients_they_are_drawn_by_class_as_before() -> None:
    rows = divide(LABELS, NONE, None, seed=5)
    drawn, rest = draw(LABELS, 0.4, 5)
    half, other = draw(LABELS[drawn], 0.5, 5)
    assert rows["train"].tolist() == rest.tolist()
    assert rows["val"].tolist() == drawn[half].tolist()
    assert rows["test"].tolist() == drawn[other].tolist()


def test_given_splits_stay_and_a_missing_one_is_drawn_from_train() -> None:
    splits = np.where(np.arange(400) < 100, "test", "train")
    rows = divide(LABELS, splits, PATIENTS, seed=0)
    assert rows["test"].tolist() == list(range(100))
    assert sorted([*rows["train"], *rows["val"]]) == list(range(100, 400))
    assert 40 <= len(rows["val"]) <= 80  # about 20% of 300
    assert shared_patients(PATIENTS, rows) is None


def test_a_patient_in_two_given_splits_is_counted() -> None:
    splits = np.array(["train"] * 200 + ["val"] * 100 + ["test"] * 100)
    splits[[398, 399]] = "train"
    splits[300] = "val"
    rows = divide(LABELS, splits, PATIENTS, seed=0)
    text = "2 of 100 patients are in more than one split (train, val, test)"
    assert shared_patients(PATIENTS, rows) == text
    unknown = np.where(np.isin(PATIENTS, ["p099", "p075"]), "", PATIENTS)
    assert shared_patients(unknown, rows) is None
    assert shared_patients(None, rows) is None


def test_folds_cut_all_images_once_and_do_not_depend_on_the_seed() -> None:
    parts = [divide(LABELS, NONE, PATIENTS, seed=k, folds=5, fold=k) for k in range(1, 6)]
    assert sorted(np.concatenate([rows["test"] for rows in parts])) == list(range(400))
    assert sorted(np.concatenate([rows["val"] for rows in parts])) == list(range(400))
    for k, rows in enumerate(parts):
        assert sorted(np.concatenate(list(rows.values()))) == list(range(400))
        assert shared_patients(PATIENTS, rows) is None
        np.testing.assert_array_equal(rows["val"], parts[(k + 1) % 5]["test"])
        np.testing.assert_array_equal(
            rows["test"],
            divide(LABELS, NONE, PATIENTS, seed=77, folds=5, fold=k + 1)["test"],
        )


def test_folds_refuse_given_test_images_and_too_few_patients() -> None:
    splits = np.where(np.arange(400) < 100, "test", "train")
    with pytest.raises(WrongUse, match=r"own test or val images.*--external"):
        divide(LABELS, splits, PATIENTS, seed=0, folds=5, fold=1)
    few = np.where(np.arange(400) < 200, "a", "b")
    with pytest.raises(WrongUse, match="2 patients are too few to be cut into 5 parts"):
        divide(LABELS, NONE, few, seed=0)
    with pytest.raises(WrongUse, match="no class has 5 images"):
        divide(np.arange(8) // 4, np.full(8, ""), None, seed=0, folds=5, fold=1)


def test_an_image_of_several_labels_counts_as_one_of_its_rarest() -> None:
    labels = np.array([[1, 0, 0], [1, 1, 0], [1, 1, 1], [0, 0, 0], [-1, 1, 0], [1, 0, -1]])
    assert strata(labels).tolist() == [0, 1, 2, 3, 1, 0]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2)), min_size=60, max_size=200),
    st.integers(0, 9),
)
def test_no_patient_is_ever_drawn_into_two_splits(rows: list[tuple[int, int]], seed: int) -> None:
    patients = np.array([f"{p}" if p else "" for p, _ in rows])
    labels = np.array([label for _, label in rows])
    found = divide(labels, np.full(len(rows), ""), patients, seed=seed)
    assert sorted(np.concatenate(list(found.values()))) == list(range(len(rows)))
    assert shared_patients(patients, found) is None
