"""Splitting by patient and as the paper did."""

from __future__ import annotations

import numpy as np
import pytest

from pepr_mlops.data.lidc_build.splits import assign
from pepr_mlops.errors import WrongUse


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
