"""Performance of a set of predictions: accuracy, balanced accuracy, macro F1, AUC."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

# MedMNIST's own names for what a data set asks.
Task = Literal["multi-class", "binary-class", "ordinal-regression", "multi-label, binary-class"]
MULTI_LABEL: Task = "multi-label, binary-class"

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]


def predicted(probabilities: Floats, task: Task) -> Ints:
    """Class indices [n], or 0/1 per label [n, labels] at threshold 0.5 for a multi-label task."""
    if task == MULTI_LABEL:
        return (probabilities > 0.5).astype(np.int64)
    return np.asarray(np.argmax(probabilities, axis=1))


def scores(labels: Ints, probabilities: Floats, task: Task) -> dict[str, float]:
    """Accuracy, balanced accuracy, macro F1 and AUC of one split.

    `labels` are class indices [n], or 0/1 [n, labels] for a multi-label task; `probabilities`
    are [n, classes] (two columns for a binary task) or [n, labels]. Accuracy and AUC follow
    `medmnist.evaluator`: accuracy per label and averaged when there are several labels, AUC one
    class against the rest and averaged. Balanced accuracy of several labels is averaged alike. A
    score the split does not determine (AUC where a class is absent) is left out of the result.
    """
    from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

    if len(labels) == 0 or len(labels) != len(probabilities):
        raise ValueError(f"{len(labels)} labels for {len(probabilities)} predictions")
    classes = predicted(probabilities, task)
    if task == MULTI_LABEL:
        columns = range(labels.shape[1])
        truth, score = labels, probabilities
        balanced = float(
            np.mean([balanced_accuracy_score(labels[:, i], classes[:, i]) for i in columns])
        )
        f1 = f1_score(labels, classes, average="macro", zero_division=0.0)
    else:
        truth = (labels[:, None] == np.arange(probabilities.shape[1])).astype(np.int64)
        score = probabilities
        if task == "binary-class":
            truth, score = truth[:, 1:], score[:, 1:]
        balanced = balanced_accuracy_score(labels, classes)
        f1 = f1_score(labels, classes, average="macro", zero_division=0.0)
    result = {
        "accuracy": float(np.mean(labels == classes)),
        "balanced_accuracy": float(balanced),
        "macro_f1": float(f1),
    }
    present = truth.any(axis=0) & ~truth.all(axis=0)
    if present.all():
        result["auc"] = float(
            np.mean([roc_auc_score(truth[:, i], score[:, i]) for i in range(truth.shape[1])])
        )
    return result


def confusion(labels: Ints, probabilities: Floats, task: Task) -> Ints:
    """Counts [true class, predicted class]; for a multi-label task [label, 4]: true negatives,
    false positives, false negatives, true positives."""
    from sklearn.metrics import confusion_matrix, multilabel_confusion_matrix

    classes = predicted(probabilities, task)
    if task == MULTI_LABEL:
        counts = multilabel_confusion_matrix(labels, classes)
        return np.asarray(counts.reshape(-1, 4))
    return np.asarray(confusion_matrix(labels, classes, labels=np.arange(probabilities.shape[1])))
