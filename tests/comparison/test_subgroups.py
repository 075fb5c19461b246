"""P in groups of images, with numbers that one can check by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from made import DIGEST, accuracies, frame, run, worse_in

from pepr_mlops.comparison import Question, answer_text, compare
from pepr_mlops.comparison.answer import answer, choices
from pepr_mlops.comparison.predictions import OfSplit, Predictions
from pepr_mlops.comparison.sampling import Measured
from pepr_mlops.comparison.subgroups import COLUMNS, subgroups

ACCURACY = Measured.parse("test/accuracy")


def _named(right: Sequence[int], **groups: Sequence[str]) -> Predictions:
    """Predictions for images of class 0, each `right` or not."""
    chances = np.array([[0.9, 0.1] if r else [0.2, 0.8] for r in right])
    columns = {name: np.array(values) for name, values in groups.items()}
    split = OfSplit(np.zeros(len(right), int), chances, None, columns)
    return Predictions("binary-class", ("a", "b"), split, None, DIGEST)


SEX = ["f"] * 4 + ["m"] * 8


def test_each_group_has_p_and_how_far_it_is_behind() -> None:
    small = _named([1, 0, 0, 1] + [1] * 6 + [0] * 2, sex=SEX)
    large = _named([1, 1, 0, 1] + [1] * 6 + [0] * 2, sex=SEX)
    table = subgroups({"small": [small], "large": [large]}, "large", ACCURACY, draws=500)
    assert list(table.columns) == list(COLUMNS)
    by = table.set_index(["group", "value", "model"])
    assert by["n"].to_dict()["sex", "f", "small"] == 4
    assert by.loc[("sex", "f", "small"), "performance"] == 0.5
    assert by.loc[("sex", "f", "large"), "performance"] == 0.75
    assert by.loc[("sex", "f", "small"), "behind"] == 0.25
    assert by.loc[("sex", "f", "small"), "behind_low"] == pytest.approx(
        0.25 - 0.25 * np.sqrt(4 / 3)  # none of the 4 drawn differs; widened as n - 1 of n
    )
    assert by.loc[("sex", "m", "small"), "behind"] == 0.0  # the same images right: no interval
    assert np.isnan(by.loc[("sex", "m", "small"), "behind_low"])
    assert by["behind"].isna()[:, :, "large"].all()


def test_the_interval_is_the_binomial_one_and_of_patients_where_they_are_known() -> None:
    rng = np.random.default_rng(0)
    right = list((rng.random(400) < 0.8).astype(int))
    alone = _named(right, sex=["f"] * 400)
    table = subgroups({"a": [alone]}, "a", ACCURACY, draws=4000)
    p = np.mean(right)
    half = 1.96 * np.sqrt(p * (1 - p) / 399)
    (row,) = table.to_dict("records")
    assert (row["low"], row["high"]) == pytest.approx((p - half, p + half), abs=0.006)
    patients = [str(i // 4) for i in range(400)]
    twins = _named(np.repeat(right[:100], 4).tolist(), sex=["f"] * 400, patient=patients)
    (row,) = subgroups({"a": [twins]}, "a", ACCURACY, draws=4000).to_dict("records")
    p = np.mean(right[:100])
    half = 1.96 * np.sqrt(p * (1 - p) / 99)  # of 100 patients, not of 400 images
    assert (row["low"], row["high"]) == pytest.approx((p - half, p + half), abs=0.015)


def test_runs_are_averaged_and_a_metric_may_not_be_determined() -> None:
    runs = [_named([1, 1, 0, 0], sex=["f"] * 4), _named([1, 1, 1, 1], sex=["f"] * 4)]
    (row,) = subgroups({"a": runs}, "a", ACCURACY, draws=50).to_dict("records")
    assert row["performance"] == 0.75
    (row,) = subgroups({"a": runs}, "a", Measured.parse("test/auc"), draws=50).to_dict("records")
    assert np.isnan(row["performance"])
    assert row["missing"] == "these images do not determine it"


def test_what_only_some_runs_logged_or_has_many_values_is_no_group() -> None:
    many = [str(i) for i in range(21)]
    wide = _named([1, 0, 1] * 7, age=many, sex=["f"] * 21)
    other = _named([1, 0, 1] * 7, age=many)
    assert subgroups({"a": [wide], "b": [other]}, "a", ACCURACY, draws=50).empty
    assert set(subgroups({"a": [wide]}, "a", ACCURACY, draws=50)["group"]) == {"sex"}


def test_the_answer_warns_of_a_group_in_which_the_choice_is_worse() -> None:
    chosen = worse_in("f").answers["derma"]
    assert (chosen.choice, chosen.best) == ("small", "large")
    text = answer_text.subgroups(chosen)
    assert text is not None
    assert text.startswith(
        "In 1 of 2 subgroups small is worse than large by more than the margin: sex f (100 images) "
        "by 20.0 points (95%: 1"
    )
    assert text in answer_text.sentences(chosen)


def test_an_answer_without_predictions_has_no_subgroups() -> None:
    runs = frame([run("a", performance=0.9), run("b", energy_wh=10.0)])
    question = Question(draws=50)
    found = compare(runs, question, accuracies({"a": [1, 1, 0]}, sex=np.array(["f", "m", "m"])))
    table = answer(choices(found, question, "derma")).subgroups
    assert list(table.columns) == list(COLUMNS)
    assert table.empty
