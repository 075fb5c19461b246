"""What an answer rests on: each doubt has a badge, with numbers that one can check by hand."""

from __future__ import annotations

from typing import Any

import pytest
from made import material, run, worse_in

from pepr_mlops.comparison import Question
from pepr_mlops.comparison.checks import FLAGS
from pepr_mlops.comparison.words import CODES
from pepr_mlops.report.badges import Badge, badges, doubts
from pepr_mlops.report.figures import lifetime
from pepr_mlops.report.groups import groups
from pepr_mlops.report.material import Material, NothingToDraw

RUNS = [
    run("a", performance=0.60, energy_wh=10.0),
    run("b", performance=0.80, energy_wh=20.0),
    run("c", performance=0.90, energy_wh=50.0),
]


def _with(tags: dict[str, Any], **changed: Any) -> Material:
    """The three models, the last one with these tags."""
    return material([*RUNS[:2], run("c", performance=0.9, energy_wh=50.0, tags=tags, **changed)])


def _badge(found: Material, text: str) -> Badge:
    (badge,) = [badge for badge in badges(found) if badge.text == text]
    return badge


def test_measured_runs_of_one_machine_have_few_doubts_and_these_come_first() -> None:
    shown = [(badge.text, badge.doubt) for badge in badges(material(RUNS))]
    assert shown == [
        ("1 run per model", True),
        ("chosen on the test set", True),
        ("energy measured", False),
        ("NVIDIA H100", False),
        ("3 models", False),
        ("500 test images", False),
    ]
    measured = _badge(material(RUNS), "energy measured")
    assert measured.explanation == "Training energy of CPU and GPU was measured."
    once = _badge(material(RUNS), "1 run per model")
    assert "a standard deviation of 1.0 point (assumed). Train more seeds." in once.explanation


@pytest.mark.parametrize(("source", "remedies"), [(None, 2), ("a paper", 0)])
def test_readers_of_published_numbers_get_no_remedy_for_those_who_train(
    source: str | None, remedies: int
) -> None:
    found = material([{**r, "tags": r["tags"] | {"pepr.imported_from": source}} for r in RUNS])
    text = " ".join(badge.explanation for badge in badges(found))
    assert "Each model was trained once" in text
    assert "The test images that choose the model" in text
    assert text.count("Train more seeds.") + text.count("Log predictions of") == remedies
    with pytest.raises(NothingToDraw, match="no good-enough model was profiled") as why:
        lifetime.panel(found, lifetime.Options(), "derma")
    assert ("pepr profile" in str(why.value)) == (remedies == 2)
    (group,) = groups(found)
    assert (group["imported"], group["command"] is None) == (remedies == 0, remedies == 0)


ESTIMATED = {"pepr.energy_source": "estimated"}
CPU = {"pepr.memory": "memory/rss_gb", "pepr.cpu_count": "2", "pepr.cpu_others": "0.9"}


@pytest.mark.parametrize(
    ("tags", "text", "words"),
    [
        (
            ESTIMATED,
            "energy estimated for 1 of 3 runs",
            "is estimated, off by up to 40% in a published comparison. Nothing bounds",
        ),
        (
            {"pepr.energy_source": "imported", "pepr.imported_from": "a paper"},
            "energy: published values",
            "Energy and time of 1 of 3 runs are published values (a paper)",
        ),
        (
            {"pepr.energy_source": None},
            "energy of unknown origin",
            "do not say whether their energy was measured or estimated",
        ),
        (
            {"pepr.paused_s": "30.0"},
            "training was suspended",
            "Training of 1 of 3 models was suspended for a while",
        ),
        (
            {"pepr.data_leak": "3 of 4 images of test are also in train"},
            "test images were trained on",
            "1 of 3 runs: 3 of 4 images of test are also in train: part of the test set was",
        ),
        (
            {"pepr.time_source": "estimated"},
            "time estimated",
            "The training time of 1 of 3 runs is estimated.",
        ),
        (
            {"pepr.energy_caution": "counts every 100 ms"},
            "coarse energy counter: 1 model",
            "Coarse energy counter: c.",
        ),
    ],
)
def test_each_doubt_about_a_run_is_a_badge(tags: dict[str, Any], text: str, words: str) -> None:
    badge = _badge(_with(tags), text)
    assert badge.doubt
    assert words in badge.explanation
    assert badge.explanation in doubts(_with(tags))


def test_models_that_shared_their_cpus_are_counted() -> None:
    badge = _badge(_with(CPU, metrics={"memory/rss_gb": 1.0}), "measured while other programs ran")
    assert badge.explanation.startswith(
        "Other programs were running while 1 of 3 models trained, so that time and energy may be "
    )


def test_all_runs_of_a_kind_are_not_counted_twice() -> None:
    runs = [{**made, "tags": {**made["tags"], **ESTIMATED}} for made in RUNS]
    badge = _badge(material(runs), "energy estimated")
    assert badge.explanation.startswith("The training energy of all 3 runs is estimated, off")


def test_seeds_are_counted() -> None:
    three = [
        run(m, seed, energy_wh=e + seed) for m, e in (("a", 9.0), ("b", 19.0)) for seed in range(3)
    ]
    assert not _badge(material(three), "3 seeds each").doubt
    assert _badge(material(three[:-1]), "2 to 3 runs per model").doubt


def test_mixed_conditions_are_named() -> None:
    found = material(
        [*RUNS, run("d", precision="bf16")], question=Question(mixed="allow", draws=50)
    )
    assert _badge(found, "mixed conditions").explanation == (
        "The models were trained under different conditions: they differ in precision. Compare "
        "their costs with care."
    )
    others = [*RUNS, run("d", tags={"pepr.hardware": "A100"})]
    found = material(others, question=Question(mixed="allow", draws=50))
    assert "those of A100 and NVIDIA H100" in _badge(found, "2 kinds of hardware").explanation


def test_a_subgroup_in_which_the_choice_is_worse_is_a_doubt() -> None:
    badge = _badge(worse_in("f"), "worse in a subgroup")
    assert badge.explanation.startswith("In 1 of 2 subgroups small is worse than large by more")
    assert "sex f (100 images) by 20.0 points" in badge.explanation


def test_a_model_that_could_not_be_compared_may_be_better() -> None:
    found = material([*RUNS, run("d", status="FAILED"), run("c", 1, status="FAILED")])
    assert _badge(found, "1 model left out").explanation == (
        "1 more model could not be compared (d). Its runs: 1 failed. It may be better."
    )
    no_memory = {"pepr.reason": "out_of_memory"}
    failed = [run("d", i, status="FAILED", tags=no_memory) for i in range(3)]
    others = [run("e", energy_wh=None), run("e", 1, status="RUNNING"), run("e", 2, status="KILLED")]
    assert _badge(material([*RUNS, *failed, *others]), "2 models left out").explanation == (
        "2 more models could not be compared (d, e). Their runs: 3 failed: out of memory; 1 cost "
        "not known; 1 killed; 1 running. One of them may be better."
    )


def test_only_models_with_a_number_of_images_were_tested_on_so_many() -> None:
    runs = [*RUNS[:2], {**RUNS[2], "tags": {**RUNS[2]["tags"], "pepr.test_images": None}}]
    explanation = _badge(material(runs), "500 test images").explanation
    assert explanation.startswith("2 of 3 models are known to be tested on 500 images.")


def test_an_unknown_error_is_a_doubt() -> None:
    runs = [{**made, "tags": {**made["tags"], "pepr.test_images": None}} for made in RUNS]
    explanation = _badge(material(runs), "no interval: 3 models").explanation
    assert explanation == (
        "The error of all 3 models is not known (unknown number of test images)."
    )


def test_anchors_are_unique_and_a_doubt_of_all_sets_appears_once() -> None:
    runs = [*RUNS, run("a", precision="bf16"), run("b", precision="bf16", energy_wh=30.0)]
    found = material(runs, question=Question(mixed="stratify", draws=20))
    anchors = [badge.explained for badge in badges(found)]
    assert len(set(anchors)) == len(anchors)
    assert badges(found)[0].comparison_set == "derma [precision=fp32]"
    assert [text[:28] for text in doubts(found)].count("Each model was trained once,") == 1


def test_every_flag_has_words() -> None:
    assert set(FLAGS) <= set(CODES)


def test_a_result_of_validation_is_no_result_on_a_test_set() -> None:
    runs = [
        run(
            model,
            performance=p,
            tags={"pepr.performance": "val/accuracy", "pepr.val_images": "400"},
            metrics={"val/accuracy": p},
        )
        for model, p in (("a", 0.9), ("b", 0.8))
    ]
    found = badges(material(runs))
    shown = {badge.text: badge.doubt for badge in found}
    assert shown["no result on a test set"] is True
    assert "chosen on validation" not in shown
    assert not any("test images" in text for text in shown)
