"""The jobs of a sweep and their states, counted by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made import frame, job, run

from pepr_mlops.errors import WrongUse
from pepr_mlops.spec import Job, RunSpec
from pepr_mlops.sweep import plan


def test_every_combination_once_in_order() -> None:
    specs = plan.expand({"model": ["a", "b"], "seed": ["0", "1", "1"], "pretrained": "false"})
    assert [(s.model, s.seed) for s in specs] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert not any(s.pretrained for s in specs)
    assert plan.expand({"seed": 3}) == [RunSpec(seed=3)]
    assert plan.expand({"pretrained": [True, False]}) == plan.expand(
        {"pretrained": ["true", "false"]}
    )


def test_folds_are_jobs_of_their_own_unless_one_is_named() -> None:
    specs = plan.expand({"model": ["a", "b"], "folds": "3"})
    assert [(s.model, s.folds, s.fold) for s in specs] == [
        (model, 3, fold) for model in ("a", "b") for fold in (1, 2, 3)
    ]
    assert [s.fold for s in plan.expand({"folds": 3, "fold": ["2", "3"]})] == [2, 3]
    several = [(s.folds, s.fold) for s in plan.expand({"folds": ["none", 3, 4]})]
    assert several == [(None, None), *((3, k) for k in (1, 2, 3)), *((4, k) for k in (1, 2, 3, 4))]
    assert len({job(folds=3, fold=k).fingerprint for k in (1, 2, 3)}) == 3


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"modle": "a"}, "modle: no such parameter; did you mean 'model'?"),
        ({"seed": []}, "seed: the list is empty"),
        ({"seed": [[1]]}, r"seed: \[1\] is not a value"),
        ({"seed": {"a": 1}}, "is not a value"),
        ({"epochs": ["ten"]}, "epochs: 'ten' is not a whole number"),
        ({"budget_wh": 5}, "limit the sweep instead"),
        ({"folds": 1}, "folds: '1' is not 3 or more"),
        ({"folds": 3, "fold": 4}, "fold: 4 is not one of 1 to 3"),
        ({"fold": 2}, "fold: give the number of parts too"),
        ({"pretrained": False, "weights": "w"}, "weights: a file of weights excludes"),
    ],
)
def test_a_wrong_grid_is_refused(grid: dict[str, object], message: str) -> None:
    with pytest.raises(WrongUse, match=message):
        plan.expand(grid)


def test_a_job_is_identified_by_the_content_of_its_files_and_not_by_their_place() -> None:
    here = job(dataset="/here/clinic", weights="/here/w.safetensors", weights_digest="a")
    there = job(
        **{"dataset": "/there/clinic", "data_root": "/elsewhere", "size": 28},
        **{"weights": "/there/w2.safetensors", "weights_digest": "a"},
    )
    assert here.fingerprint == there.fingerprint
    others = [
        replace(here, data_digest="0"),  # other images, or a label corrected in place
        replace(here, weights_digest="b"),
        replace(here, dataset="/here/other"),  # its runs are compared under another name
        *(replace(here, **one) for one in ({"seed": 1}, {"lr": 1e-3}, {"precision": "bf16"})),
    ]
    assert len({one.fingerprint for one in [here, *others]}) == 7
    named = replace(here, dataset="/here/other", experiment="clinic")
    assert named.fingerprint == here.fingerprint


def test_a_new_option_at_its_default_leaves_a_job_the_same() -> None:
    assert job().earlier_fingerprint == "3a5cba722b692581"  # as logged before there was `launch`
    assert RunSpec(data_root="/elsewhere").earlier_fingerprint == "3a5cba722b692581"
    assert job(launch="kernels").fingerprint == job().fingerprint
    assert job(launch="graph").fingerprint != job().fingerprint


def test_the_order_depends_on_the_seed_and_the_jobs_alone() -> None:
    specs = [job(seed=seed) for seed in range(20)]
    drawn = plan.shuffled(specs, 1)
    assert drawn == plan.shuffled(specs[::-1], 1)
    assert drawn != plan.shuffled(specs, 2)
    assert {s.seed for s in drawn} == set(range(20))


def _run(spec: Job, status: str = "FINISHED", **changed: object) -> dict[str, object]:
    tags = {"pepr.spec": spec.fingerprint, **changed.pop("tags", {})}  # type: ignore[dict-item]
    made = run(spec.model, spec.seed, status=status, tags=tags, **changed)
    return {**made, "params": spec.as_params()}


A, B, C, D = (job(model=m) for m in "abcd")


def test_states_of_jobs() -> None:
    runs = frame(
        [
            _run(A, start=1),
            _run(B, "FAILED", start=1, tags={"pepr.reason": "lost"}, energy_wh=2.0),
            _run(B, "RUNNING", start=2, energy_wh=3.0, metrics={"energy/eval_wh": 0.5}),
            _run(C, "FAILED", tags={"pepr.reason": "out_of_memory", "pepr.error": "too big"}),
            _run(D, "KILLED", tags={"pepr.reason": "probed", "pepr.probe": "3"}, energy_wh=0.25),
        ]
    )
    table = plan.states([D, C, B, A], runs)
    assert list(table["state"]) == ["pending", "failed", "running", "done"]
    assert list(table["run_id"]) == [None, "run3", "run2", "run0"]
    assert table.loc[C.fingerprint, "error"] == "too big"
    assert list(table["energy_wh"]) == [0.25, 20.0, 5.5, 20.0]
    again = plan.states([C], runs, retry_failed=True)
    assert list(again["state"]) == ["pending"]
    assert [t.spec for t in plan.exhaustive(table, runs)] == [D, B]


def test_unknown_energy_is_missing_and_not_zero() -> None:
    lost = {"pepr.energy_source": "lost", "pepr.energy_components": "gpu=measured"}
    runs = frame(
        [
            _run(A, tags=lost),
            _run(B, energy_wh=None, train_time_s=None, status="RUNNING"),
            _run(C, energy_wh=None),
        ]
    )
    table = plan.states([A, B, C, D], runs)
    assert np.array_equal(table["energy_wh"], [np.nan, 0.0, np.nan, 0.0], equal_nan=True)
    evaluated = {"pepr.energy_missing": "gpu (eval): no reading"}
    costs = {"time/eval_s": 9.0, "energy/eval_wh": 3.0}
    evaluation = frame([_run(A, metrics=costs), _run(B, metrics=costs, tags=evaluated)])
    assert np.array_equal(plan.spent_wh(evaluation), [23.0, np.nan], equal_nan=True)


def test_trials_of_settings_count_as_spent() -> None:
    tried = {"time/trial_s": 4.0, "energy/trial_wh": 0.5}
    before_training = {"energy_wh": None, "train_time_s": None, "status": "RUNNING"}
    runs = frame(
        [
            _run(A, metrics=tried),
            _run(B, metrics=tried, **before_training),
            _run(C, metrics={"time/trial_s": 4.0}),
        ]
    )
    assert np.array_equal(plan.spent_wh(runs), [20.5, 0.5, np.nan], equal_nan=True)


def test_runs_without_a_process_are_abandoned() -> None:
    def tags(process: str, beat_s: float) -> dict[str, str]:
        return {"pepr.process": process, "pepr.heartbeat": str(int(beat_s * 1000))}

    runs = frame(
        [
            _run(A, "RUNNING", tags=tags("here", 990)),
            _run(B, "RUNNING", tags=tags("gone", 999)),
            _run(C, "RUNNING", tags=tags("silent", 600)),
            _run(D, "KILLED", tags=tags("gone", 1)),
            _run(job(seed=7), "RUNNING"),
        ]
    )
    found = plan.abandoned(runs, 1000.0, 300.0, {"here": True, "gone": False}.get)
    assert found == ["run1", "run2"]
