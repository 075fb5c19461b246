"""Costs of use: which runs have them, and which are not compared."""

from __future__ import annotations

from typing import Any

import pytest
from made import frame, run

from pepr_mlops.comparison import Question, compare
from pepr_mlops.errors import WorkFailed, WrongUse

USE = Question(resources=("inference/wh_per_image",), draws=200)


def profiled(model: str, wh: float, seed: int = 0, **given: Any) -> dict[str, Any]:
    """A run whose model was profiled: `tags` are added to those of the profile."""
    tags = {
        "pepr.inference_values": "ms_p50,wh_per_image",
        "pepr.inference_hardware": "AMD EPYC",
        "pepr.inference_threads": "2",
        "pepr.inference_precision": "fp32",
        "pepr.inference_batch": "32",
        "pepr.inference_energy_source": "measured",
        "pepr.inference_energy_components": "cpu=measured",
        "pepr.inference_unstable": "none",
        "pepr.inference_disturbed": "none",
        **given.pop("tags", {}),
    }
    metrics = {"inference/wh_per_image": wh, "inference/ms_p50": 5.0, **given.pop("metrics", {})}
    return run(model, seed, tags=tags, metrics=metrics, **given)


def test_models_are_scored_by_what_an_image_costs() -> None:
    found = compare(frame([profiled("a", 0.001), profiled("b", 0.003)]), USE)
    rows = found.scores.set_index("model")
    assert rows["cost"].to_dict() == {"a": 0.001, "b": 0.003}
    assert rows["score"].to_dict() == {"a": 0.8, "b": 0.4}  # P / (1 + R), R 0 and 1


def test_other_seeds_of_a_model_have_the_mean_of_its_profiled_runs() -> None:
    runs = [profiled("a", 0.001, 0), profiled("a", 0.002, 1), run("a", 2), profiled("b", 0.003)]
    found = compare(frame(runs), USE)
    rows = found.scores.set_index("model")
    assert rows.loc["a", "n"] == 3
    assert rows.loc["a", "cost"] == pytest.approx(0.0015)
    assert any("inference: 3 of 4 runs were profiled" in note for note in found.notes)


def test_a_run_of_other_settings_has_no_profile_of_its_own() -> None:
    runs = [profiled("a", 0.001), run("a", 1, image_size=64), profiled("b", 0.003)]
    found = compare(frame(runs), USE)
    assert found.runs["used"].tolist() == [True, False, True]
    assert found.runs["reasons"][1] == [
        "it has no inference/wh_per_image; `pepr profile RUN`, or with --experiment NAME, measures "
        "it"
    ]


def test_models_that_were_not_profiled_are_named() -> None:
    runs = [profiled("a", 0.001), run("b", performance=0.9), run("c", performance=0.85)]
    (note,) = [note for note in compare(frame(runs), USE).notes if "left out" in note]
    assert note.startswith("2 models without inference/wh_per_image are left out (b, c), the best")
    assert "b with P 0.9000; `pepr profile RUN`" in note


def test_without_any_profile_the_command_is_named() -> None:
    with pytest.raises(WrongUse, match=r"wh_per_image: no run was profiled; `pepr profile RUN`"):
        compare(frame([run("a")]), USE)
    onnx = Question(resources=("inference_onnx/ms_p50",))
    with pytest.raises(WrongUse, match=r"`pepr profile RUN --onnx`"):
        compare(frame([run("a")]), onnx)


@pytest.mark.parametrize(
    ("name", "value"),
    [("hardware", "H100"), ("threads", "8"), ("precision", "bf16"), ("batch", "64")],
)
def test_profiles_of_other_conditions_are_not_compared(name: str, value: str) -> None:
    runs = [profiled("a", 0.001), profiled("b", 0.003, tags={f"pepr.inference_{name}": value})]
    with pytest.raises(WrongUse, match=f"derma mixes inference_{name}"):
        compare(frame(runs), USE)
    assert compare(frame(runs), Question(draws=0)).scores["rank"].notna().all()  # by training


def test_how_the_energy_is_known_matters_to_energy_alone() -> None:
    tags = {
        "pepr.inference_energy_source": "estimated",
        "pepr.inference_energy_components": "cpu=estimated",
    }
    runs = frame([profiled("a", 0.001), profiled("b", 0.003, tags=tags)])
    with pytest.raises(WrongUse, match="mixes inference_energy_components"):
        compare(runs, USE)
    latency = compare(runs, Question(resources=("inference/ms_p50",), draws=0))
    assert not any("inference_estimated" in codes for codes in latency.scores["codes"])


def test_an_estimate_is_flagged_and_its_interval_is_wider() -> None:
    tags = {
        "pepr.inference_energy_source": "estimated",
        "pepr.inference_energy_components": "cpu=estimated",
    }
    measured, estimated = (
        compare(frame([profiled(m, wh, tags=t) for m, wh in (("a", 0.001), ("b", 0.003))]), USE)
        for t in ({}, tags)
    )
    assert all("inference_estimated" in codes for codes in estimated.scores["codes"])
    assert not any("inference_estimated" in codes for codes in measured.scores["codes"])
    assert any("energy of use of 2 of 2 runs is estimated" in note for note in estimated.notes)
    spread = [
        found.draws["derma"].costs["metrics.inference/wh_per_image"].std(axis=0).tolist()
        for found in (measured, estimated)
    ]
    assert spread[0] == pytest.approx([0.00005, 0.00015], rel=0.2)  # 5%
    assert spread[1][0] > 3 * spread[0][0]  # 20% and 10%


def test_unstable_and_disturbed_profiles_are_flagged() -> None:
    tags = {"pepr.inference_unstable": "ms_p95 7.0%"}
    busy = {"pepr.inference_disturbed": "other programs used 1.5 of 2 CPUs"}
    runs = [profiled("a", 0.001, tags=tags), profiled("b", 0.003, tags=busy)]
    rows = compare(frame(runs), USE).scores.set_index("model")
    found = rows["codes"].map(lambda codes: [c for c in codes if c.startswith("inference")])
    assert found.to_dict() == {"a": ["inference_unstable"], "b": ["inference_disturbed"]}
    assert "ms_p95 7.0%" in rows.loc["a", "flags"][0]


def test_values_that_an_earlier_profile_left_are_missing() -> None:
    """The latest was without a sensor; MLflow still has the energy of the one before."""
    latest = {"pepr.inference_values": "ms_p50", "pepr.inference_energy_source": "none"}
    with pytest.raises(WorkFailed, match="no run can be compared"):
        compare(frame([profiled("a", 0.001, tags=latest)]), USE)
