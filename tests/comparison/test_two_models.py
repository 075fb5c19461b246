"""McNemar's and DeLong's tests against independent computations, and what two models are tested
on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made import DIGEST, frame, run
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_of_statsmodels

from pepr_mlops.comparison import Question, compare
from pepr_mlops.comparison.metrics import METRICS, Predicted, images_right
from pepr_mlops.comparison.predictions import OfSplit, Predictions
from pepr_mlops.comparison.runs import Evidence
from pepr_mlops.comparison.two_models import (
    APPROXIMATE,
    COLUMNS,
    PAIRED,
    UNPAIRED,
    compared,
    delong,
    mcnemar,
)
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.names import PATIENT

QUESTION = Question(mixed="stratify", draws=4000)


@pytest.mark.parametrize(("n10", "n01"), [(0, 0), (1, 0), (3, 9), (12, 12), (40, 71)])
def test_mcnemar_agrees_with_scipy_and_statsmodels(n10: int, n01: int) -> None:
    a = np.repeat([True, False, True, False], [n10, n01, 20, 5])
    b = np.repeat([False, True, True, False], [n10, n01, 20, 5])
    found = mcnemar(a, b)
    assert (found.images, found.n10, found.n01) == (n10 + n01 + 25, n10, n01)
    if n10 + n01:
        assert found.p == pytest.approx(stats.binomtest(n10, n10 + n01).pvalue, abs=1e-9)
        theirs = mcnemar_of_statsmodels([[20, n10], [n01, 5]], exact=True)
        assert found.p == pytest.approx(theirs.pvalue, abs=1e-9)
    else:
        assert found.p == 1


def _binary(labels: np.ndarray, positive: np.ndarray) -> Predicted:
    return Predicted(labels, np.stack([1 - positive, positive], axis=1), "binary-class")


def _by_pairs(labels: np.ndarray, scores: list[np.ndarray]) -> tuple[float, float, float]:
    """E. R. DeLong et al. 1988, each positive image against each negative one: both AUCs and the
    variance of their difference."""
    areas, v10, v01 = [], [], []
    for score in scores:
        x, y = score[labels == 1], score[labels == 0]
        kernel = np.array([[float(a > b) + 0.5 * float(a == b) for b in y] for a in x])
        areas.append(kernel.mean())
        v10.append(kernel.mean(axis=1))
        v01.append(kernel.mean(axis=0))
    s = np.cov(v10) / len(v10[0]) + np.cov(v01) / len(v01[0])
    return areas[0], areas[1], s[0, 0] + s[1, 1] - 2 * s[0, 1]


@pytest.mark.parametrize("decimals", [9, 1])  # without ties, and with many
def test_delong_agrees_with_a_count_of_all_pairs(decimals: int) -> None:
    rng = np.random.default_rng(3)
    labels = (rng.random(90) < 0.3).astype(int)
    common = rng.random(90) + 0.4 * labels
    scores = [((common + rng.random(90)) / 2.4).round(decimals) for _ in range(2)]
    first, second, variance = _by_pairs(labels, scores)
    found = delong(*(_binary(labels, score) for score in scores))
    assert found is not None
    z = (first - second) / np.sqrt(variance)
    expected = (first, second, np.sqrt(variance), z, 2 * stats.norm.sf(abs(z)))
    assert (found.a, found.b, found.error, found.z, found.p) == pytest.approx(expected, abs=1e-9)


def test_delong_of_several_classes_has_the_variance_of_the_bootstrap() -> None:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, 400)
    predicted = []
    for _ in range(2):
        chances = rng.random((400, 3)) + 0.5 * np.eye(3)[labels]
        predicted.append(Predicted(labels, chances / chances.sum(axis=1)[:, None], "multi-class"))
    found = delong(*predicted)
    assert found is not None
    weights = rng.multinomial(400, np.full(400, 1 / 400), size=4000).astype(float)
    one, two = (METRICS["auc"](p) for p in predicted)
    assert one is not None
    assert two is not None
    assert found.error == pytest.approx((one(weights) - two(weights)).std(), rel=0.05)


def test_delong_says_nothing_where_nothing_varies() -> None:
    labels, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.3, 0.9])
    same = delong(_binary(labels, scores), _binary(labels, scores))
    assert same is not None
    assert np.isnan(same.p)
    single = delong(_binary(labels[:3], scores[:3]), _binary(labels[:3], scores[:3][::-1]))
    assert single is not None
    assert np.isnan(single.p)  # one positive image has no variance
    assert delong(_binary(labels * 0, scores), _binary(labels * 0, scores)) is None


def test_shares_of_images_are_known_by_image() -> None:
    labels = np.array([0, 1, 1, 0])
    predicted = replace(_binary(labels, np.array([0.2, 0.9, 0.3, 0.8])), thresholds=np.array([0.5]))
    for name, right in (
        ("accuracy", [True, True, False, False]),
        ("sensitivity", [True, False]),
        ("specificity", [True, False]),
    ):
        found = images_right(name, predicted)
        assert found is not None
        assert found.tolist() == right
    assert images_right("balanced_accuracy", predicted) is None
    several = Predicted(np.eye(2, dtype=int), np.array([[0.9, 0.8], [0.1, 0.9]]), predicted.task)
    assert images_right("accuracy", replace(several, task="multi-label, binary-class")) is None


# Which rows there are --------------------------------------------------------------------------


def _predictions(right: np.ndarray, patients: bool = False, images: int = 0) -> Predictions:
    n = len(right)
    labels = np.arange(n) % 2
    chances = np.where(right, 0.6, 0.4) + np.linspace(0, 0.3, n) * np.where(right, 1, -1)
    positive = np.where(labels == 1, chances, 1 - chances)
    groups = {PATIENT: np.array([str(i // 2) for i in range(n)])} if patients else {}
    of_test = OfSplit(
        labels, np.stack([1 - positive, positive], axis=1), np.arange(images, images + n), groups
    )
    return Predictions("binary-class", ("a", "b"), of_test, None, DIGEST)


def _study(
    wrong: dict[tuple[str, int], slice], **changed: Any
) -> tuple[pd.DataFrame, dict[str, Predictions]]:
    """Runs by model and seed, each wrong on some of 200 images, and their predictions."""
    runs, predictions = [], {}
    for i, ((model, seed), where) in enumerate(wrong.items()):
        right = np.ones(200, dtype=bool)
        right[where] = False
        runs.append(run(model, seed, performance=float(right.mean()), energy_wh=10.0 + i))
        predictions[f"run{i}"] = _predictions(right, **changed)
    return frame(runs), predictions


WRONG = {
    ("good", 0): slice(0, 20),
    ("good", 1): slice(0, 22),
    ("bad", 0): slice(10, 60),
    ("bad", 1): slice(12, 60),
    ("bad", 2): slice(10, 64),
}


def _compared(
    runs: pd.DataFrame, predictions: dict[str, Predictions], a: str = "good", b: str = "bad"
) -> tuple[pd.DataFrame, list[str]]:
    found = compare(runs, QUESTION, Evidence(predictions=predictions))
    return compared(found, QUESTION, a, b)


def test_two_models_are_tested_over_all_runs_and_seed_by_seed() -> None:
    table, notes = _compared(*_study(WRONG))
    assert list(table.columns) == COLUMNS
    assert table["test"].tolist() == [PAIRED, *["McNemar", "DeLong"] * 2]
    assert table["seed"].tolist() == [None, 0, 0, 1, 1]
    over, first = table.iloc[0], table.iloc[1]
    assert over[["quantity", "n_a", "n_b", "images"]].tolist() == ["test/accuracy", 2, 3, 200]
    assert over["difference"] == pytest.approx(0.895 - (0.75 + 0.76 + 0.73) / 3)
    assert over["low"] < over["difference"] < over["high"]
    assert over["p"] < 0.005
    assert first[["n10", "n01", "mean_a", "mean_b"]].tolist() == [40, 10, 0.9, 0.75]
    assert first["difference"] == pytest.approx(0.15)
    assert first["p"] == pytest.approx(stats.binomtest(10, 50).pvalue)
    p = table.loc[table["test"] == "McNemar"].sort_values("p")
    assert p["p_holm"].iloc[0] == pytest.approx(2 * p["p"].iloc[0])
    assert table["quantity"].tolist()[2] == "test/auc"
    assert any("the row to cite is the paired bootstrap" in note for note in notes)
    assert not any("patient" in note for note in notes)
    back = _compared(*_study(WRONG), "bad", "good")[0].iloc[0]
    assert (back["difference"], back["low"]) == pytest.approx((-over["difference"], -over["high"]))


def test_the_interval_is_that_of_the_images_both_share() -> None:
    """Of one run each and no spread between runs: the bootstrap of McNemar's table."""
    runs, predictions = _study({("good", 0): slice(0, 20), ("bad", 0): slice(10, 40)})
    question = replace(QUESTION, seed_sd=0.0)
    found = compare(runs, question, Evidence(predictions=predictions))
    over = compared(found, question, "good", "bad")[0].iloc[0]
    # 20 images speak for `good` and 10 for `bad`
    error = np.sqrt((30 / 200 - 0.05**2) / 200)
    assert over[["low", "high"]].tolist() == pytest.approx(
        [0.05 - 1.96 * error, 0.05 + 1.96 * error], abs=0.004
    )
    assert over["p"] == pytest.approx(2 * stats.norm.sf(0.05 / error), rel=0.25)


def test_p_is_at_least_one_draw() -> None:
    runs, predictions = _study({("good", 0): slice(0, 5), ("bad", 0): slice(0, 100)})
    question = replace(QUESTION, seed_sd=0.0)
    found = compare(runs, question, Evidence(predictions=predictions))
    assert compared(found, question, "good", "bad")[0].iloc[0]["p"] == 1 / question.draws


def test_equal_models_do_not_differ() -> None:
    runs, predictions = _study({("good", 0): slice(0, 20), ("bad", 0): slice(0, 20)})
    question = replace(QUESTION, seed_sd=0.0)
    found = compare(runs, question, Evidence(predictions=predictions))
    table, _ = compared(found, question, "good", "bad")
    assert table["p"].tolist() == pytest.approx([1, 1, np.nan], nan_ok=True)


def test_images_of_one_patient_are_named() -> None:
    notes = _compared(*_study(WRONG, patients=True))[1]
    assert any("some are of one patient; the paired bootstrap draws patients" in n for n in notes)


def test_without_predictions_the_row_is_approximate() -> None:
    runs, predictions = _study(WRONG)
    table, notes = _compared(runs, {})
    assert table["test"].tolist() == [APPROXIMATE]
    assert table["images"].tolist() == [500]
    assert any(
        "no paired test is possible: 5 of 5 runs of good and bad have no" in n for n in notes
    )
    some = {run: predictions[run] for run in ("run0", "run1")}
    table, notes = _compared(runs, some)
    assert table["test"].tolist() == [APPROXIMATE]
    assert any("3 of 5 runs of good and bad have no predictions" in n for n in notes)


def test_a_run_without_predictions_leaves_the_others_paired() -> None:
    runs, predictions = _study(WRONG)
    del predictions["run4"]  # the third seed of `bad`
    table, notes = _compared(runs, predictions)
    assert table["test"].tolist() == [PAIRED, *["McNemar", "DeLong"] * 2]
    assert not any("no paired test is possible" in note for note in notes)


def test_where_the_error_is_not_known_there_is_no_p() -> None:
    runs = frame(
        [
            run(m, performance=p, tags={"pepr.test_images": None})
            for m, p in [("a", 0.8), ("b", 0.7)]
        ]
    )
    (row,) = _compared(runs, {}, "a", "b")[0].to_dict("records")
    assert row["difference"] == pytest.approx(0.1)
    assert np.isnan([row["p"], row["p_holm"], row["low"], row["high"]]).all()


def test_models_without_common_images_are_not_paired() -> None:
    runs, predictions = _study({("good", 0): slice(0, 20), ("bad", 1): slice(10, 40)})
    predictions["run1"] = _predictions(
        predictions["run1"].test.probabilities.argmax(axis=1) == np.arange(200) % 2, images=500
    )
    table, notes = _compared(runs, predictions)
    assert table["test"].tolist() == [UNPAIRED]
    assert any("have no test images in common" in note for note in notes)


def test_unknown_models_and_those_that_meet_nowhere_are_refused() -> None:
    runs = frame(
        [
            run("good"),
            run("broken", status="FAILED"),
            run("bad", epochs=3),
        ]
    )
    with pytest.raises(WrongUse, match=r"no run is of 'god'; did you mean 'good'\? There are: bad"):
        _compared(runs, {}, "god", "bad")
    with pytest.raises(WorkFailed, match="good and bad are in no comparison set together"):
        _compared(runs, {})
    with pytest.raises(WorkFailed, match="no run of broken can be compared"):
        _compared(runs, {}, "good", "broken")
    twice = frame([run("good"), run("good", pretrained=False), run("bad")])
    question = Question(mixed="allow")
    with pytest.raises(WrongUse, match="has several rows of good"):
        compared(compare(twice, question), question, "good", "bad")
