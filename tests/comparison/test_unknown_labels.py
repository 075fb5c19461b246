"""Labels of -1 are not known: no metric counts them, as scikit-learn without these entries."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from sklearn import metrics

from pepr_mlops.comparison.draws import by_images
from pepr_mlops.comparison.metrics import (
    METRICS,
    Predicted,
    confusion,
    images_right,
    reliability,
    scores,
    thresholds_of,
    value,
)
from pepr_mlops.comparison.predictions import OfSplit, Predictions
from pepr_mlops.comparison.sampling import Measured
from pepr_mlops.comparison.two_models import delong
from pepr_mlops.names import MULTI_LABEL

NAMES = ("edema", "fracture", "nodule")


def _made(seed: int = 0, n: int = 60, unknown: float = 0.3) -> Predicted:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (n, len(NAMES)))
    chances = np.clip(0.3 * labels + 0.7 * rng.random(labels.shape), 0, 1)
    labels[rng.random(labels.shape) < unknown] = -1
    labels[-1] = -1  # an image without any known label
    predicted = Predicted(labels, chances, MULTI_LABEL)
    return Predicted(labels, chances, MULTI_LABEL, thresholds_of(predicted))


def _by_label(predicted: Predicted, of_label: Callable[..., float]) -> float:
    """The mean over the labels of a metric of the known entries of each."""
    found = []
    for label, chance in zip(predicted.labels.T, predicted.probabilities.T, strict=True):
        found.append(of_label(label[label >= 0], chance[label >= 0]))
    return float(np.mean(found))


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_the_known_entries(seed: int) -> None:
    predicted = _made(seed)
    found = scores(predicted.labels, predicted.probabilities, MULTI_LABEL)
    known = predicted.labels >= 0
    right = metrics.accuracy_score(predicted.labels[known], predicted.probabilities[known] > 0.5)
    expected = {
        "accuracy": right,
        "balanced_accuracy": _by_label(
            predicted, lambda y, p: metrics.balanced_accuracy_score(y, p > 0.5)
        ),
        "macro_f1": _by_label(predicted, lambda y, p: metrics.f1_score(y, p > 0.5)),
        "auc": _by_label(predicted, metrics.roc_auc_score),
    }
    assert found == pytest.approx(expected, abs=1e-12)


def test_clinical_metrics_are_those_of_the_known_entries() -> None:
    predicted = _made()
    known = predicted.labels >= 0
    y, p = predicted.labels[known], predicted.probabilities[known]
    assert value("brier", predicted) == pytest.approx(metrics.brier_score_loss(y, p), abs=1e-12)
    precision = _by_label(predicted, metrics.average_precision_score)
    assert value("average_precision", predicted) == pytest.approx(precision, abs=1e-12)
    assert predicted.thresholds is not None
    called = predicted.probabilities >= predicted.thresholds
    for name, kind in (("sensitivity", 1), ("specificity", 0)):
        recalls = [
            metrics.recall_score(
                predicted.labels[known[:, j], j], called[known[:, j], j], pos_label=kind
            )
            for j in range(len(NAMES))
        ]
        assert value(name, predicted) == pytest.approx(np.mean(recalls), abs=1e-12)


def test_an_entry_that_is_not_known_changes_no_metric_whatever_was_predicted() -> None:
    predicted = _made()
    changed = np.where(predicted.labels >= 0, predicted.probabilities, 1 - predicted.probabilities)
    other = Predicted(predicted.labels, changed, MULTI_LABEL, predicted.thresholds)
    assert thresholds_of(other) == pytest.approx(predicted.thresholds)
    for name in METRICS:
        assert value(name, other) == pytest.approx(value(name, predicted), abs=1e-12), name
    assert reliability(other).count.tolist() == reliability(predicted).count.tolist()
    assert reliability(predicted).count.sum() == (predicted.labels >= 0).sum()


def test_weights_count_an_image_as_often_as_it_is_there() -> None:
    """A draw of the bootstrap gives the metric of the images that it drew."""
    predicted = _made()
    times = np.random.default_rng(1).integers(0, 4, len(predicted.labels))
    drawn = np.repeat(np.arange(len(times)), times)
    labels, chances = predicted.labels[drawn], predicted.probabilities[drawn]
    there = Predicted(labels, chances, MULTI_LABEL, predicted.thresholds)
    for name in set(METRICS) - {"auc"}:  # which is linear in the weights
        weighted = METRICS[name](predicted)
        assert weighted is not None
        found = weighted(times[None].astype(float))[0]
        assert found == pytest.approx(value(name, there), abs=1e-12), name


def test_counts_of_outcomes_leave_out_what_is_not_known() -> None:
    labels = np.array([[1, -1], [0, 1], [-1, 0], [1, 0]])
    chances = np.array([[0.9, 0.9], [0.8, 0.8], [0.9, 0.1], [0.2, 0.7]])
    found = confusion(labels, chances, MULTI_LABEL)
    assert found.tolist() == [[0, 1, 1, 1], [1, 1, 0, 1]]  # per label: tn, fp, fn, tp
    assert images_right("accuracy", Predicted(labels, chances, MULTI_LABEL)) is None


def test_predictions_with_labels_that_are_not_known_are_valid_and_have_intervals() -> None:
    predicted = _made()
    split = OfSplit(predicted.labels, predicted.probabilities)
    run = Predictions(MULTI_LABEL, NAMES, split, split)
    assert run.fault() is None
    for name in ("accuracy", "auc", "brier"):
        sample = Measured(False, "test", name).sample(run)
        assert sample is not None
        values, errors = by_images([sample], 200, 0)
        assert values[0] == pytest.approx(value(name, predicted))
        assert 0.005 < errors.std() < 0.1
    one_class = OfSplit(np.array([0, -1]), np.array([[0.5, 0.5], [0.5, 0.5]]))
    fault = Predictions("binary-class", ("no", "yes"), one_class).fault()
    assert fault == "its test predictions have a label that is no class"


def test_delongs_test_of_one_label_is_that_of_the_images_where_it_is_known() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, (80, 1))
    here = rng.random(80) < 0.7
    first, second = (0.4 * labels + rng.random((80, 1)) for _ in range(2))
    masked = np.where(here[:, None], labels, -1)
    all_images = [Predicted(masked, chances / 2, MULTI_LABEL) for chances in (first, second)]
    known = [Predicted(labels[here], c[here] / 2, MULTI_LABEL) for c in (first, second)]
    found, expected = delong(*all_images), delong(*known)
    assert found is not None
    assert expected is not None
    assert (found.a, found.error, found.p) == pytest.approx(
        (expected.a, expected.error, expected.p), rel=1e-12
    )


def test_a_label_that_is_known_of_no_image_is_left_out() -> None:
    made = _made()
    labels = made.labels.copy()
    labels[:, 1] = -1
    rest = Predicted(labels[:, ::2], made.probabilities[:, ::2], MULTI_LABEL)
    unknown = Predicted(labels, made.probabilities, MULTI_LABEL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("balanced_accuracy", "macro_f1"):
            assert value(name, unknown) == pytest.approx(value(name, rest), abs=1e-12)
        weights = np.random.default_rng(0).multinomial(60, np.full(60, 1 / 60), size=4)
        by_draw = METRICS["macro_f1"](unknown), METRICS["macro_f1"](rest)
        first, second = (of(weights.astype(float)) for of in by_draw if of is not None)
        assert first == pytest.approx(second, abs=1e-12)
    # known, and nobody has or gets it: 0, as scikit-learn has it
    labels[:, 1] = np.where(np.arange(60) < 9, 0, -1)
    chances = made.probabilities.copy()
    chances[:, 1] = 0.1
    found = value("macro_f1", Predicted(labels, chances, MULTI_LABEL))
    expected = _by_label(
        Predicted(labels, chances, MULTI_LABEL),
        lambda y, p: metrics.f1_score(y, p > 0.5, zero_division=0.0),
    )
    assert found == pytest.approx(expected, abs=1e-12)
    assert found == pytest.approx(2 / 3 * (value("macro_f1", rest) or 0.0))
