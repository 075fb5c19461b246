"""The folds of a cross-validation as one run: numbers counted by hand and by scikit-learn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made import DIGEST, frame, material, run
from sklearn.metrics import roc_auc_score

from pepr_mlops.comparison import Question, compare, inspect
from pepr_mlops.comparison.answer import Terms, answer, choices
from pepr_mlops.comparison.answer_text import sentences
from pepr_mlops.comparison.conditions import where
from pepr_mlops.comparison.metrics import thresholds_of, value
from pepr_mlops.comparison.predictions import OfSplit, Predictions
from pepr_mlops.comparison.repeats import spread_between, unrepeated
from pepr_mlops.comparison.runs import Evidence
from pepr_mlops.comparison.spread import ASSUMED
from pepr_mlops.comparison.two_models import compared
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.names import PATIENT
from pepr_mlops.report.figures.curves import so_far
from pepr_mlops.tracking.score_tags import changed_scores

AUC = {"pepr.performance": "test/auc"}
# by fold: the labels of the test images and the probabilities of the second class
LABELS = [np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]), np.array([1, 0])]
CHANCES = [np.array([0.1, 0.2, 0.3, 0.55]), np.array([0.5, 0.7, 0.6, 0.8]), np.array([0.9, 0.45])]
ALL_LABELS, ALL_CHANCES = np.concatenate(LABELS), np.concatenate(CHANCES)


def _split(fold: int, shift: float = 0.0) -> OfSplit:
    """The images of a part of the data set, two of each patient."""
    labels, chances = LABELS[fold], CHANCES[fold] - shift
    places = [f"{fold}-{i}" for i in range(len(labels))]
    patients = np.array([f"{fold}p{i // 2}" for i in range(len(labels))])
    both = np.column_stack([1 - chances, chances])
    return OfSplit(labels, both, np.array(places), {PATIENT: patients})


def _predictions(fold: int, shift: float = 0.0) -> Predictions:
    """Those of fold 1, 2 or 3, whose validation is the test of the next."""
    test, val = _split(fold - 1, shift), _split(fold % 3, shift)
    return Predictions("binary-class", ("a", "b"), test, val, DIGEST)


def _logged(predictions: Predictions, metrics: tuple[str, ...]) -> dict[str, float | None]:
    return {
        f"{split}/{name}": value(name, predictions.of(split))
        for split in ("test", "val")
        for name in metrics
    }


def _fold(fold: int, model: str = "a", seed: int = 0, **changed: Any) -> dict[str, Any]:
    """A run of fold 1, 2 or 3, which costs 10 Wh, 100 s and 1 GB times its number and `size`."""
    tags = {**AUC, "pepr.test_images": str(len(LABELS[fold - 1])), **changed.pop("tags", {})}
    logged = _logged(_predictions(fold, changed.pop("shift", 0.0)), ("accuracy", "auc"))
    size = changed.pop("size", 1.0) * fold
    costs = {"energy_wh": 10 * size, "train_time_s": 100 * size, "memory_gb": size}
    given = {"performance": logged["test/auc"], **costs, **changed}
    metrics = {**logged, "energy/eval_wh": 0.5, "time/images_per_s": 9.0 * fold}
    metrics |= given.pop("metrics", {})
    start = given.pop("start", 1_790_000_000_000 + fold)
    return run(model, seed, folds=3, fold=fold, tags=tags, metrics=metrics, start=start, **given)


def _folds(**changed: Any) -> list[dict[str, Any]]:
    return [_fold(k, **changed) for k in (1, 2, 3)]


def _evidence(*made: dict[str, Any], shift: float = 0.0) -> Evidence:
    """The predictions of run0, run1, … by the fold of each."""
    folds = [int(one["params"]["fold"]) for one in made]
    return Evidence(
        predictions={f"run{i}": _predictions(fold, shift) for i, fold in enumerate(folds)}
    )


COSTS = Question(resources=("E", "T", "M", "energy/eval_wh"), draws=0)


def test_folds_are_one_run_with_p_of_all_images_the_sum_of_costs_and_the_most_memory() -> None:
    made = [*_folds(model="a"), *_folds(model="b", size=0.7)]
    found = compare(frame(made), COSTS, _evidence(*made))
    of_a = found.used[found.used["model"] == "a"].iloc[0]
    pooled = roc_auc_score(ALL_LABELS, ALL_CHANCES)
    assert of_a["performance"] == pytest.approx(pooled)
    each = [roc_auc_score(*fold) for fold in zip(LABELS, CHANCES, strict=True)]
    # 19 of 25 pairs are in order, and in the folds 3 of 4, 3 of 4 and 1 of 1
    assert (pooled, np.mean(each)) == pytest.approx((0.76, 2.5 / 3))
    # 10 + 20 + 30 Wh, 100 + 200 + 300 s, the most of 1, 2 and 3 GB
    assert (of_a["energy_wh"], of_a["train_time_s"], of_a["memory_gb"]) == (60, 600, 3)
    assert of_a["metrics.energy/train_wh"] == 60
    assert of_a["metrics.energy/eval_wh"] == 1.5
    assert np.isnan(of_a["metrics.time/images_per_s"])  # a rate does not add up
    assert of_a["test_images"] == 10
    right = (ALL_CHANCES > 0.5) == ALL_LABELS
    assert of_a["metrics.test/accuracy"] == pytest.approx(right.mean())
    assert of_a["run_id"] == "run0"
    assert of_a["fold_runs"] == "run0 run1 run2"
    assert pd.isna(of_a["fold"])
    energies = found.costs[found.costs["resource"] == "E"].set_index("model")["cost"]
    assert energies.to_dict() == {"a": 60, "b": pytest.approx(42)}
    assert found.scores["n"].tolist() == [1] * 8
    assert found.runs["used"].all()
    assert found.sets["runs"].tolist() == [6]
    assert found.known.predictions["run0"].test.clusters.max() == 4  # 5 patients
    assert any("6 of 6 runs are folds" in note for note in found.notes)


def test_validation_of_all_folds_is_pooled_and_has_one_threshold() -> None:
    made = _folds()
    found = compare(frame(made), COSTS, _evidence(*made))
    known, row = found.known.predictions["run0"], found.used.iloc[0]
    assert known.val is not None
    assert known.val.images is not None
    assert sorted(known.val.images) == sorted(known.test.images)  # each once
    assert row["metrics.val/auc"] == pytest.approx(roc_auc_score(ALL_LABELS, ALL_CHANCES))
    # four of five positive images are from 0.55 and one of five negative, the next at 0.5
    assert thresholds_of(known.of("val")) == pytest.approx([0.525])
    again = replace(_predictions(2), val=_split(1))  # the validation images of fold 1
    made[1]["metrics"] |= _logged(again, ("accuracy", "auc"))
    predictions = {**_evidence(*made).predictions, "run1": again}
    found = compare(frame(made), COSTS, Evidence(predictions=predictions))
    assert found.known.predictions["run0"].val is None
    assert np.isnan(found.used.iloc[0]["metrics.val/auc"])


def _reasons(
    made: list[dict[str, Any]], evidence: Evidence, **question: Any
) -> dict[str, list[str]]:
    judged, _ = inspect(frame(made), Question(draws=0, **question), evidence)
    assert judged["used"].tolist() == [not reasons for reasons in judged["reasons"]]
    return dict(zip(judged["run_id"], judged["reasons"], strict=True))


def test_a_model_without_a_fold_is_left_out_with_the_command_that_trains_it() -> None:
    made = [*_folds(model="b"), _fold(1, lr=0.001), _fold(3, lr=0.001, status="FAILED")]
    evidence = _evidence(*made)
    found = _reasons(made, evidence)
    assert found["run3"] == [
        "folds 2 and 3 of 3 are missing under its conditions; train with `pepr sweep --model a "
        "--dataset derma --folds 3 --fold 2,3 --lr 0.001 --seed 0`"
    ]
    assert found["run4"] == ["failed"]
    assert not found["run0"]
    # the complete one is scored alone, never against a part of the other
    made = [*_folds(model="b", size=0.7), *_folds()[:2]]
    scored = compare(frame(made), Question(draws=0), _evidence(*made))
    assert scored.scores["model"].tolist() == ["b"]
    assert scored.runs["codes"].tolist()[3:] == [["missing_folds"]] * 2
    with pytest.raises(WorkFailed, match=r"2 left out \(2 of an incomplete cross-validation\)"):
        compare(frame(made[3:]), Question(draws=0), _evidence(*made[3:]))


def test_the_newest_of_a_repeated_fold_counts_and_a_fold_of_another_machine_does_not() -> None:
    made = [*_folds(), _fold(2, energy_wh=25.0, start=1_790_000_009_000)]
    found = compare(frame(made), COSTS, _evidence(*made))
    assert found.used["fold_runs"].tolist() == ["run0 run3 run2"]
    assert found.used["energy_wh"].tolist() == [10 + 25 + 30]
    assert found.runs["codes"].tolist() == [[], ["duplicate"], [], []]
    made = [*_folds()[:2], _fold(3, tags={"pepr.hardware": "NVIDIA A100"})]
    found_reasons = _reasons(made, _evidence(*made))
    assert [r[0].split(" missing")[0] for r in found_reasons.values()] == [
        *["fold 3 of 3 is"] * 2,
        "folds 1 and 2 of 3 are",
    ]


def test_a_fold_that_is_left_out_as_doubtful_leaves_out_its_model() -> None:
    interrupted = {"pepr.unmeasured_s": "9"}
    made = [*_folds()[:2], _fold(3, tags=interrupted)]
    evidence = _evidence(*made)
    found = compare(frame(made), COSTS, evidence)
    assert found.scores["codes"].tolist() == [["interrupted"]] * 4  # of one fold, on the row
    assert found.runs["codes"].tolist() == [[], [], ["interrupted"]]
    reasons = _reasons(made, evidence, drop=("interrupted",))
    assert reasons["run0"] == ["fold 3 of 3 is left out by another rule"]


def test_folds_need_believable_predictions() -> None:
    made = _folds()
    evidence = _evidence(*made)
    others: tuple[Predictions | str, ...] = (
        "its predictions cannot be read",
        _predictions(3),  # they give another accuracy than fold 2 logged
        replace(_predictions(2), data_digest="feed"),
    )
    for wrong in others:
        predictions = {**evidence.predictions, "run1": wrong}
        found = _reasons(made, replace(evidence, predictions=predictions))
        assert "fold 2 of 3 has none that can be used" in found["run0"][0]
    assert "folds 1, 2 and 3 of 3 have none" in _reasons(made, Evidence())["run0"][0]
    same = replace(_predictions(2), test=replace(_split(1), images=_split(0).images))
    found = _reasons(made, replace(evidence, predictions={**evidence.predictions, "run1": same}))
    assert found["run0"] == ["its folds have test images in common, which would count twice"]


def test_a_p_that_predictions_do_not_give_and_a_cost_that_does_not_add_up_are_no_numbers() -> None:
    made = [_fold(k, metrics={"test/loss": 0.5, "inference/ms_per_image": k}) for k in (1, 2, 3)]
    evidence = _evidence(*made)
    found = _reasons(made, evidence, performance="val/accuracy")
    assert not any(found.values())
    assert compare(frame(made), Question(draws=0, performance="test/accuracy"), evidence).scores[
        "performance"
    ].tolist() == pytest.approx([np.mean((ALL_CHANCES > 0.5) == ALL_LABELS)])
    custom = [{**one, "metrics": {**one["metrics"], "my/score": 0.5}} for one in made]
    found = _reasons(custom, evidence, performance="my/score")
    assert "my/score cannot be computed from the predictions of all its folds" in found["run0"][0]
    found = _reasons(made, evidence, resources=("inference/ms_per_image",))
    assert found["run2"] == ["its folds differ in inference/ms_per_image, which does not add up"]


def test_p_counts_although_a_fold_alone_does_not_determine_it() -> None:
    made = _folds()
    made[2]["metrics"] |= {"performance": None, "test/auc": None}  # as if it had one class
    made[2]["metrics"] = {k: v for k, v in made[2]["metrics"].items() if v is not None}
    found = compare(frame(made), COSTS, _evidence(*made))
    assert found.used["performance"].tolist() == pytest.approx(
        [roc_auc_score(ALL_LABELS, ALL_CHANCES)]
    )


def _seeds() -> tuple[pd.DataFrame, Evidence]:
    """Two models, two seeds, three folds."""
    made = [
        _fold(k, model=model, seed=seed, size=size + 0.1 * seed)
        for model, size in (("a", 1.0), ("b", 2.0))
        for seed in (0, 1)
        for k in (1, 2, 3)
    ]
    return frame(made), _evidence(*made)


def test_seeds_are_repetitions_and_folds_are_not() -> None:
    runs, evidence = _seeds()
    found = compare(runs, Question(draws=100), evidence)
    assert found.scores["n"].tolist() == [2, 2]
    rows = found.scores.set_index("model")
    assert rows["cost"].to_dict() == pytest.approx({"a": 63, "b": 123})  # of 60, 66; 120, 126
    assert rows["cost_sd"].tolist() == pytest.approx([np.sqrt(18)] * 2)
    assert rows["performance_sd"].tolist() == [0, 0]  # folds differ, seeds do not
    one_seed = runs[runs["seed"] == 0]
    assert unrepeated(one_seed) == "test/auc"
    assert unrepeated(runs) is None
    assert spread_between(runs, "test/auc") == ASSUMED
    alone = compare(one_seed, Question(draws=100), evidence)
    assert any("each model has one run" in note for note in alone.notes)


def test_tests_of_two_models_take_the_images_of_all_folds_once() -> None:
    runs, evidence = _seeds()
    found = compare(runs, Question(draws=100), evidence)
    table, notes = compared(found, Question(draws=100), "a", "b")
    assert any("one seed are about the networks of its folds alone" in note for note in notes)
    delong = table[table["test"] == "DeLong"]
    assert delong["images"].tolist() == [10, 10]  # one row for each seed
    assert delong["seed"].tolist() == [0, 1]
    assert (table.loc[table["seed"].isna(), ["n_a", "n_b"]] == 2).all(axis=None)


def test_a_choice_by_validation_counts_seeds_and_images_of_all_folds() -> None:
    runs, evidence = _seeds()
    question = Question(draws=100)
    comparison = compare(runs, question, evidence)
    found = answer(choices(comparison, question, "derma", Terms(0.05)))
    assert (found.split, found.images) == ("val", 10)
    assert found.models["n"].tolist() == [2, 2]
    assert any("on validation (10 images)" in text for text in sentences(found))


def test_folds_are_not_compared_with_a_training_on_one_split() -> None:
    made = [*_folds(), run("b", tags=AUC, metrics={"test/auc": 0.8})]
    with pytest.raises(WrongUse, match=r"derma mixes folds \(folds=3: 1 run; folds=none: 1 run\)"):
        compare(frame(made), Question(draws=0), _evidence(*made[:3]))


def test_one_of_the_two_is_chosen_by_its_number_of_folds() -> None:
    made = [*_folds(), run("b", tags=AUC, metrics={"test/auc": 0.8})]
    runs = frame(made)
    assert where(runs, [("folds", "3")])["model"].tolist() == ["a"] * 3
    assert where(runs, [("folds", "none")])["model"].tolist() == ["b"]


def test_every_fold_gets_the_score_of_its_model() -> None:
    runs, evidence = _seeds()
    scores = changed_scores(compare(runs, Question(draws=0), evidence), runs)
    assert sorted(scores["run_id"]) == sorted(runs["run_id"])
    of_a = scores[scores["run_id"].isin(runs.loc[runs["model"] == "a", "run_id"])]
    assert of_a["score"].nunique() == 1


def test_curves_add_the_cost_of_the_folds_and_average_their_performance() -> None:
    made = _folds()
    steps = [(f"run{i}", step) for i in range(3) for step in (1, 2, 3)][:-1]  # the last stops early
    epochs = pd.DataFrame(steps, columns=["run_id", "step"])
    fold = epochs["run_id"].str[3:].astype(int)
    epochs["performance"] = 0.1 * epochs["step"] + 0.1 * fold
    epochs["energy/train_wh"] = 5.0 * (fold + 1) * epochs["step"]
    drawn = so_far(material(made, epochs=epochs, evidence=_evidence(*made)), "derma", "E")
    assert drawn["step"].tolist() == [1, 2]  # those of all folds
    assert drawn["cost"].tolist() == [5 + 10 + 15, 10 + 20 + 30]
    assert drawn["P"].tolist() == pytest.approx([0.2, 0.3])


def test_runs_of_own_code_with_such_parameters_are_no_folds() -> None:
    made = run("a")
    made["params"] = {"model": "a", "folds": "5", "fold": "2"}
    found = compare(frame([made]), Question(draws=0))
    assert found.scores["n"].tolist() == [1]
