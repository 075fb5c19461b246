"""What a sweep consists of and how far it is, counted by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
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


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({"modle": "a"}, "modle: no such parameter; did you mean 'model'?"),
        ({"seed": []}, "seed: the list is empty"),
        ({"seed": [[1]]}, r"seed: \[1\] is no value"),
        ({"seed": {"a": 1}}, "is no value"),
        ({"epochs": ["ten"]}, "epochs: 'ten' is not a whole number"),
        ({"budget_wh": 5}, "limit the sweep instead"),
        ({"pretrained": False, "weights": "w"}, "weights: a file of weights excludes"),
    ],
)
def test_a_wrong_grid_is_told(grid: dict[str, object], words: str) -> None:
    with pytest.raises(WrongUse, match=words):
        plan.expand(grid)


def test_a_job_is_known_by_what_its_files_hold_and_not_by_where_they_lie() -> None:
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


def test_a_job_from_before_there_was_an_option_is_the_same_job() -> None:
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
    again = plan.states([C], runs, again={C.fingerprint})
    assert list(again["state"]) == ["pending"]
    assert [t.spec for t in plan.exhaustive(table, runs)] == [D, B]


def test_energy_that_is_not_known_is_not_nothing() -> None:
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
    of = frame([_run(A, metrics=costs), _run(B, metrics=costs, tags=evaluated)])
    assert np.array_equal(plan.spent_wh(of), [23.0, np.nan], equal_nan=True)


def test_trials_of_settings_are_part_of_what_was_spent() -> None:
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


def test_runs_nobody_works_on() -> None:
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


def test_forecasts_come_from_what_is_nearest() -> None:
    conditions = {"image_size": 64, "pretrained": False}

    def spec(model: str, **changed: object) -> Job:
        return job(model=model, **{**conditions, **changed})  # type: ignore[arg-type]

    # cost = parameters ** 0.5 Wh per epoch, exactly a power law
    sizes = {"a": 100, "b": 400, "c": 1600, "new": 900}
    runs = frame(
        [
            _run(spec(m), energy_wh=10.0 * sizes[m] ** 0.5, train_time_s=20.0 * sizes[m] ** 0.5)
            for m in "abc"
        ]
        + [
            _run(
                spec("probed"),
                "KILLED",
                energy_wh=0.01,
                train_time_s=0.1,
                tags={"pepr.probe": "3 + 10"},
                metrics={"forecast/train_wh": 70.0, "forecast/train_s": 140.0},
            )
        ]
    )
    # What trainings themselves forecast is not what they took, and no probe.
    trained = runs["probe"].isna()
    runs.loc[trained, ["metrics.forecast/train_wh", "metrics.forecast/train_s"]] = 1e6
    asked = [
        spec("a", seed=5),
        spec("b", epochs=5, fraction=0.5, seed=1),
        spec("new"),
        spec("probed"),
        spec("unheard_of"),
        spec("a", image_size=128),
    ]
    found = plan.forecast(asked, runs, sizes)
    assert list(found["energy_wh"])[:4] == pytest.approx([100, 200 / 4, 300, 70])
    assert list(found["time_s"])[:4] == pytest.approx([200, 400 / 4, 600, 140])
    assert found["energy_wh"].iloc[4] == pytest.approx((100 + 200 + 400 + 70) / 4)
    assert list(found["basis"]) == [
        *("1 run of it", "1 run of it"),
        *("extrapolated from 3 models of other sizes", "probe"),
        *("extrapolated: the mean of 4 other models", "not known"),
    ]
    # what was run has no range, an exact power law none to speak of, and a mean that of all
    assert found["energy_wh_low"].isna().tolist() == [True, True, False, True, False, True]
    assert found["energy_wh_high"].iloc[2] == pytest.approx(300)
    assert found[["energy_wh_low", "energy_wh_high"]].iloc[4].tolist() == pytest.approx([70, 400])
    assert pd.isna(found["energy_wh"].iloc[5])


def test_a_power_law_says_how_far_it_may_be_off() -> None:
    """The prediction interval of `statsmodels` or R: here by SciPy's own regression and t."""
    from scipy import stats

    sizes = {"a": 1e6, "b": 3e6, "c": 1e7, "d": 3e7, "e": 1e8, "new": 2e8}
    costs = {"a": 1.0, "b": 6.0, "c": 4.0, "d": 30.0, "e": 20.0}  # not much of a law
    made = [_run(job(model=m), energy_wh=wh, train_time_s=60 * wh) for m, wh in costs.items()]
    runs = frame(made)
    (row,) = plan.forecast([job(model="new")], runs, sizes).to_dict("records")
    x = np.log([sizes[m] for m in costs])
    line = stats.linregress(x, np.log(list(costs.values())))
    new, n = np.log(sizes["new"]), len(costs)
    s = line.stderr * np.sqrt(((x - x.mean()) ** 2).sum())  # of the residuals
    error = np.sqrt(
        s**2
        + line.intercept_stderr**2
        + (new * line.stderr) ** 2
        - 2 * new * x.mean() * line.stderr**2
    )
    expected = line.intercept + line.slope * new
    margin = stats.t.ppf(0.975, n - 2) * error
    assert row["energy_wh"] == pytest.approx(np.exp(expected))
    assert row["energy_wh_low"] == pytest.approx(np.exp(expected - margin))
    assert row["energy_wh_high"] == pytest.approx(np.exp(expected + margin))
    assert row["energy_wh_high"] > 5 * row["energy_wh"]
    assert row["basis"] == "extrapolated from 5 models of other sizes"
    (row,) = plan.forecast([job(model="new")], frame(made[:1]), sizes).to_dict("records")
    assert row["energy_wh"] == 1.0
    assert np.isnan(row["energy_wh_low"])
    assert row["basis"] == "extrapolated: one other model, which tells no range"


def _probe(spec: Job, wh: float, start: int, **changed: object) -> dict[str, object]:
    tags = {"pepr.probe": "3 + 10", **changed.pop("tags", {})}  # type: ignore[dict-item]
    metrics = {"forecast/train_wh": wh, "forecast/train_s": 2 * wh}
    return _run(spec, "KILLED", start=start, tags=tags, metrics=metrics, energy_wh=0.5, **changed)


def test_forecasts_come_from_the_last_probe_and_machine() -> None:
    # the server gives the newest first
    runs = frame([_probe(A, 40.0, 2), _probe(A, 100.0, 1)])
    found = plan.forecast([A, job(model="a", seed=1)], runs, {})
    assert list(found["energy_wh"]) == [40.0, 70.0]
    assert list(found["basis"]) == ["probe", "2 probes of it"]
    cpu = {"pepr.hardware": "AMD EPYC", "pepr.energy_components": "cpu=estimated"}
    runs = frame([_run(A, energy_wh=10.0, start=2), _run(A, energy_wh=100.0, start=1, tags=cpu)])
    (row,) = plan.forecast([job(model="a", seed=1)], runs, {}).to_dict("records")
    assert (row["energy_wh"], row["basis"]) == (10.0, "1 run of it")


def test_to_come_is_what_the_run_of_a_job_has_not_trained_yet() -> None:
    paused = {"pepr.reason": "paused"}
    runs = frame(
        [
            _probe(A, 50.0, 1),
            _run(A, "KILLED", start=2, energy_wh=20.0, train_time_s=30.0, tags=paused),
            _run(A, "FAILED", start=1, energy_wh=9.0, tags={"pepr.reason": "lost"}),
            _probe(B, 7.0, 1),
            _run(C, start=1),
        ]
    )
    found = plan.to_come(
        plan.states([A, B, C, job(model="d", data_digest="another")], runs), runs, {}
    )
    assert found["energy_wh"].tolist()[:2] == [30.0, 7.0]
    assert found["time_s"].tolist()[:2] == [70.0, 14.0]
    assert len(found) == 3  # c is done
    assert pd.isna(found["energy_wh"].iloc[2])
