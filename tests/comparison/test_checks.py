"""Which runs are left out or flagged, and the texts that explain it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from made import frame, run

from pepr_mlops.comparison import Question, compare, conditions
from pepr_mlops.comparison.checks import flagged, left_out, repeated
from pepr_mlops.comparison.notes import notes_on
from pepr_mlops.comparison.runs import Evidence
from pepr_mlops.errors import WrongUse


def _texts(found: pd.DataFrame) -> dict[str, list[tuple[str, str]]]:
    return {
        str(run_id): list(zip(rows["reason"], rows["text"], strict=True))
        for run_id, rows in found.groupby("run_id")
    }


@pytest.mark.parametrize(
    ("made", "reason", "text"),
    [
        (run(status="RUNNING"), "not_finished", "running"),
        (run(status="FAILED"), "not_finished", "failed"),
        (
            run(status="FAILED", tags={"pepr.reason": "out_of_memory"}),
            *("not_finished", "failed: out of memory"),
        ),
        (run(status="KILLED", tags={"pepr.reason": "killed"}), "not_finished", "killed"),
        (run(status="FAILED", tags={"pepr.reason": "killed"}), "not_finished", "killed"),
        (run(status="KILLED", tags={"pepr.reason": "paused"}), "not_finished", "paused"),
        (run(performance=np.nan), "non_finite", "its performance is not a finite number"),
        (run(energy_wh=np.inf), "non_finite", "its energy_wh is not a finite number"),
        (run(energy_wh=float(np.finfo(float).max)), "non_finite", "its energy_wh is not a finite"),
        (run(performance=None), "no_performance", "it has no performance"),
        (run(energy_wh=None), "no_cost", "it has no energy_wh"),
        (
            run(tags={"pepr.stopped": "energy budget of 5 Wh in epoch 2"}),
            "stopped",
            "a budget stopped it: energy budget of 5 Wh in epoch 2",
        ),
        (
            run(tags={"pepr.energy_source": "lost", "pepr.energy_missing": "gpu: epoch 3: gone"}),
            "no_cost",
            "its energy is known for a part of it only: gpu: epoch 3: gone",
        ),
    ],
)
def test_a_run_that_cannot_be_compared_says_why(
    made: dict[str, object], reason: str, text: str
) -> None:
    found = left_out(frame([run(model="other"), made]), ["energy_wh"])
    assert found["run_id"].tolist() == ["run1"]
    assert found["reason"].tolist() == [reason]
    assert found["text"].iloc[0].startswith(text)


def test_energy_is_not_required_where_it_is_no_cost() -> None:
    runs = frame([run(energy_wh=None), run(model="b", memory_gb=None)])
    assert left_out(runs, ["train_time_s"]).empty
    assert left_out(runs, ["memory_gb"])["run_id"].tolist() == ["run1"]


def test_a_newer_run_of_the_same_spec_replaces_the_older() -> None:
    runs = frame(
        [
            run(start=1_000),
            run(start=3_000),
            run(start=2_000),
            run(start=1_000, seed=1),  # another seed
            run(start=1_000, lr=1e-3),  # another spec
            run(start=1_000, tags={"pepr.hardware": "CPU"}),  # other hardware
            run(start=1_000, tags={"pepr.weights": "mine.safetensors"}),  # other weights
        ]
    )
    found = _texts(repeated(runs))
    assert found.keys() == {"run0", "run2"}
    assert found["run0"] == [("duplicate", "run run1 repeats it later")]


def test_of_repetitions_the_newest_that_was_alone_on_its_device_stays() -> None:
    cpu = {"pepr.memory": "memory/rss_gb", "pepr.cpu_count": "2"}
    alone, busy = ({**cpu, "pepr.cpu_others": n} for n in ("0.1", "1.0"))
    shared = {"pepr.gpu_other_processes": "4711 python"}
    runs = frame(
        [
            run("a", start=1, tags=alone),
            run("a", start=2, tags=alone),
            run("a", start=3, tags=busy),
            run("b", start=1, tags=busy),
            run("b", start=2, tags=busy),
            run("c", start=1),
            run("c", start=2, tags=shared),
            run("d", start=1),
            run("d", start=2, tags={"pepr.paused_s": "30"}),
        ]
    )
    again, alike = "repeats it later", "did the same undisturbed"
    assert {run_id: text for run_id, ((_, text),) in _texts(repeated(runs)).items()} == {
        "run0": f"run run1 {again}",
        "run2": f"run run1 {alike}",
        "run3": f"run run4 {again}",
        "run6": f"run run5 {alike}",
        "run8": f"run run7 {alike}",
    }


def test_without_a_seed_repetitions_are_what_seeds_are() -> None:
    made = [run(start=s) for s in (1, 2)]
    for one in made:
        del one["params"]["seed"]
    assert repeated(frame(made)).empty


def test_runs_of_others_and_other_settings_are_no_repetitions() -> None:
    repeats = [run(start=s) for s in (1, 2)]
    for one, dropout in zip(repeats, ("0.1", "0.5"), strict=True):
        one["params"]["dropout"] = dropout
    assert repeated(frame(repeats)).empty
    theirs = [run(start=s, tags={"pepr.experiment": None}) for s in (1, 2)]
    assert repeated(frame(theirs)).empty


# Doubts ------------------------------------------------------------------------------------------


ON_CPU = {"pepr.memory": "memory/rss_gb", "pepr.cpu_count": "16"}
ON_GPU = {"pepr.memory": "memory/reserved_gb", "pepr.cpu_count": "16"}
ON_GPU_ALONE = {**ON_GPU, "pepr.energy_components": "gpu=measured"}


@pytest.mark.parametrize(
    "tags",
    [
        {**ON_CPU, "pepr.cpu_others": "1.59"},  # a tenth would be 1.6
        {**ON_GPU_ALONE, "pepr.cpu_others": "9"},
        ON_CPU,  # of a version that did not check
        {**ON_CPU, "pepr.paused_s": "30.0", "pepr.energy_source": "none"},  # no energy is counted
    ],
)
def test_a_cpu_that_others_hardly_use_or_that_does_not_work_is_no_doubt(
    tags: dict[str, str],
) -> None:
    assert flagged(frame([run(tags=tags)]), ["energy_wh"]).empty


def test_a_clean_run_is_not_doubted() -> None:
    # 20 Wh in 360 s are 200 W
    clean = run(
        metrics={"energy/train_gpu_wh": 15.0, "energy/train_cpu_wh": 5.0},
        tags={
            "pepr.gpu_power_limit_w": "700",
            "pepr.idle_power_w": "90",
            "pepr.gpu_other_processes": "none",
        },
    )
    costs = ["energy_wh", "train_time_s", "carbon_gco2e", "memory_gb"]
    assert flagged(frame([clean]), costs).empty


@pytest.mark.parametrize(
    ("made", "reason", "text"),
    [
        (
            run(metrics={"energy/train_gpu_wh": 90.0}, tags={"pepr.gpu_power_limit_w": "700"}),
            "power",
            "its energy means 900 W over its training time; its GPU draws at most 770 W",
        ),
        (
            run(metrics={"energy/train_gpu_wh": 160.0}),
            "power",
            "its energy means 1,600 W over its training time; its GPU draws at most 1,500 W",
        ),
        (
            run(metrics={"energy/train_gpu_wh": 0.1}),
            "power",
            "its energy means 1 W over its training time; an idle GPU takes at least 3 W",
        ),
        (
            run(energy_wh=4.0, tags={"pepr.idle_power_w": "90"}),
            "power",
            "its energy means 40 W over its training time; half of what the machine drew before "
            "it began is 45 W",
        ),
        (
            run(energy_wh=120.0, tags={"pepr.machine_power_limit_w": "1000"}),
            "power",
            "its energy means 1,200 W over its training time; its machine draws at most 1,000 W",
        ),
        (run(energy_wh=0.0), "still_counter", "its energy is zero"),
        (
            run(tags={"pepr.data_leak": "3 of 4 images of test are also in train"}),
            "data_leak",
            "3 of 4 images of test are also in train: part of the test set was in the training set",
        ),
        (
            run(tags={"pepr.data_conflict": "1 image contradicts"}),
            "data_conflict",
            "1 image contradicts: one of the labels is wrong",
        ),
        (
            run(tags={"pepr.data_few": "test has fewer than 2 images for 1 of 2 classes, b (1)"}),
            "data_few",
            "test has fewer than 2 images for 1 of 2 classes, b (1): a single image "
            "decides the recall of such a class",
        ),
        (run(tags={"pepr.energy_source": "estimated"}), "estimated", "its energy is an estimate"),
        (
            run(tags={"pepr.energy_caution": "10 windows in 5 s of training"}),
            "coarse_counter",
            "10 windows in 5 s of training",
        ),
        (
            run(tags={"pepr.gpu_other_processes": "4711 python"}),
            "other_processes",
            "other processes used its GPU: 4711 python",
        ),
        (
            run(tags={**ON_CPU, "pepr.cpu_others": "1.61"}),
            "busy_cpu",
            "other programs used 1.6 of 16 CPUs: time and energy are overstated",
        ),
        (
            run(tags={**ON_CPU, "pepr.cpu_others": "1.5", "pepr.cpu_others_of": "2"}),
            "busy_cpu",
            "other programs used 1.5 of 2 CPUs: time and energy are overstated",
        ),
        (  # it had its two CPUs to itself, and the counter is of all 16
            run(
                tags={
                    **{**ON_CPU, "pepr.cpu_others": "0.0", "pepr.cpu_others_of": "2"},
                    "pepr.machine_cpu_others": "9.5",
                }
            ),
            "busy_machine",
            "other programs used 9.5 of the machine's 16 CPUs: energy is overstated",
        ),
        (  # the energy of a GPU's job is also that of the CPUs
            run(tags={**ON_GPU, "pepr.cpu_others": "9.0"}),
            "busy_machine",
            "other programs used 9.0 of the machine's 16 CPUs: energy is overstated",
        ),
        (
            run(tags={"pepr.node_share": "Slurm gave it 4 of the node's 16 CPUs"}),
            "shared_node",
            "Slurm gave it 4 of the node's 16 CPUs",
        ),
        (
            # not "power": the sensors counted for 720 s, in which 120 Wh are 600 W
            run(
                energy_wh=120.0,
                tags={"pepr.paused_s": "360.0", "pepr.machine_power_limit_w": "1000"},
            ),
            "paused",
            "stopped or asleep for 360 s of the training: time leaves that out, measured energy "
            "does not",
        ),
    ],
)
def test_a_doubtful_run_says_why(made: dict[str, object], reason: str, text: str) -> None:
    found = flagged(frame([run(model="other", energy_wh=21.0), made]), ["energy_wh"])
    assert _texts(found) == {"run1": [(reason, text)]}


def test_images_that_the_test_does_not_depend_on_are_noted_and_no_doubt() -> None:
    """As of the paper's own PneumoniaMNIST, whose runs are compared with each other."""
    tags = {"pepr.data_val": "8 of 524 images of val are also in train"}
    runs = frame([run(tags=tags), run(model="b", energy_wh=21.0)])
    assert flagged(runs, ["energy_wh", "memory_gb", "train_time_s"]).empty
    (note,) = notes_on(runs, runs, ["memory_gb"], Question())
    assert note == (
        "1 of 2 runs: 8 of 524 images of val are also in train: validation scores are less "
        "reliable than they look; test scores are unaffected"
    )


def test_a_pause_is_no_doubt_about_the_time_nor_about_an_estimate() -> None:
    paused = {"pepr.paused_s": "30.0"}
    assert flagged(frame([run(tags=paused)]), ["train_time_s"]).empty
    estimated = {**paused, "pepr.energy_source": "estimated"}
    found = flagged(frame([run(tags=estimated)]), ["energy_wh"])
    assert found["reason"].tolist() == ["estimated"]


def test_doubts_about_energy_do_not_touch_other_costs() -> None:
    made = run(tags={"pepr.energy_source": "estimated", "pepr.time_source": "estimated"})
    assert flagged(frame([made]), ["memory_gb"]).empty
    assert flagged(frame([made]), ["train_time_s"])["reason"].tolist() == ["estimated_time"]
    assert flagged(frame([made]), ["carbon_gco2e"])["reason"].tolist() == ["estimated"]
    without = frame([made]).assign(energy_wh=float("nan"))  # such as a job that failed at its start
    assert flagged(without, ["energy_wh"]).empty


def test_energy_of_another_run_to_the_last_digit() -> None:
    runs = frame([run(energy_wh=20.123456), run(model="b", energy_wh=20.123457)])
    elsewhere = pd.DataFrame(
        {
            "run_id": ["run0", "far1", "far2"],
            "model": ["resnet18d", "resnet18d", "resnet18d"],
            "experiment": ["derma", "lidc", "pneumonia"],
            "energy_wh": [20.123456, 20.123456, 20.123456],
        }
    )
    assert flagged(runs, ["energy_wh"]).empty
    found = _texts(flagged(runs, ["energy_wh"], Evidence(energies=elsewhere)))
    assert found == {
        "run0": [
            (
                "same_energy",
                "its energy of 20.1235 Wh is to the last digit that of resnet18d in lidc "
                "(run far1) and 1 more",
            )
        ]
    }


def test_a_run_that_shares_every_number_with_another_is_a_copy() -> None:
    numbers = {"performance": 0.71, "energy_wh": 20.5, "memory_gb": 4.0, "train_time_s": 333.25}
    runs = frame([run("a", **numbers), run("b"), run("c", **{**numbers, "memory_gb": 4.1})])
    elsewhere = frame([run("x"), run("y"), run("z"), run("a", **numbers, dataset="lidc")])
    twins = elsewhere[elsewhere["model"] == "a"].assign(experiment="lidc")
    assert "same_numbers" not in flagged(runs, ["memory_gb"])["reason"].tolist()
    found = flagged(runs, ["memory_gb"], Evidence(twins=twins))
    (row,) = found[found["reason"] == "same_numbers"].to_dict("records")
    assert row["run_id"] == "run0"
    assert "those of a in lidc (run run3): one of the two is a copy" in row["text"]


def test_what_copies_have_in_common_is_named_and_rounded_numbers_are_no_copy() -> None:
    known = {"performance": 0.71, "energy_wh": None, "memory_gb": 4.0, "train_time_s": 333.0}
    found = flagged(frame([run("a", **known), run("b", **known)]), ["memory_gb"])
    assert (
        found["text"]
        .tolist()[0]
        .startswith("its time, memory and performance are to the last digit those of b in derma")
    )
    unknown = {**known, "memory_gb": None}
    assert flagged(frame([run("a", **unknown), run("b", **unknown)]), ["train_time_s"]).empty


def test_an_accuracy_on_other_images_than_the_others() -> None:
    """Whole batches of 32 of 2,005 images are 1,984."""
    counts = [1200, 1301, 1402, 1503, 1604, 1250, 1351]
    made = [run(f"m{i}", performance=k / 1984) for i, k in enumerate(counts)]
    odd = run("odd", performance=2000 / 3008)
    found = flagged(frame([*made, odd]), ["memory_gb"])
    assert found["run_id"].tolist() == ["run7"]
    assert found["reason"].tolist() == ["impossible_accuracy"]
    assert found["text"].item() == (
        "its performance of 0.664894 is no count of 1,984 images, as that of 7 other runs on its "
        "data set is: it is of other images or computed in another way"
    )
    other_data = run("odd", performance=2000 / 3008, tags={"pepr.data_digest": "feed"})
    assert flagged(frame([*made, other_data]), ["memory_gb"]).empty


def test_a_counter_that_stood_still_in_one_epoch() -> None:
    epochs = pd.DataFrame(
        {
            "run_id": ["run0"] * 3 + ["run1"] * 3,
            "step": [1, 2, 3, 3, 2, 1],
            "energy_wh": [1.0, 1.0, 2.0, 3.0, 2.0, 1.0],  # the second is in reverse order
        }
    )
    runs = frame([run(energy_wh=2.0), run(model="b", energy_wh=3.0)])
    found = _texts(flagged(runs, ["energy_wh"], Evidence(epochs=epochs)))
    assert found == {
        "run0": [("still_counter", "its energy did not grow in epoch 2: a counter stood still")]
    }


# Comparison sets ---------------------------------------------------------------------------------


def test_what_runs_must_share_depends_on_the_cost() -> None:
    assert "energy_components" in conditions.comparable(["energy_wh"])
    assert "energy_components" not in conditions.comparable(["train_time_s"])
    assert "memory_metric" in conditions.comparable(["memory_gb"])
    assert "fraction" in conditions.comparable(["energy_wh"])
    assert "fraction" not in conditions.comparable(["fraction"])


def test_one_data_set_of_two_names_is_one() -> None:
    """And where there is another one too, each has a set of its own."""
    names = ["dataset", "size", "data_digest"]
    renamed = run(seed=1, dataset="moved", size=128)
    unknown = run("b", dataset="moved", tags={"pepr.data_digest": None})
    found = conditions.by_content(frame([run(), renamed, unknown]))
    assert found["dataset"].tolist() == ["derma", "derma", "moved"]
    assert found["size"].tolist() == [224, 224, 224]
    assert conditions.mixed(found[:2], names) == []
    other = run(seed=2, size=28, tags={"pepr.data_digest": "feed"})
    found = conditions.by_content(frame([run(), renamed, other]))
    assert conditions.mixed(found, names) == ["size", "data_digest"]
    again = compare(
        frame([run(), run(dataset="moved", start=9**13), unknown]),
        Question(mixed="stratify", draws=0),
    ).runs
    assert again["reasons"].tolist() == [["run run1 repeats it later"], [], []]


def test_own_code_may_name_parts_of_one_folder() -> None:
    """Two organs in one folder of images, whose digest both runs have."""
    made = [run(seed=i, dataset=name) for i, name in enumerate(("liver", "kidney"))]
    for one in made:
        del one["params"]["compile"]
    with pytest.raises(WrongUse, match="derma mixes dataset"):
        compare(frame(made), Question())


def test_groups_are_named_and_counted() -> None:
    other = run(model="b", precision="bf16", tags={"pepr.hardware": None})
    runs = frame([run(), run(model="c"), other])
    differ = conditions.mixed(runs, conditions.comparable(["energy_wh"]))
    assert differ == ["precision", "hardware"]
    assert conditions.listed(conditions.groups(runs, differ)) == (
        "precision=fp32, hardware=NVIDIA H100: 2 runs; precision=bf16, hardware=not known: 1 run"
    )


def test_a_folder_is_one_data_set_wherever_it_lies() -> None:
    runs = frame([run(dataset="./scans"), run(dataset="/data/scans/")])
    assert conditions.mixed(runs, ["dataset"]) == []
