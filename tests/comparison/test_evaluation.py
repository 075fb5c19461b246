"""What predictions are worth where labels are known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from pepr_mlops.comparison.evaluation import class_counts, evaluate
from pepr_mlops.comparison.predictions import OfSplit
from pepr_mlops.names import MULTI_LABEL


def test_accuracies_of_several_labels_are_of_those_that_were_named() -> None:
    rng = np.random.default_rng(0)
    labels, chances = rng.integers(0, 2, (50, 2)), rng.random((50, 2))
    limits = np.array([0.2, 0.7])
    named = (chances >= limits).astype(float)
    found = OfSplit(labels, chances)
    value = evaluate(found, MULTI_LABEL, limits, named, draws=50).set_index("metric")["value"]
    assert value["accuracy"] == pytest.approx((named == labels).mean())
    each = [balanced_accuracy_score(labels[:, i], named[:, i]) for i in range(2)]
    assert value["balanced_accuracy"] == pytest.approx(np.mean(each))
    assert value["auc"] == pytest.approx(roc_auc_score(labels, chances))
    counts = class_counts(found, MULTI_LABEL, ("a", "b"), named)
    assert counts["predicted"].tolist() == named.sum(axis=0).tolist()
