"""Logged predictions that contradict their run, or are of other images than those of others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made import DIGEST, frame, run

from pepr_mlops.comparison import Question, compare
from pepr_mlops.comparison.checks import FLAGS, flagged
from pepr_mlops.comparison.metrics import value
from pepr_mlops.comparison.prediction_checks import contradictions
from pepr_mlops.comparison.predictions import PATIENT, OfSplit, Predictions
from pepr_mlops.comparison.runs import Evidence
from pepr_mlops.names import MULTI_LABEL

N = 30


def _predictions(right: int = 24, n: int = N, **changed: Any) -> Predictions:
    """Of `n` images of three classes, of which `right` are named right."""
    labels = np.arange(n) % 3
    named = np.where(np.arange(n) < right, labels, (labels + 1) % 3)
    chances = np.full((n, 3), 0.2)
    chances[np.arange(n), named] = 0.6
    files = np.array([f"{i}.png" for i in range(n)])
    made = Predictions("multi-class", ("a", "b", "c"), OfSplit(labels, chances, files))
    return replace(made, **{"data_digest": DIGEST, **changed})


def _test(made: Predictions, **changed: Any) -> Predictions:
    return replace(made, test=replace(made.test, **changed))


def _found(runs: pd.DataFrame, logged: Mapping[str, Predictions | str]) -> dict[str, str]:
    evidence = Evidence(predictions=logged)
    found = flagged(runs, ["memory_gb"], evidence)
    found = found[found["reason"] == "predictions"]
    flags = dict(zip(found["run_id"], found["text"], strict=True))
    assert contradictions(runs, evidence).keys() == flags.keys()
    return flags


def _runs(*counts: int, n: int = N, **changed: Any) -> pd.DataFrame:
    made = [run(f"m{i}", performance=c / n, **changed) for i, c in enumerate(counts)]
    return frame(made)


GOOD = _predictions()


@pytest.mark.parametrize(
    ("logged", "text"),
    [
        ("its predictions cannot be read (BadZipFile)",) * 2,
        (
            _test(GOOD, probabilities=GOOD.test.probabilities * np.nan),
            f"its test predictions are not finite for {N} images",
        ),
        (
            _test(GOOD, probabilities=GOOD.test.probabilities / 2),
            f"its test predictions do not sum to 1 for {N} of {N} images",
        ),
        (
            _test(GOOD, probabilities=GOOD.test.probabilities[1:]),
            f"its test predictions have {N - 1} rows for {N} labels",
        ),
        (
            _test(GOOD, groups={"\x1b": np.array(["f"])}),
            rf"its test predictions have 1 values of \x1b for {N} labels",
        ),
        (
            replace(GOOD, data_digest="\x1bfeed"),
            rf"its predictions are of other data (digest \x1bfeed, not {DIGEST})",
        ),
        (
            _predictions(25),
            "its predictions give test/accuracy 0.833333, and it logged 0.8",
        ),
    ],
)
def test_a_run_whose_predictions_are_not_its_own(logged: Predictions | str, text: str) -> None:
    assert _found(_runs(24, 24), {"run0": logged, "run1": GOOD}) == {"run0": text}


def test_sound_predictions_are_not_flagged_and_may_be_missing() -> None:
    assert _found(_runs(24, 20, 7), {"run0": GOOD, "run1": _predictions(20)}) == {}
    assert _found(_runs(24), {}) == {}
    assert _found(_runs(24), {"elsewhere": "is damaged"}) == {}
    earlier = replace(GOOD, data_digest=None)
    assert _found(_runs(24), {"run0": earlier}) == {}
    unknown = frame([run(performance=0.1, metrics={"test/accuracy": None})])
    assert _found(unknown, {"run0": GOOD}) == {}


def test_two_models_whose_predictions_were_swapped() -> None:
    swapped = {"run0": _predictions(20), "run1": _predictions(24)}
    assert _found(_runs(24, 20), swapped) == {
        "run0": "its predictions give test/accuracy 0.666667, and it logged 0.8",
        "run1": "its predictions give test/accuracy 0.8, and it logged 0.666667",
    }


def test_an_accuracy_as_32_bits_is_the_same_and_one_label_of_many_is_another() -> None:
    n = 300_000
    made = Predictions(
        MULTI_LABEL,
        ("a", "b", "c"),
        OfSplit(np.zeros((n, 3), int), np.where(np.arange(n * 3) < 7, 0.9, 0.1).reshape(n, 3)),
    )
    exact = 1 - 7 / (n * 3)
    for accuracy, flags in ((exact, 0), (float(np.float32(exact)), 0), (exact - 1 / (n * 3), 1)):
        runs = frame([run(performance=accuracy)])
        assert len(_found(runs, {"run0": made})) == flags


def test_another_number_of_test_images() -> None:
    logged = {"run0": GOOD, "run1": GOOD, "run2": _predictions(20, 25)}
    assert _found(_runs(24, 24, 24), logged) == {
        "run2": "has 25 test images, the other runs on its data 30"
    }
    # of two nobody knows which is right, and other data have images of their own
    assert _found(_runs(24, 24), {"run0": GOOD, "run1": _predictions(20, 25)}) == {}
    feed = {"tags": {"pepr.data_digest": "feed"}}
    runs = frame([run("a"), run("b"), run("c", **feed)])
    logged["run2"] = _predictions(20, 25, data_digest="feed")
    assert _found(runs, logged) == {}


def test_other_test_images() -> None:
    others = _test(GOOD, images=GOOD.test.images[::-1])
    logged = {"run0": GOOD, "run1": GOOD, "run2": others}
    assert _found(_runs(24, 24, 24), logged) == {
        "run2": "its test images are others than those of the other runs"
    }
    seeds = frame([run("a"), run("b"), run("a", seed=1)])  # which may draw its own
    assert _found(seeds, logged) == {}


def test_what_an_earlier_version_did_not_log_is_no_other_test_set() -> None:
    patients = _test(GOOD, groups={PATIENT: np.array([str(i // 2) for i in range(N)])})
    logged = {"run0": GOOD, "run1": GOOD, "run2": patients, "run3": _test(GOOD, images=None)}
    assert _found(_runs(24, 24, 24, 24), logged) == {}


def test_they_can_be_dropped() -> None:
    evidence = Evidence(predictions={"run1": "its predictions cannot be read"})
    question = Question(resources=("M",), drop=("predictions",), draws=0)
    found = compare(_runs(24, 24, 24), question, evidence).runs
    assert "predictions" in FLAGS
    assert found["reasons"].tolist() == [[], ["dropped: its predictions cannot be read"], []]


def test_a_network_that_names_one_class_is_flagged() -> None:
    chances = np.tile([0.5, 0.3, 0.2], (N, 1))
    evidence = Evidence(predictions={"run0": _test(GOOD, probabilities=chances), "run1": GOOD})
    found = flagged(_runs(10, 24), ["memory_gb"], evidence)
    (flag,) = found[found["reason"] == "one_class"].to_dict("records")
    assert (flag["run_id"], flag["text"]) == ("run0", f"it names a for each of {N} test images")


def test_swapped_predictions_of_equal_accuracy_differ_by_their_auc() -> None:
    sharper = GOOD.test.probabilities.copy()
    sharper[0] = [0.34, 0.33, 0.33]  # still named right
    made = {"run0": GOOD, "run1": _test(GOOD, probabilities=sharper)}
    aucs = [value("auc", one.of("test")) for one in made.values()]
    assert aucs[0] != aucs[1]
    runs = _runs(24, 24).assign(**{"metrics.test/auc": aucs})
    assert _found(runs, made) == {}
    swapped = {"run0": made["run1"], "run1": made["run0"]}
    text = f"its predictions give test/auc {aucs[1]:.6g}, and it logged {aucs[0]:.6g}"
    assert _found(runs, swapped)["run0"] == text
