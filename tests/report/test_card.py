"""The model card: its numbers are those that a run logged and that scikit-learn computes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from made import DIGEST, frame, logged, run
from sklearn import metrics as sk

from pepr_mlops.cli import main
from pepr_mlops.comparison import Question, compare
from pepr_mlops.comparison.metrics import clinical, scores
from pepr_mlops.comparison.predictions import OfSplit, Predictions
from pepr_mlops.comparison.runs import Evidence
from pepr_mlops.comparison.selected import Choice, Selected
from pepr_mlops.costs.carbon import Intensity
from pepr_mlops.names import MULTI_LABEL
from pepr_mlops.report.card import BLANK, Card, card_of, markdown
from pepr_mlops.report.card.metadata import metadata
from pepr_mlops.report.card.standing import believable, judged, standing
from pepr_mlops.report.label import references
from pepr_mlops.tracking.read.inputs import Input

CLASSES = ("nevus", "melanoma", "keratosis")
HOSTILE = "a|b](http://x) <img src=x onerror=alert(1)> `c`\n---\n# heading"
INPUTS = {"train": Input("0a1b", "/home/somebody/images", 2000)}
GRID = {"pepr.carbon_intensity_g_per_kwh": "430", "pepr.carbon_source": "given", "pepr.pue": "1.5"}


def _split(n: int, seed: int, **groups: Any) -> OfSplit:
    """Images of three classes, about four in five of which are classified correctly."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    raw = rng.random((n, 3)) + 0.5 * np.eye(3)[labels]
    return OfSplit(labels, raw / raw.sum(axis=1, keepdims=True), np.arange(n), groups)


_SEX = np.where(np.arange(300) % 4, "F", "M")
_PATIENT = (np.arange(300) // 2).astype(str)
PREDICTED = Predictions(
    *("multi-class", CLASSES, _split(300, 1, patient=_PATIENT, sex=_SEX), _split(150, 2), DIGEST)
)


def _metrics(predictions: Predictions, split: str) -> dict[str, float]:
    found = predictions.of(split)
    every = scores(found.labels, found.probabilities, found.task) | clinical(found)
    return {f"{split}/{name}": value for name, value in every.items()}


def _trained(predictions: Predictions = PREDICTED, **changed: Any) -> dict[str, Any]:
    """A run that logged what follows from its predictions."""
    own = _metrics(predictions, "test") | _metrics(predictions, "val")
    changed["metrics"] = {**own, **changed.get("metrics", {})}
    n = str(len(predictions.test.labels))
    changed["tags"] = {"pepr.test_images": n, **changed.get("tags", {})}
    return run(performance=own["test/accuracy"], **changed)


def _card(
    runs: Sequence[Mapping[str, Any]],
    predictions: Mapping[str, Predictions] | None = None,
    *,
    question: Question | None = None,
    run_id: str = "run0",
    inputs: Mapping[str, Input] = INPUTS,
) -> Card:
    found, evidence = frame(runs), Evidence(predictions=predictions or {})
    question = question or Question(draws=50)
    comparison = compare(found, question, evidence)
    name = str(comparison.sets["comparison_set"].iloc[0])
    place = Selected.of(comparison, question, name, Choice())
    row = judged(run_id, found, evidence)
    return card_of(
        found[found["run_id"] == run_id].iloc[0],
        found,
        believable(row, evidence),
        inputs,
        standing(row, place),
        question=question,
        references=references(),
        made="Made on a day.",
    )


def _text(card: Card) -> str:
    return markdown(card, metadata(card), "card.svg", has_weights=True)


OTHER = run("other", seed=0, performance=0.5, energy_wh=80.0, tags={"pepr.test_images": "300"})


def test_the_numbers_are_those_logged_and_those_of_scikit_learn() -> None:
    card = _card([_trained(), OTHER], {"run0": PREDICTED})
    found = {one.metric: one for one in card.test}
    for name, value in _metrics(PREDICTED, "test").items():
        assert found[name.removeprefix("test/")].value == pytest.approx(value, abs=1e-12)
    labels, chances = PREDICTED.test.labels, PREDICTED.test.probabilities
    named = chances.argmax(axis=1)
    assert found["accuracy"].value == pytest.approx(sk.accuracy_score(labels, named))
    assert found["balanced_accuracy"].value == pytest.approx(
        sk.balanced_accuracy_score(labels, named)
    )
    assert found["auc"].value == pytest.approx(sk.roc_auc_score(labels, chances, multi_class="ovr"))
    for one in card.test:
        if one.metric != "ece":
            assert one.low < one.value < one.high, one  # type: ignore[operator]
    assert {one.metric: one.value for one in card.val}["auc"] == pytest.approx(
        sk.roc_auc_score(PREDICTED.val.labels, PREDICTED.val.probabilities, multi_class="ovr")  # type: ignore[union-attr]
    )


def test_the_interval_of_accuracy_is_about_that_of_the_binomial_law() -> None:
    alone = replace(PREDICTED, test=replace(PREDICTED.test, groups={}))
    p = _card([_trained(alone), OTHER], {"run0": alone}).p
    error = 1.96 * (p.value * (1 - p.value) / 300) ** 0.5  # type: ignore[operator]
    assert (p.high - p.low) / 2 == pytest.approx(error, rel=0.15)  # type: ignore[operator]


def test_numbers_of_classes_are_of_one_against_the_rest_and_average_to_those_of_the_run() -> None:
    card = _card([_trained(), OTHER], {"run0": PREDICTED})
    labels, chances = PREDICTED.test.labels, PREDICTED.test.probabilities
    means: dict[str, list[float]] = {}
    for k, one in enumerate(card.per_class):
        assert (one.name, one.positive, one.negative, one.val) == (CLASSES[k], 100, 200, 50)
        values = {m.metric: m.value for m in one.measures}
        called = chances[:, k] >= one.threshold
        assert values["sensitivity"] == pytest.approx(sk.recall_score(labels == k, called))
        assert values["specificity"] == pytest.approx(sk.recall_score(labels != k, ~called))
        assert values["auc"] == pytest.approx(sk.roc_auc_score(labels == k, chances[:, k]))
        assert values["average_precision"] == pytest.approx(
            sk.average_precision_score(labels == k, chances[:, k])
        )
        for name, value in values.items():
            means.setdefault(name, []).append(value)  # type: ignore[arg-type]
    on_test = _metrics(PREDICTED, "test")
    for name, values_ in means.items():
        assert np.mean(values_) == pytest.approx(on_test[f"test/{name}"])
    assert card.classes == tuple((name, 50, 100) for name in CLASSES)


def test_subgroups_and_the_bins_of_the_calibration_add_up() -> None:
    card = _card([_trained(), OTHER], {"run0": PREDICTED})
    rows = card.groups.set_index("value")
    male = np.arange(300) % 4 == 0
    right = PREDICTED.test.probabilities.argmax(axis=1) == PREDICTED.test.labels
    assert rows.loc["M", ["n", "performance"]].tolist() == [75, pytest.approx(right[male].mean())]
    assert rows.loc["F", ["n", "performance"]].tolist() == [225, pytest.approx(right[~male].mean())]
    assert card.bins["images"].sum() == 300
    weighted = (card.bins["accuracy"] * card.bins["images"]).sum() / 300
    assert weighted == pytest.approx(right.mean())
    text = _text(card)
    assert "| sex | M | 75 |" in text
    assert "| test | 300 | 150 | not logged |" in text  # of 150 patients
    assert "patient is not known" not in text


def test_the_metadata_is_read_back_by_hugging_face() -> None:
    own = {"carbon/train_gco2e": 12.9, "external/clinic/accuracy": 0.625}
    card = _card([_trained(metrics=own, tags=GRID), OTHER], {"run0": PREDICTED})
    data = ModelCard(_text(card)).data
    assert (data.library_name, data.pipeline_tag) == ("timm", "image-classification")
    assert {"accuracy", "roc_auc", "f1"} <= set(data.metrics)
    found = {(r.dataset_name, r.metric_name): r for r in data.eval_results}
    on_test = _metrics(PREDICTED, "test")
    assert found["derma", "auc"].metric_value == pytest.approx(on_test["test/auc"], abs=1e-12)
    assert found["derma", "auc"].metric_type == "roc_auc"
    assert found["derma", "accuracy"].dataset_revision == DIGEST
    assert found["clinic", "accuracy"].metric_value == 0.625
    emissions = data.co2_eq_emissions
    assert emissions["emissions"] == 12.9  # grams
    assert emissions["training_type"] == "fine-tuning"
    assert emissions["hardware_used"] == "NVIDIA H100"
    assert emissions["source"] == "energy MEASURED; 12.9 g at 430 g/kWh (given), PUE 1.5"
    assert "geographical_location" not in emissions


def test_another_grid_intensity_is_for_the_training_and_the_search() -> None:
    question = Question(draws=50, intensity=Intensity(100.0, "given"))
    runs = [_trained(energy_wh=20.0, tags={"pepr.pue": "2"}), OTHER]
    card = _card(runs, {"run0": PREDICTED}, question=question)
    assert card.emissions.grams == pytest.approx(20 / 1000 * 100 * 2)
    assert "100 g/kWh (given)" in card.search[1]
    assert ModelCard(_text(card)).data.co2_eq_emissions["emissions"] == pytest.approx(4)


def test_a_missing_energy_is_missing_and_never_zero() -> None:
    runs = [_trained(energy_wh=None, tags={"pepr.energy_source": "none"}), OTHER]
    question = Question(draws=50, resources=("T",))
    card = _card(runs, {"run0": PREDICTED}, question=question)
    text = _text(card)
    assert ModelCard(text).data.get("co2_eq_emissions") is None
    assert "| energy of training | not measured |" in text
    assert "| CO2e of training | not measured |" in text
    assert "Energy: not measured." in card.summary
    assert "0 Wh" not in text.replace("80 Wh", "")


def test_an_estimated_energy_is_called_one() -> None:
    card = _card([_trained(tags={"pepr.energy_source": "estimated"}), OTHER], {"run0": PREDICTED})
    assert "Training took 20 Wh (ESTIMATED) on NVIDIA H100." in card.summary
    assert "its energy is an estimate" in card.limits
    assert card.label.training.origin == "ESTIMATED"
    assert "MEASURED" in _card([_trained(), OTHER], {"run0": PREDICTED}).summary


def test_the_search_counts_runs_that_failed() -> None:
    failed = run("broken", performance=None, energy_wh=5.0, status="FAILED")
    killed = run("slow", performance=None, energy_wh=None, status="KILLED")
    card = _card([_trained(), OTHER, failed, killed], {"run0": PREDICTED})
    assert card.search[0] == "4 runs: 2 finished, 1 failed, 1 killed"
    assert card.search[1].startswith("105 Wh for training 3 runs, evaluation not known (1 more ")


def test_what_people_named_is_text() -> None:
    hostile = replace(PREDICTED, classes=(HOSTILE, *CLASSES[1:]))
    made = _trained(hostile, model=HOSTILE, tags={"pepr.data_notes": HOSTILE})
    text = _text(_card([made, OTHER], {"run0": hostile}))
    assert ModelCard(text).data.library_name == "timm"
    body = text.split("\n---\n", 1)[1]
    assert "<img" not in body
    assert not re.search(r"(?<!\\)\]\(http", body)
    assert "\n# heading" not in body
    assert [line for line in body.splitlines() if line == "---"] == []
    row = next(line for line in body.splitlines() if line.startswith("| a\\|b") and "100" in line)
    assert len(re.split(r"(?<!\\)\|", row)) in (5, 10)
    assert body.count(BLANK) == 6


def test_no_place_of_a_file_leaves_the_machine() -> None:
    made = _trained(images="/home/somebody/scans", data_root="/home/somebody")
    text = _text(_card([made, OTHER], {"run0": PREDICTED}))
    assert "somebody" not in text


def test_several_labels_count_where_they_are_known() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (200, 3))
    labels[:40, 2] = -1
    chances = np.clip(0.4 * labels + 0.6 * rng.random((200, 3)), 0, 1)
    split = OfSplit(labels, chances)
    several = Predictions(MULTI_LABEL, CLASSES, split, split, DIGEST)
    card = _card([_trained(several), OTHER], {"run0": several})
    last = card.per_class[2]
    known = labels[:, 2] >= 0
    assert (last.positive, last.negative) == ((labels[:, 2] == 1).sum(), (labels[:, 2] == 0).sum())
    assert {m.metric: m.value for m in last.measures}["auc"] == pytest.approx(
        sk.roc_auc_score(labels[known, 2], chances[known, 2])
    )
    assert "The network decides any number of labels for an image." in _text(card)


def test_a_class_without_images_has_no_number() -> None:
    test = replace(PREDICTED.test, labels=PREDICTED.test.labels % 2)  # never keratosis
    lacking = replace(PREDICTED, test=test)
    card = _card([_trained(lacking), OTHER], {"run0": lacking})
    assert {m.value for m in card.per_class[2].measures if m.metric != "specificity"} == {None}
    assert "the test set has no image of 1 of 3 classes" in card.limits
    assert "not known: a class has no images" in _text(card)


def test_a_fold_is_ranked_as_its_cross_validation() -> None:
    runs, predictions = [], {}
    for fold in (1, 2, 3):
        part = OfSplit(
            *(a[fold - 1 :: 3] for a in (PREDICTED.test.labels, PREDICTED.test.probabilities)),
            np.arange(300)[fold - 1 :: 3],
        )
        part = replace(part, labels=np.arange(100) % 3)
        predictions[f"run{fold - 1}"] = replace(PREDICTED, test=part)
        made = _trained(predictions[f"run{fold - 1}"], folds=3, fold=fold, energy_wh=10.0 * fold)
        runs.append(made)
    card = _card(runs, predictions, run_id="run1")
    assert "| fold of this run | 2 |" in _text(card)
    assert card.label.training.total == "20 Wh"
    assert " its model has rank 1 of 1 in derma" in card.standing.sentences[0]


def test_predictions_that_contradict_the_run_are_not_used() -> None:
    wrong = _trained()
    wrong["metrics"] |= {"test/accuracy": 0.99, "performance": 0.99}
    card = _card([wrong, OTHER], {"run0": PREDICTED})
    assert card.predicted == "its predictions contradict what it logged"
    assert card.per_class == ()
    assert {one.metric: one.value for one in card.test}["accuracy"] == 0.99


def test_the_use_is_what_its_profile_logged() -> None:
    profile = {"inference/ms_per_image": 12.5, "inference/wh_per_image": 0.002}
    tags = {
        "pepr.inference_values": "wh_per_image",
        "pepr.inference_batch": "32",
        "pepr.inference_onnx_batch": "77",  # of another form
    }
    text = _text(_card([_trained(metrics=profile, tags=tags), OTHER], {"run0": PREDICTED}))
    assert "| time to classify one image of a batch | 12.5 ms |" in text
    assert "2 Wh per 1,000 images" in text
    assert "| batch | 32 |" in text
    assert "onnx batch" not in text


def test_a_card_cannot_overwrite_its_label(capfd: pytest.CaptureFixture[str]) -> None:
    status, _, error = _run(capfd, "card", "best", "--experiment", "x", "--out", "both.svg")
    assert status == 2
    assert "out: both.svg is to be Markdown, and the label is drawn next to it" in error


# The command ------------------------------------------------------------------------------------


def _run(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        main(list(words))
    out, err = capfd.readouterr()
    return int(exit_.value.code or 0), out, err


def test_the_card_and_its_label_are_written(
    store: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    best = logged(store, run("a", performance=0.9, energy_wh=50.0))
    logged(store, run("b", performance=0.6, energy_wh=10.0))
    words = ("--experiment", "derma", "--by", "performance", "--out", "cards/README.md")
    status, out, err = _run(capfd, "card", "best", *words)
    assert (status, out.splitlines()[0]) == (0, "cards/README.md")
    assert f"best is a: run {best}, seed 0" in err
    assert "6 blanks are left for a person" in err
    text = Path("cards/README.md").read_text()
    assert "![Energy label](README.svg)" in text
    assert "Energy label" in Path("cards/README.svg").read_text()
    assert "rank 1 of 2 in derma" in text or "rank 2 of 2 in derma" in text
    front = yaml.safe_load(text.split("---")[1])
    assert front["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.9
    assert "accuracy on test (500 images) is 0.9000 (95% 0.8" in text
    by_name = _run(capfd, "card", best, "--out", "by_name.md")
    assert by_name[0] == 0
    assert "rank " in Path("by_name.md").read_text()


def test_a_single_run_has_no_rank(store: str, capfd: pytest.CaptureFixture[str]) -> None:
    run_id = logged(store, run("a"))
    assert _run(capfd, "card", run_id)[0] == 0
    assert "Not ranked: it is the only run of its experiment." in Path("card.md").read_text()


def test_runs_of_other_conditions_leave_the_run_without_a_rank(
    store: str, capfd: pytest.CaptureFixture[str]
) -> None:
    run_id = logged(store, run("a", epochs=5))
    logged(store, run("b", epochs=10))
    assert _run(capfd, "card", run_id)[0] == 0
    assert "Not ranked: " in Path("card.md").read_text()
    assert _run(capfd, "card", run_id, "--where", "epochs=5", "--stratify")[0] == 0


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("0" * 32,), "run: there is no run "),
        (("0" * 32, "--experiment", "derma"), "is no run of derma; leave out --experiment"),
        (("best",), "best: of which runs?"),
        (("best", "--experiment", "derma", "--label-reference", "absent"), "cannot be read"),
    ],
)
def test_a_mistake_is_one_line(
    words: tuple[str, ...], why: str, store: str, capfd: pytest.CaptureFixture[str]
) -> None:
    logged(store, run("a"))
    status, out, err = _run(capfd, "card", *words)
    assert (status, out) == (2, "")
    assert why in err
    assert err.count("\n") == 1


def test_the_card_of_a_published_run_says_what_is_missing(
    paper_store: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ("--experiment", "lidc", "--by", "performance", "--tracking-uri", paper_store)
    out = tmp_path / "paper.md"
    status, printed, _ = _run(capfd, "card", "best", *words, "--out", str(out))
    assert status == 0
    assert printed.splitlines()[1].startswith(
        "dpn107 classifies images of lidc. Its accuracy on test"
    )
    text = out.read_text()
    data = ModelCard(text).data
    assert data.co2_eq_emissions["hardware_used"] == "NVIDIA GeForce RTX 3090"
    assert [r.metric_name for r in data.eval_results] == ["accuracy"]
    for missing in (
        "(PUBLISHED)",
        "Classes: not known, since the run logged no predictions.",
        "no letter: the number of training images is not known",
        "The run kept no weights",
        "131 runs: 131 finished.",
        "its training time is an estimate",
    ):
        assert missing in text, missing
