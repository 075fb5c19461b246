"""The words of a report, with numbers that one can check by hand."""

from __future__ import annotations

import numpy as np
import pytest
from made import DIGEST, frame, material, run

from pepr_mlops.comparison import Question, compare
from pepr_mlops.comparison.answer import Terms
from pepr_mlops.comparison.metrics import scores
from pepr_mlops.comparison.predictions import OfSplit, Predictions
from pepr_mlops.comparison.runs import Evidence
from pepr_mlops.costs.carbon import Intensity
from pepr_mlops.report import cautions
from pepr_mlops.report.material import Part, gather
from pepr_mlops.report.spending import spent_words
from pepr_mlops.report.summary import summarise

RUNS = [
    run("a", performance=0.60, energy_wh=10.0),
    run("b", performance=0.80, energy_wh=20.0),
    run("c", performance=0.90, energy_wh=50.0),
]
GRID = {"pepr.carbon_intensity_g_per_kwh": "430", "pepr.carbon_source": "given", "pepr.pue": "1.5"}


def test_the_verdict_comes_first_then_what_the_choice_costs() -> None:
    (answer,) = summarise(material(RUNS, terms=Terms(0.15, 0.9))).answers
    assert answer.verdict == (
        "b is good enough: with 90% confidence its accuracy is at most 15 points below that of "
        "the best model. Of the 2 models shown to be good enough it has the lowest training energy"
    )
    performance, saving = answer.reasons
    assert performance.startswith("b reaches 80% accuracy on the test set (95%: 7")
    assert performance.endswith(") for 20 Wh of training energy")
    assert saving.startswith(
        "Against c, the model with the best accuracy, it gives up 10.0 points of accuracy and "
        "saves 30 Wh of training energy (95%: 2"
    )
    assert answer.details == (
        "Not good enough: 1 model (a)",
        "Models are chosen by accuracy on the test set (500 images)",
        "The test images that choose the model also give its accuracy, which is therefore too "
        "optimistic",
        "PePR-E ranks b first, too",
    )


def test_the_best_performer_may_be_the_choice_and_then_saves_nothing() -> None:
    (answer,) = summarise(material(RUNS)).answers
    assert answer.verdict == (
        "c is good enough: with 95% confidence its accuracy is at most 1 point below that of the "
        "best model. It is the only model shown to be good enough, and it has the best accuracy, "
        "too"
    )
    (performance,) = answer.reasons
    assert performance.startswith("c reaches 90.0% accuracy on the test set (95%: ")
    assert answer.details[-1] == "PePR-E ranks b first, and with α from 5.75 c"


def test_a_choice_may_need_more_of_another_resource() -> None:
    runs = [*RUNS[:2], run("c", performance=0.9, energy_wh=50.0, memory_gb=3.0)]
    question = Question(resources=("E", "M"), draws=50)
    (answer,) = summarise(material(runs, question=question, terms=Terms(0.15, 0.9))).answers
    assert " saves 30 Wh of training energy (95%: " in answer.reasons[1]
    assert answer.reasons[1].endswith(", but needs 1 GB of memory more")


def test_a_weighted_score_is_named_by_all_its_resources() -> None:
    question = Question(resources=("E", "M"), weights=(0.5, 0.5), draws=50)
    (answer,) = summarise(material(RUNS, question=question)).answers
    assert answer.details[-1].startswith("PePR-E+M ranks b first")


def test_the_methods_say_what_intervals_account_for_and_how_models_were_chosen() -> None:
    text = summarise(material(RUNS)).methods
    for words in (
        "The 95% intervals come from 50 draws.",
        "P was taken to have the binomial error of as many independent images.",
        "P was taken to vary between runs with a standard deviation of 0.01 (assumed).",
        "Measured energies were taken to err by 5%, each model by itself.",
        "its accuracy on the test set is at most 1 point below that of the best model, with 95% "
        "confidence by multiple comparisons with the best (Hsu, 1981; Edwards and Hsu, 1983)",
        "Models were chosen on the test set, on which P is also reported.",
    ):
        assert words in text, words
    memory = Question(resources=("M", "E"), draws=50)
    text = summarise(material(RUNS, question=memory)).methods
    assert "err by" not in text
    assert "R the memory, normalised" in text
    weighted = Question(resources=("E", "T"), weights=(0.7, 0.3), draws=50)
    text = summarise(material(RUNS, question=weighted)).methods
    assert "training energy (weight 0.7) and training time (weight 0.3)" in text
    estimated = {"pepr.energy_source": "estimated"}
    text = summarise(material([*RUNS[:2], run("c", seed=1, tags=estimated), run("c")])).methods
    assert "Estimated energies were taken to err by 20% in all models of a machine" in text
    assert "moderated towards that of all models (Smyth, 2004)" in text


def test_the_methods_say_what_was_drawn_from_predictions() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 40)
    runs, predictions = [], {}
    for i, model in enumerate("ab"):
        chance = np.clip(labels * 0.4 + rng.random(40) * 0.6, 0, 1)
        both = np.column_stack([1 - chance, chance])
        groups = {"patient": np.repeat(np.arange(20), 2).astype(str)}
        split = OfSplit(labels, both, groups=groups)
        found = Predictions("binary-class", ("a", "b"), split, split, DIGEST)
        numbers = scores(labels, both, "binary-class")
        metrics = {f"{of}/{name}": v for of in ("val", "test") for name, v in numbers.items()}
        tags = {"pepr.performance": "test/auc", "pepr.test_images": "40"}
        p = numbers["auc"]
        runs.append(run(model, performance=p, energy_wh=10 + i, metrics=metrics, tags=tags))
        predictions[f"run{i}"] = found
    summary = summarise(material(runs, evidence=Evidence(predictions=predictions)))
    for words in (
        "Patients with all their images were drawn with replacement, the same for all models that "
        "share a test set; AUC was drawn to first order (DeLong et al., 1988).",
        "if its AUC on validation is at most 0.01 below",
        "Models were chosen on validation, and P is reported on the test set.",
    ):
        assert words in summary.methods, words
    assert any("DeLong" in text for text in summary.references)
    partly = Evidence(predictions={"run0": predictions["run0"]})
    assert (
        "models without predictions got the" in summarise(material(runs, evidence=partly)).methods
    )


def test_an_energy_metric_is_energy_too() -> None:
    runs = [
        run(m, energy_wh=None, metrics={"energy/train_gpu_wh": e},
            tags={"pepr.energy_source": "estimated"})
        for m, e in (("a", 1.0), ("b", 2.0))
    ]  # fmt: skip
    question = Question(resources=("energy/train_gpu_wh",), draws=20)
    found = material(runs, question=question)
    assert cautions.stamps(found, ["derma"]) == "energy estimated"


def test_what_all_runs_cost_also_those_left_out() -> None:
    killed = run("d", status="KILLED", energy_wh=5.0, tags=GRID, metrics={"energy/eval_wh": 1.0})
    unknown = run("e", status="FAILED", energy_wh=None, tags=GRID)
    runs = [{**r, "tags": {**r["tags"], **GRID}} for r in RUNS]
    spent = summarise(material([*runs, killed, unknown])).spent
    assert (spent.runs, spent.known, spent.evaluated) == (5, 4, 1)
    assert spent.energy_kwh == pytest.approx(0.086)
    assert spent.co2e_kg == pytest.approx(0.086 * 0.430 * 1.5)
    assert spent.car_km == pytest.approx(0.086 * 430 * 1.5 / 106.8)
    words = spent_words(spent)
    assert "86 Wh for training 4 runs and evaluating 1 of them (1 more has no energy" in words
    assert "430 g/kWh (given)" in words


def test_trials_of_settings_are_part_of_what_all_runs_cost() -> None:
    tried = {"pepr.tried": "fp32 contiguous 9 ms"}
    runs = [
        run("a", energy_wh=10.0, tags=tried, metrics={"energy/trial_wh": 1.5}),
        run("b", energy_wh=20.0, tags=tried),
        run("c", energy_wh=50.0),
        run("d", status="FAILED", energy_wh=None, metrics={"energy/trial_wh": 0.5}),
    ]
    spent = summarise(material(runs)).spent
    assert spent.energy_kwh == pytest.approx(0.082)
    assert (spent.known, spent.tried, spent.unknown_trials) == (3, 2, 1)
    assert spent_words(spent).startswith(
        "82 Wh for training 3 runs, evaluation not known, and for trying settings in 2, without "
        "the unknown energy of trying settings in 1 (1 more has no energy reading)"
    )
    assert "trying" not in spent_words(summarise(material(RUNS)).spent)


def test_a_trial_without_training_is_reported_alone() -> None:
    tried = {"energy/trial_wh": 0.5, "time/trial_s": 4.0}
    unknown = {"time/trial_s": 4.0}
    runs = [
        run("a", energy_wh=None, metrics=tried, tags=GRID),
        run("b", energy_wh=None, metrics=tried),
        run("c", energy_wh=None, metrics=unknown),
    ]
    question = Question(resources=("T",), draws=20)
    spent = summarise(material(runs, question=question)).spent
    assert (spent.counted, spent.known, spent.tried, spent.unknown_trials) == (2, 0, 2, 1)
    words = spent_words(spent)
    assert words.startswith("1 Wh for trying settings in 2, without the unknown energy of")
    assert "0.323 g of CO2e (of 1 of these runs) at 430 g/kWh" in words  # 0.5 Wh × 430 × 1.5


def test_methods_name_the_setting_and_what_was_mixed() -> None:
    usual = summarise(material(RUNS)).methods
    assert "layout" not in usual
    assert "CUDA" not in usual
    fast = [run(m, layout="channels_last", launch="graph") for m in "ab"]
    text = summarise(material(fast)).methods
    assert ", the memory layout channels_last, each step launched as a CUDA graph, on " in text
    runs = [*RUNS, run("d", precision="bf16", layout="channels_last")]
    mixed = summarise(material(runs, question=Question(mixed="allow"))).methods
    assert "Conditions were mixed: the runs differ in precision and memory layout." in mixed
    saved = compare(frame(RUNS), Question()).reference
    others = [run(m, tags={"pepr.hardware": "A100"}, energy_wh=e) for m, e in (("a", 9), ("b", 8))]
    question = Question(mixed="allow", normalisation="reference", reference=saved)
    text = summarise(material(others, question=question)).methods
    assert "Conditions were mixed: costs are normalised by those of other conditions." in text


def test_methods_of_two_experiments_state_once_what_they_share() -> None:
    parts = []
    for name in ("one", "two"):
        tags = {"pepr.experiment": name}
        runs = [run(m, tags=tags, energy_wh=e) for m, e in (("a", 1.0), ("b", 2.0))]
        found, question = frame(runs), Question(draws=50)
        parts.append(Part(compare(found, question), question, found))
    text = summarise(gather(parts)).methods
    first, second, shared = text.split("\n")
    assert first.startswith("We compared 2 models")
    assert second.startswith("We compared 2 models")
    assert shared.count("The 95% intervals come from 50 draws.") == 1
    assert "The 95% intervals" not in first + second
    assert "The full experiment used" in shared


def test_settings_of_one_model_are_no_models() -> None:
    runs = [*RUNS, run("a", precision="bf16", performance=0.7, energy_wh=9.0)]
    question = Question(mixed="allow", draws=20)
    found = summarise(material(runs, question=question))
    assert (
        "We compared 3 models, some of them in several settings (4 runs) on derma" in found.methods
    )
    facts = dict(found.facts["derma [MIXED precision]"])
    assert facts["Compared"] == "3 models, some of them in several settings (4 runs)."
    assert "We compared 3 models (3 runs) on" in summarise(material(RUNS)).methods


def test_one_intensity_for_all_runs() -> None:
    question = Question(intensity=Intensity(100.0, "given"), draws=50)
    spent = summarise(material(RUNS, question=question)).spent
    assert spent.co2e_kg == pytest.approx(0.008)
    assert spent.intensity == "100 g/kWh (given)"


def test_unknown_carbon_and_evaluation_are_reported_as_unknown() -> None:
    spent = summarise(material(RUNS)).spent
    assert (spent.co2e_kg, spent.car_km) == (None, None)
    assert "CO2e is not known: no run has a grid intensity" in spent_words(spent)
    assert ", evaluation not known" in spent_words(spent)


def test_estimates_and_mixtures_are_named_in_answer_methods_and_figures() -> None:
    estimated = [{**r, "tags": {**r["tags"], "pepr.energy_source": "estimated"}} for r in RUNS]
    found = material(estimated)
    assert cautions.stamps(found, ["derma"]) == "energy estimated"
    summary = summarise(found)
    assert "Training energy was estimated, not measured." in summary.methods
    assert summary.answers[0].reasons[0].endswith("for 50 Wh of training energy (energy estimated)")
    mixed = material([*RUNS, run("d", precision="bf16")], question=Question(mixed="allow"))
    assert cautions.stamps(mixed, mixed.main_sets) == "conditions mixed"
    assert cautions.stamps(material(RUNS), ["derma"]) == ""


def test_a_doubtful_answer_is_marked_as_doubtful() -> None:
    (answer,) = summarise(material([*RUNS, run("f", performance=0.5, energy_wh=50.0)])).answers
    assert answer.reasons[0].endswith(
        "for 50 Wh of training energy. Doubtful: energy equal to another run's to the last digit"
    )


def test_no_interval_is_claimed_where_none_is_known() -> None:
    question = Question(resources=("M",), draws=50)
    runs = [{**r, "tags": {**r["tags"], "pepr.test_images": None}} for r in RUNS]
    (answer,) = summarise(material(runs, question=question)).answers
    assert answer.verdict.endswith("the error of accuracy is not known")
    assert "(no interval: unknown number of test images)" in answer.reasons[0]


def test_an_imported_time_that_is_an_estimate_is_one_here() -> None:
    runs = [{**r, "tags": {**r["tags"], "pepr.time_source": "estimated"}} for r in RUNS]
    timed = material(runs, question=Question(resources=("T",), draws=20))
    assert cautions.stamps(timed, ["derma"]) == "time estimated"
    assert cautions.stamps(material(runs), ["derma"]) == ""


def test_only_what_the_methods_use_is_cited() -> None:
    method = "CodeCarbon 3.3.2 model: CPU X; memory 20 W; not measured: cpu: ZeusCPUInitError"
    runs = [{**r, "tags": {**r["tags"], **GRID, "pepr.energy_method": method}} for r in RUNS]
    found = material(runs)
    summary = summarise(found)
    assert "memory 20 W." in summary.methods
    cited = " ".join(summary.references)
    assert "Selvan" in cited
    assert "CodeCarbon" in cited
    assert "106.8 g/km for new cars in the EU in 2024" in cited  # for the drive
    assert "Zeus" not in cited
    plain = summarise(material(RUNS)).references
    assert [text.split(":")[0] for text in plain[1:]] == ["J. C. Hsu", "D. G. Edwards, J. C. Hsu"]


def test_what_was_left_out_and_what_is_doubtful() -> None:
    runs = [
        *RUNS,
        run("d", status="FAILED", memory_gb=3.8),
        run("d", 1, status="RUNNING", energy_wh=None),
        run("e", energy_wh=None),
        run("f", energy_wh=20.0, memory_gb=3.9),
    ]
    found = summarise(material(runs))
    left = found.left_out.set_index("reason")
    assert left["runs"].to_dict() == {"failed": 1, "running": 1, "cost not known": 1}
    assert list(left.loc["cost not known"]) == [1, "e", "it has no energy_wh"]
    doubts = found.doubts.set_index("reason")
    assert doubts[["runs", "models"]].to_dict("index") == {
        "energy equal to another run's to the last digit": {"runs": 2, "models": "b, f"}
    }


def test_a_flag_of_every_estimate_is_no_row_of_the_doubts() -> None:
    tags = {"pepr.energy_source": "estimated", "pepr.data_leak": "3 of 4 images"}
    found = summarise(material([*RUNS[:2], run("c", energy_wh=50.0, tags=tags)])).doubts
    assert found["reason"].tolist() == ["test images in the training set"]
    assert found["example"].tolist() == [
        "3 of 4 images: part of the test set was in the training set"
    ]


def test_the_conditions_are_sentences_by_set() -> None:
    (facts,) = summarise(material(RUNS)).facts.values()
    assert dict(facts) == {
        "Compared": "3 models (3 runs).",
        "Data": "derma, images of 256×256 pixels, content of the data set 0123456789abcdef.",
        "Training": "pretrained, 10 epochs, batch size 32, learning rate 0.0005, precision fp32, "
        "memory layout contiguous, launch kernels.",
        "Machine": "NVIDIA H100.",
        "Energy": "Training energy was measured.",
        "Score": dict(facts)["Score"],
    }
    assert dict(facts)["Score"].startswith(
        "Performance per resource unit is PePR-E = P / (1 + R) (Selvan et al., 2025), where P is "
        "the accuracy on the test set and R the training energy, normalised from"
    )


def test_the_methods_have_the_protocol_and_nothing_unknown() -> None:
    text = summarise(material(RUNS)).methods
    for words in (
        "3 models (3 runs) on derma",
        "fine-tuned from pretrained weights",
        "for 10 epochs",
        "a batch size of 32",
        "256×256 pixels",
        "on NVIDIA H100",
        "Training energy was measured",
        "P / (1 + R) (Selvan et al., 2025)",
        "used 80 Wh",
    ):
        assert words in text, words
    assert "several" not in text
    assert "not known" not in text.replace("evaluation not known", "").replace(
        "CO2e is not known", ""
    )
