"""Clinical metrics of models, against scikit-learn and numbers that one can check by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made import DIGEST
from sklearn import metrics as sklearn

from pepr_mlops.comparison import clinical
from pepr_mlops.comparison.predictions import OfSplit, Predictions


def _predictions(n: int, seed: int) -> Predictions:
    """Of `n` images of two classes, on validation and on the test set; the labels are the same for
    every seed."""
    splits = []
    for split in (0, 1):
        labels = np.random.default_rng(split).integers(0, 2, n)
        chance = np.clip(0.4 * labels + 0.6 * np.random.default_rng([seed, split]).random(n), 0, 1)
        splits.append(OfSplit(labels, np.column_stack([1 - chance, chance])))
    return Predictions("binary-class", ("healthy", "sick"), splits[1], splits[0], DIGEST)


def test_metrics_are_those_of_scikit_learn_averaged_over_runs() -> None:
    runs = [_predictions(300, 1), _predictions(300, 2)]
    table = clinical.table({"a": runs}, draws=50).set_index("metric")
    expected: dict[str, list[float]] = {}
    for run in runs:
        truth, chance = run.test.labels, run.test.probabilities[:, 1]
        assert run.thresholds is not None
        called = chance >= run.thresholds[0]
        for name, value in {
            "balanced_accuracy": sklearn.balanced_accuracy_score(truth, chance > 0.5),
            "auc": sklearn.roc_auc_score(truth, chance),
            "average_precision": sklearn.average_precision_score(truth, chance),
            "sensitivity": sklearn.recall_score(truth, called),
            "specificity": sklearn.recall_score(truth, called, pos_label=0),
            "brier": sklearn.brier_score_loss(truth, chance),
        }.items():
            expected.setdefault(name, []).append(value)
    means = {name: np.mean(values) for name, values in expected.items()}
    assert table["value"][list(means)].to_dict() == pytest.approx(means)
    ece = table.loc["ece"]
    assert np.isnan(ece["low"])
    assert ece["missing"] == "no interval: few images bias it upwards"
    table = table.drop("ece")
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()
    assert set(table["missing"]) == {""}


def test_the_interval_of_a_brier_score_is_that_of_a_mean() -> None:
    run = _predictions(2000, 1)
    squares = (run.test.probabilities[:, 1] - run.test.labels) ** 2
    row = clinical.table({"a": [run]}).set_index("metric").loc["brier"]
    half = 1.96 * squares.std(ddof=1) / np.sqrt(len(squares))
    assert row["high"] - row["low"] == pytest.approx(2 * half, rel=0.12)  # of 500 draws


def test_without_validation_there_is_no_threshold_and_the_table_says_so() -> None:
    with_val = _predictions(60, 1)
    table = clinical.table({"a": [replace(with_val, val=None)], "b": [with_val]}, draws=20)
    missing = table[table["value"].isna()]
    assert list(missing["metric"]) == ["sensitivity", "specificity"]
    assert set(missing["model"]) == {"a"}
    assert set(missing["missing"]) == {clinical.NO_THRESHOLD}


def test_a_metric_that_the_test_set_does_not_determine_is_missing_with_a_reason() -> None:
    healthy = OfSplit(np.zeros(4, int), np.array([[0.9, 0.1]] * 4))
    run = Predictions("binary-class", ("healthy", "sick"), healthy)
    by = clinical.table({"a": [run]}, draws=20).set_index("metric")
    assert by.loc["auc", "missing"] == "a class has no test images"
    assert by.loc["brier", "value"] == pytest.approx(0.01)
    assert by.loc["brier", "missing"] == "no interval: no draw of the images changes it"


def test_runs_share_one_reliability_curve() -> None:
    chances = np.array([[0.1, 0.9], [0.1, 0.9], [0.6, 0.4], [0.6, 0.4]])
    one = Predictions("binary-class", ("a", "b"), OfSplit(np.array([1, 0, 0, 0]), chances))
    other = Predictions("binary-class", ("a", "b"), OfSplit(np.array([1, 1, 1, 0]), chances))
    curve = clinical.curves({"a": [one, other]})
    assert curve["confidence"].tolist() == pytest.approx([0.6, 0.9])
    assert curve["accuracy"].tolist() == [0.75, 0.75]
    assert curve["images"].tolist() == [2, 2]
