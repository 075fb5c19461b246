"""Performance of a set of predictions: accuracy, balanced accuracy, macro F1, AUC.

Computed here, since importing scikit-learn would cost every job a second; a test compares both.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pepr_mlops.names import MULTI_LABEL, Task

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
    if len(labels) == 0 or len(labels) != len(probabilities):
        raise ValueError(f"{len(labels)} labels for {len(probabilities)} predictions")
    classes = predicted(probabilities, task)
    counts = confusion(labels, probabilities, task)
    if task == MULTI_LABEL:
        truth, score = labels, probabilities
        balanced = float(np.mean([_mean_recall(label.reshape(2, 2)) for label in counts]))
        hits, named, true = counts[:, 3], counts[:, [1, 3]].sum(axis=1), labels.sum(axis=0)
        f1 = _macro_f1(hits, named, true)
    else:
        truth = (labels[:, None] == np.arange(probabilities.shape[1])).astype(np.int64)
        score = probabilities
        if task == "binary-class":
            truth, score = truth[:, 1:], score[:, 1:]
        balanced = _mean_recall(counts)
        hits, named, true = counts.diagonal(), counts.sum(axis=0), counts.sum(axis=1)
        seen = named + true > 0
        f1 = _macro_f1(hits[seen], named[seen], true[seen])
    result = {
        "accuracy": float(np.mean(labels == classes)),
        "balanced_accuracy": balanced,
        "macro_f1": f1,
    }
    present = truth.any(axis=0) & ~truth.all(axis=0)
    if present.all():
        areas = [_auc(t == 1, s) for t, s in zip(truth.T, score.T, strict=True)]
        result["auc"] = float(np.mean(areas))
    return result


def confusion(labels: Ints, probabilities: Floats, task: Task) -> Ints:
    """Counts [true class, predicted class]; for a multi-label task [label, 4]: true negatives,
    false positives, false negatives, true positives."""
    classes = predicted(probabilities, task)
    if task == MULTI_LABEL:
        columns = zip(labels.T, classes.T, strict=True)
        return np.array([np.bincount(2 * true + named, minlength=4) for true, named in columns])
    n = probabilities.shape[1]
    return np.bincount(n * labels + classes, minlength=n * n).reshape(n, n)


def _mean_recall(counts: Ints) -> float:
    """Of the classes that occur, from counts [true class, predicted class]."""
    true = counts.sum(axis=1)
    return float(np.mean(counts.diagonal()[true > 0] / true[true > 0]))


def _macro_f1(hits: Ints, named: Ints, true: Ints) -> float:
    """The mean over classes of 2 · hits / (named + true), 0 for one that is in neither."""
    return float(np.mean(2 * hits / np.maximum(named + true, 1)))


def _auc(positive: npt.NDArray[np.bool_], score: Floats) -> float:
    """The chance that a positive scores higher than a negative, ties counting half."""
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    n = int(positive.sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(score) - n)))
