"""What reports are drawn from."""

from __future__ import annotations

import numpy as np
import pytest
from made import frame, material, run

from pepr_mlops.comparison import Question, compare
from pepr_mlops.comparison.pepr import Bounds, Reference
from pepr_mlops.comparison.scores import other_costs
from pepr_mlops.costs.carbon import Intensity

THREE = [
    run("a", performance=0.6, energy_wh=10.0, memory_gb=2.0, train_time_s=100.0),
    run("resnet18d", performance=0.8, energy_wh=20.0, memory_gb=4.0, train_time_s=300.0),
    run("c", performance=0.9, energy_wh=50.0, memory_gb=3.0, train_time_s=200.0),
]


def test_every_resource_that_all_runs_have_is_shown_with_the_requested_one() -> None:
    found = material(THREE)
    assert found.main_sets == ["derma"]
    assert found.resources("derma") == ["E", "M", "T"]  # no run has CO2e
    rows = found.models.set_index("model")
    assert rows["R E"].to_dict() == pytest.approx({"a": 0, "resnet18d": 0.25, "c": 1})
    assert rows["R M"].to_dict() == pytest.approx({"a": 0, "resnet18d": 1, "c": 0.5})
    assert rows["cost T"].to_dict() == {"a": 100, "resnet18d": 300, "c": 200}
    assert rows["PePR-M"].to_dict() == pytest.approx({"a": 0.6, "resnet18d": 0.4, "c": 0.6})
    assert rows["score"].to_dict() == pytest.approx({"a": 0.6, "resnet18d": 0.64, "c": 0.45})
    assert rows.loc["resnet18d", ["kind", "efficient"]].tolist() == ["CNN", "no"]
    assert rows.loc["a", ["kind", "efficient"]].isna().all()


def test_a_resource_some_run_lacks_is_not_shown() -> None:
    found = material([*THREE, run("d", memory_gb=None)])
    assert found.resources("derma") == ["E", "T"]


def test_memory_of_two_kinds_is_not_shown_with_energy() -> None:
    other = run(
        "d", energy_wh=30.0, tags={"pepr.memory": "memory/rss_gb"}, metrics={"memory/rss_gb": 9.0}
    )
    found = material([*THREE, other])
    assert found.resources("derma") == ["E", "T"]


def test_weighted_resources_have_one_score_and_an_r_each() -> None:
    question = Question(resources=("E", "M"), weights=(0.75, 0.25), alpha=2, draws=50)
    rows = material(THREE, question=question).models.set_index("model")
    assert set(rows["scored_by"]) == {"E+M"}
    r = 0.75 * 0.25 + 0.25 * 1
    assert rows.loc["resnet18d", "R"] == pytest.approx(r)
    assert rows.loc["resnet18d", "score"] == pytest.approx(2 * 0.8 / (2 + r))
    assert rows.loc["resnet18d", "PePR-M"] == pytest.approx(2 * 0.8 / 3)


def test_seeds_are_means_and_the_newest_run_is_linked() -> None:
    runs = [
        run("a", seed=0, energy_wh=10.0, start=1),
        run("a", seed=1, energy_wh=30.0, start=3),
        run("b", energy_wh=40.0, start=2),
    ]
    rows = material(runs).models.set_index("model")
    assert rows.loc["a", ["cost E", "n", "run_id"]].tolist() == [20.0, 2, "run1"]
    assert rows.loc["a", "R E"] == 0
    assert rows.loc["b", "R E"] == 1


def test_a_reference_shows_what_it_has_bounds_of() -> None:
    shared = compare(frame(THREE), Question()).sets["shared"].iloc[0]
    saved = Reference({"energy_wh": Bounds(0, 100)}, {"shared": shared})
    question = Question(normalisation="reference", reference=saved)
    assert other_costs(compare(frame(THREE), question), question) == []


def test_carbon_under_one_intensity() -> None:
    question = Question(resources=("E", "C"), intensity=Intensity(200.0, "given"), draws=50)
    rows = material(THREE, question=question).models.set_index("model")
    assert rows["cost C"].to_dict() == pytest.approx({"a": 2.0, "resnet18d": 4.0, "c": 10.0})
    assert np.allclose(rows["R C"], rows["R E"])


def test_companions_of_the_main_experiment_are_their_own_sets() -> None:
    companion = [run(m, tags={"pepr.experiment": "other"}) for m in ("a", "b")]
    found = material(THREE, companion)
    assert found.main_sets == ["derma"]
    assert found.sets_of(["other", "absent"]) == ["other"]
    assert found.models.groupby("comparison_set").size().to_dict() == {"derma": 3, "other": 2}
