"""Scores against MedMNIST's evaluator, scikit-learn and hand counts."""

from __future__ import annotations

import numpy as np
import pytest
from medmnist.evaluator import getACC, getAUC
from sklearn import metrics

from pepr_mlops.comparison.metrics import confusion, scores
from pepr_mlops.names import MULTI_LABEL


def _softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("task", ["multi-class", "ordinal-regression", "binary-class"])
def test_as_medmnist_and_sklearn_compute_them(task: str) -> None:
    rng = np.random.default_rng(3)
    classes = 2 if task == "binary-class" else 5
    labels = rng.integers(0, classes, 200)
    chances = _softmax(rng.normal(size=(200, classes)) + 2 * np.eye(classes)[labels])
    found = scores(labels, chances, task)
    assert found["accuracy"] == getACC(labels, chances, task)
    assert found["auc"] == pytest.approx(getAUC(labels, chances, task), abs=1e-12)
    predicted = chances.argmax(axis=1)
    balanced = metrics.balanced_accuracy_score(labels, predicted)
    assert found["balanced_accuracy"] == pytest.approx(balanced, abs=1e-12)
    f1 = metrics.f1_score(labels, predicted, average="macro")
    assert found["macro_f1"] == pytest.approx(f1, abs=1e-12)
    counts = metrics.confusion_matrix(labels, predicted, labels=range(classes))
    assert confusion(labels, chances, task).tolist() == counts.tolist()


@pytest.mark.filterwarnings("ignore")  # scikit-learn's, of classes that are absent
@pytest.mark.parametrize("seed", range(30))
def test_as_sklearn_with_ties_and_absent_classes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, classes = int(rng.integers(4, 40)), int(rng.integers(2, 6))
    labels = rng.integers(0, rng.integers(1, classes + 1), n)
    chances = (rng.integers(0, 4, (n, classes)) / 4).astype(np.float32)
    found, predicted = scores(labels, chances, "multi-class"), chances.argmax(axis=1)
    balanced = metrics.balanced_accuracy_score(labels, predicted)
    assert found["balanced_accuracy"] == pytest.approx(balanced, abs=1e-12)
    f1 = metrics.f1_score(labels, predicted, average="macro")
    assert found["macro_f1"] == pytest.approx(f1, abs=1e-12)
    assert ("auc" in found) == (len(np.unique(labels)) == classes)
    if "auc" in found:
        each = [metrics.roc_auc_score(labels == c, chances[:, c]) for c in range(classes)]
        assert found["auc"] == pytest.approx(np.mean(each), abs=1e-12)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(30))
def test_several_labels_as_sklearn_with_ties_and_absent_labels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, width = int(rng.integers(4, 40)), int(rng.integers(1, 6))
    labels = (rng.random((n, width)) < rng.random(width)).astype(np.int64)
    chances = (rng.integers(0, 5, (n, width)) / 4).astype(np.float32)
    found, predicted = scores(labels, chances, MULTI_LABEL), (chances > 0.5).astype(int)
    f1 = metrics.f1_score(
        np.column_stack([labels, labels]),  # one label alone is another task to scikit-learn
        np.column_stack([predicted, predicted]),
        average="macro",
        zero_division=0.0,
    )
    assert found["macro_f1"] == pytest.approx(f1, abs=1e-12)
    columns = range(width)
    each = [metrics.balanced_accuracy_score(labels[:, i], predicted[:, i]) for i in columns]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(each), abs=1e-12)
    if "auc" in found:
        each = [metrics.roc_auc_score(labels[:, i], chances[:, i]) for i in columns]
        assert found["auc"] == pytest.approx(np.mean(each), abs=1e-12)


def test_several_labels_per_image() -> None:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, (300, 14))
    chances = np.clip(0.3 * labels + rng.uniform(0, 0.7, (300, 14)), 0, 1)
    found = scores(labels, chances, MULTI_LABEL)
    assert found["accuracy"] == pytest.approx(getACC(labels, chances, MULTI_LABEL), abs=1e-12)
    assert found["auc"] == pytest.approx(getAUC(labels, chances, MULTI_LABEL), abs=1e-12)


def test_counted_by_hand() -> None:
    labels = np.array([0, 0, 0, 1])
    chances = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]])
    found = scores(labels, chances, "binary-class")
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert found["auc"] == 1.0
    assert confusion(labels, chances, "binary-class").tolist() == [[2, 1], [0, 1]]


def test_a_score_the_split_does_not_determine_is_left_out() -> None:
    chances = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert "auc" not in scores(np.array([0, 0]), chances, "binary-class")


def test_confusion_of_several_labels() -> None:
    labels = np.array([[1, 0], [1, 1], [0, 0]])
    chances = np.array([[0.9, 0.8], [0.1, 0.7], [0.2, 0.1]])
    # per label: true negatives, false positives, false negatives, true positives
    assert confusion(labels, chances, MULTI_LABEL).tolist() == [[1, 0, 1, 1], [1, 1, 0, 1]]


def test_no_predictions_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 labels"):
        scores(np.array([], dtype=int), np.zeros((0, 2)), "binary-class")
