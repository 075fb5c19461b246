"""The answer for a comparison set: planted winners, what decides, and what is said about it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made import frame, run

from pepr_mlops.comparison import Question, compare
from pepr_mlops.comparison.answer import Answer, Terms, answer, choices
from pepr_mlops.comparison.answer_text import sentences
from pepr_mlops.comparison.predictions import OfSplit, Predictions
from pepr_mlops.comparison.runs import Evidence
from pepr_mlops.errors import WrongUse

N = 4000  # images of each split


def _of_split(labels: np.ndarray, right: np.ndarray) -> OfSplit:
    named = np.where(right, labels, 1 - labels)
    return OfSplit(labels, np.eye(2)[named] * 0.8 + 0.1, np.arange(len(labels)))


def _study(
    models: dict[str, tuple[float, float, float]], *, seeds: int = 3, val: bool = True, n: int = N
) -> tuple[pd.DataFrame, Evidence]:
    """Models with their P on validation, P on the test set and energy in Wh; images that are hard
    for one are hard for all, and no seed differs by more than its images."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, n)
    hard = {"val": rng.random(n), "test": rng.random(n)}
    runs, predictions = [], {}
    for model, (on_val, on_test, energy_wh) in models.items():
        for seed in range(seeds):
            right = {
                split: np.where(rng.random(n) < 0.02, rng.random(n), hard[split]) < p
                for split, p in (("val", on_val), ("test", on_test))
            }
            made = Predictions(
                "binary-class",
                ("a", "b"),
                _of_split(labels, right["test"]),
                _of_split(labels, right["val"]) if val else None,
            )
            p = float(right["test"].mean())
            metrics = {"val/accuracy": float(right["val"].mean())} if val else {}
            predictions[f"run{len(runs)}"] = made
            runs.append(
                run(
                    *(model, seed),
                    performance=p,
                    energy_wh=energy_wh + 0.01 * (seed - 1),
                    train_time_s=100 + energy_wh + seed,
                    metrics=metrics,
                )
            )
    return frame(runs), Evidence(predictions=predictions)


PLANTED = {
    "dear": (0.900, 0.900, 100.0),
    "fair": (0.897, 0.897, 20.0),  # the cheapest within 0.02, with room
    "near": (0.880, 0.880, 15.0),  # just at the margin
    "poor": (0.850, 0.850, 5.0),
}


TERMS = Terms(0.02)


def _answer(study: tuple[pd.DataFrame, Evidence], terms: Terms = TERMS, **options: Any) -> Answer:
    runs, evidence = study
    question = Question(**options)
    comparison = compare(runs, question, evidence)
    return answer(choices(comparison, question, "derma", terms))


def test_the_planted_model_is_the_cheapest_good_enough_one() -> None:
    found = _answer(_study(PLANTED))
    assert (found.choice, found.best) == ("fair", "dear")
    assert found.of("good enough") == ["fair", "dear"]
    assert found.of("cannot tell") == ["near"]
    assert found.of("not good enough") == ["poor"]
    assert (found.split, found.decided_by, found.metric) == ("val", "val/accuracy", "test/accuracy")
    assert found.images == N
    saved = found.savings["E"]
    assert (saved.amount, saved.times) == pytest.approx((80, 5))
    assert saved.amount_low < 80 < saved.amount_high
    # R is 0 for poor, 15 / 95 for fair and 1 for dear; PePR chooses the cheapest at α = 1
    p, r = found.models.set_index("label")["performance"], found.models.set_index("label")["R"]
    low, high = found.agrees or (0, 0)
    expected = p["poor"] * r["fair"] / (p["fair"] - p["poor"])
    assert low == pytest.approx(expected, rel=1e-6)
    assert high > 100


def test_validation_decides_and_the_test_set_is_reported() -> None:
    study = _study({"a": (0.90, 0.80, 50.0), "b": (0.80, 0.90, 10.0)})
    on_val, on_test = (_answer(study, Terms(0.02, decide_on=s)) for s in ("val", "test"))
    assert (on_val.choice, on_test.choice) == ("a", "b")
    assert on_val.row("a")["decided"] == pytest.approx(0.90, abs=0.01)
    assert on_val.row("a")["performance"] == pytest.approx(0.80, abs=0.02)
    assert on_val.optimism is None
    assert "which is therefore too optimistic, by " in "\n".join(sentences(on_test))
    assert "Models are chosen by accuracy on validation (4,000 images)" in "\n".join(
        sentences(on_val)
    )


def test_without_predictions_for_validation_the_test_set_decides() -> None:
    clear = {name: PLANTED[name] for name in ("dear", "fair", "poor")}
    found = _answer(_study(clear, val=False))
    assert (found.split, found.choice) == ("test", "fair")
    with pytest.raises(WrongUse, match="decide_on: 12 of 12 runs have no val/accuracy"):
        _answer(_study(PLANTED, val=False), Terms(decide_on="val"))


def test_the_optimism_of_a_winner_of_equals_is_that_of_their_greatest() -> None:
    """Thirty models that are right by chance: the best of drawn images has nothing on others."""
    rng = np.random.default_rng(3)
    n, labels = 200, np.arange(200) % 2
    runs, predictions = [], {}
    for i in range(30):
        right = rng.random(n) < 0.7
        runs.append(run(f"m{i:02d}", performance=float(right.mean()), energy_wh=10.0 + i))
        predictions[f"run{i}"] = Predictions("binary-class", ("a", "b"), _of_split(labels, right))
    found = _answer((frame(runs), Evidence(predictions=predictions)), Terms(1e-6))
    # the greatest of 30 independent errors is 2.04 standard deviations above their mean
    assert found.optimism == pytest.approx(2.04 * np.sqrt(0.21 / n), abs=0.02)
    one = _answer(
        (frame(runs[:1]), Evidence(predictions={"run0": predictions["run0"]})), Terms(1e-6)
    )
    assert one.optimism == pytest.approx(0, abs=0.015)


def test_a_test_set_from_elsewhere_is_named() -> None:
    found = _answer(_study({"a": (0.80, 0.44, 50.0), "b": (0.79, 0.43, 10.0)}))
    assert found.shift is not None
    assert (found.shift.val, found.shift.test) == pytest.approx((0.795, 0.435), abs=0.02)
    assert "The test set seems to come from elsewhere" in "\n".join(sentences(found))
    alike = _answer(_study({"a": (0.80, 0.81, 50.0), "b": (0.79, 0.80, 10.0)}))
    assert alike.shift is None


def test_too_few_images_leave_it_open_and_name_what_can_be_shown() -> None:
    found = _answer(_study(PLANTED, n=100), Terms(0.005))
    assert found.choice is None
    text = "\n".join(sentences(found))
    assert (
        "good enough: at most 0.5 points below the best model in accuracy on validation, with 95%"
        in text
    )
    assert "With 100 images the margin would have to be at least " in text


def test_only_models_within_the_budgets_are_compared() -> None:
    runs, evidence = _study(PLANTED)
    question = Question()
    found = choices(compare(runs, question, evidence), question, "derma", Terms(0.02))
    within = answer(found, found.table[found.table["E"] <= 20])
    assert within.best == "fair"
    assert set(within.models["label"]) == {"fair", "near", "poor"}


def test_unknown_errors_leave_no_verdict() -> None:
    made = [run(m, tags={"pepr.test_images": None}) for m in ("a", "b")]
    question = Question()
    comparison = compare(frame(made), question)
    found = answer(choices(comparison, question, "derma"))
    assert found.choice is None
    assert sentences(found)[0].endswith("the error of accuracy is not known")


def test_doubtful_predictions_leave_the_model_without_an_interval() -> None:
    runs, evidence = _study(PLANTED)
    broken = replace(
        evidence.predictions["run0"],
        test=replace(evidence.predictions["run0"].test, probabilities=np.full((N, 2), 0.4)),
    )
    damaged = replace(evidence, predictions={**evidence.predictions, "run0": broken})
    found = compare(runs, Question(), damaged)
    rows = found.scores.set_index("model")
    assert rows.loc["dear", "codes"] == ["predictions"]
    assert rows.loc["dear", "no_interval"] == "doubtful predictions"
    assert np.isnan(rows.loc["dear", "p_low"])
    assert rows.loc["fair", "p_low"] < rows.loc["fair", "performance"]


def test_a_metric_that_is_better_when_lower_is_p_by_its_complement() -> None:
    runs, evidence = _study(PLANTED)
    runs["metrics.test/brier"] = 0.1
    runs["metrics.val/brier"] = 0.1
    found = _answer((runs, evidence), performance="test/brier")
    assert found.metric == "1 - test/brier"
    assert found.row("fair")["performance"] == pytest.approx(0.9)
    assert found.row("fair")["p_low"] < 0.9 < found.row("fair")["p_high"]
