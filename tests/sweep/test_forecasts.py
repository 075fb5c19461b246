"""The expected costs of jobs, and how far they may be off."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from made import DIGEST, frame, job, run
from scipy import stats

from pepr_mlops.spec import Job
from pepr_mlops.sweep import plan
from pepr_mlops.sweep.forecasts import forecast, to_come
from pepr_mlops.tracking import read

A, B, C = (job(model=m) for m in "abc")


def _run(
    spec: Job, status: str = "FINISHED", *, size: int = 11_708_744, **changed: object
) -> dict[str, object]:
    tags = {
        "pepr.spec": spec.fingerprint,
        "pepr.parameters": str(size),
        **changed.pop("tags", {}),  # type: ignore[dict-item]
    }
    made = run(spec.model, spec.seed, status=status, tags=tags, **changed)
    return {**made, "params": spec.as_params()}


def test_forecasts_come_from_the_most_similar_runs() -> None:
    conditions = {"image_size": 64, "pretrained": False}

    def spec(model: str, **changed: object) -> Job:
        return job(model=model, **{**conditions, **changed})  # type: ignore[arg-type]

    probe = {
        "tags": {"pepr.probe": "3 + 10"},
        "metrics": {"forecast/train_wh": 70.0, "forecast/train_s": 140.0},
    }
    runs = frame(
        [
            *(
                _run(spec(m), energy_wh=wh, train_time_s=2 * wh)
                for m, wh in (("a", 100), ("b", 200))
            ),
            _run(spec("probed"), "KILLED", energy_wh=0.01, train_time_s=0.1, **probe),
        ]
    )
    # The forecast that a training logs is neither its cost nor a probe.
    trained = runs["probe"].isna()
    runs.loc[trained, ["metrics.forecast/train_wh", "metrics.forecast/train_s"]] = 1e6
    specs = [
        spec("a", seed=5),
        spec("b", epochs=5, fraction=0.5, seed=1),
        spec("probed"),
        spec("a", image_size=128),
    ]
    found = forecast(specs, runs, {})
    assert list(found["energy_wh"])[:3] == pytest.approx([100, 200 / 4, 70])
    assert list(found["time_s"])[:3] == pytest.approx([200, 400 / 4, 140])
    assert found["energy_wh_low"].isna().all()
    assert list(found["basis"]) == ["1 run of it", "1 run of it", "probe", "not known"]
    assert found["machine"].tolist() == [*["NVIDIA H100"] * 3, ""]


def test_a_line_through_five_other_models_has_a_prediction_interval() -> None:
    """As R and statsmodels have it: here from SciPy's regression and t distribution."""
    sizes = {"a": 1e6, "b": 3e6, "c": 1e7, "d": 3e7, "e": 1e8}
    costs = {"a": 1.0, "b": 6.0, "c": 4.0, "d": 30.0, "e": 20.0}  # not much of a law
    runs = frame(
        [
            _run(job(model=m), size=int(sizes[m]), energy_wh=wh, train_time_s=60 * wh)
            for m, wh in costs.items()
        ]
    )
    (row,) = forecast([job(model="new")], runs, {"new": 200_000_000}).to_dict("records")
    x = np.log(list(sizes.values()))
    line = stats.linregress(x, np.log(list(costs.values())))
    new, n = np.log(2e8), len(costs)
    residuals = line.stderr * np.sqrt(((x - x.mean()) ** 2).sum())
    error = np.sqrt(residuals**2 * (1 + 1 / n) + ((new - x.mean()) * line.stderr) ** 2)
    expected = line.intercept + line.slope * new
    margin = stats.t.ppf(0.975, n - 2) * error
    assert row["energy_wh"] == pytest.approx(np.exp(expected))
    assert row["energy_wh_low"] == pytest.approx(np.exp(expected - margin))
    assert row["energy_wh_high"] == pytest.approx(np.exp(expected + margin))
    assert row["energy_wh_high"] > 5 * row["energy_wh"]
    assert row["basis"] == "extrapolated from 5 other models"


def test_a_forecast_from_few_models_lies_between_their_costs_and_proportional_ones() -> None:
    """Of 10 and 20 Wh at 1 and 4 million, a model of 8 million: 10, 20, 80 and 40 Wh."""
    runs = frame(
        [
            _run(A, size=1_000_000, energy_wh=10.0, train_time_s=10.0),
            _run(B, size=4_000_000, energy_wh=20.0, train_time_s=20.0),
        ]
    )
    (row,) = forecast([job(model="new")], runs, {"new": 8_000_000}).to_dict("records")
    assert (row["energy_wh_low"], row["energy_wh_high"]) == pytest.approx((10 / 1.5, 80 * 1.5))
    assert row["energy_wh"] == pytest.approx(np.sqrt(10 * 80))
    assert row["basis"] == "extrapolated from 2 other models"
    (row,) = forecast([job(model="new")], runs, {}).to_dict("records")  # of unknown size
    assert row["energy_wh"] == 15.0
    assert np.isnan(row["energy_wh_low"])


@pytest.mark.parametrize(
    ("others", "least"), [(1, 0.78), (2, 0.9), (3, 0.93), (5, 0.88), (12, 0.9)]
)
def test_the_ranges_hold_for_the_papers_models(paper_store: str, others: int, least: float) -> None:
    """Any model of `derma` from some others, 60 times."""
    defaults = job().values()
    absent = ("channels", "layout", "launch", "compile", "deterministic", "size", "pretrained")
    absent += ("augment", "tune")
    runs = read.load_runs("derma", tracking_uri=paper_store)
    runs = runs.assign(**{name: defaults[name] for name in absent}, data_digest=DIGEST)
    runs = runs.assign(**{f"params.{n}": "none" for n in ("threads", "layout", "launch")})
    rng = np.random.default_rng(others)
    held = []
    for _ in range(60):
        drawn = runs.iloc[rng.choice(len(runs), others + 1, replace=False)]
        new = drawn.iloc[-1]
        spec = job(model=new["model"])
        (row,) = forecast([spec], drawn.iloc[:-1], {new["model"]: int(new["parameters"])}).to_dict(
            "records"
        )
        held.append(row["energy_wh_low"] <= new["energy_wh"] <= row["energy_wh_high"])
    assert np.mean(held) >= least


def _probe(spec: Job, wh: float, start: int, **changed: object) -> dict[str, object]:
    tags = {"pepr.probe": "3 + 10", **changed.pop("tags", {})}  # type: ignore[dict-item]
    metrics = {"forecast/train_wh": wh, "forecast/train_s": 2 * wh}
    return _run(spec, "KILLED", start=start, tags=tags, metrics=metrics, energy_wh=0.5, **changed)


def test_forecasts_come_from_the_last_probe_and_machine() -> None:
    # the server gives the newest first
    runs = frame([_probe(A, 40.0, 2), _probe(A, 100.0, 1)])
    found = forecast([A, job(model="a", seed=1)], runs, {})
    assert list(found["energy_wh"]) == [40.0, 70.0]
    assert list(found["basis"]) == ["probe", "2 probes of it"]
    cpu = {"pepr.hardware": "AMD EPYC", "pepr.energy_components": "cpu=estimated"}
    runs = frame([_run(A, energy_wh=10.0, start=2), _run(A, energy_wh=100.0, start=1, tags=cpu)])
    (row,) = forecast([job(model="a", seed=1)], runs, {}).to_dict("records")
    assert (row["energy_wh"], row["basis"]) == (10.0, "1 run of it")


def test_the_cost_to_come_excludes_the_cost_of_a_run_so_far() -> None:
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
    found = to_come(plan.states([A, B, C, job(model="d", image_size=64)], runs), runs, {})
    assert found["energy_wh"].tolist()[:2] == [30.0, 7.0]
    assert found["time_s"].tolist()[:2] == [70.0, 14.0]
    assert len(found) == 3  # c is done
    assert pd.isna(found["energy_wh"].iloc[2])


def test_a_running_job_is_forecast_from_its_first_epoch() -> None:
    runs = frame(
        [
            _run(B, energy_wh=1.0, train_time_s=10.0),
            _run(
                A,
                "RUNNING",
                energy_wh=30.0,
                train_time_s=40.0,
                metrics={"forecast/train_wh": 100.0, "forecast/train_s": 120.0},
            ),
        ]
    )
    found = to_come(plan.states([A], runs), runs, {"a": 11_708_744})
    assert found["energy_wh"].tolist() == [70.0]
    assert found["time_s"].tolist() == [80.0]
    assert found["basis"].tolist() == ["its first epoch"]
    assert found["energy_wh_low"].isna().all()


def test_disturbed_runs_of_a_model_count_before_undisturbed_ones_of_another() -> None:
    busy = {"pepr.memory": "memory/rss_gb", "pepr.cpu_others": "1.5", "pepr.cpu_others_of": "2"}
    runs = frame(
        [
            _run(job(model="a"), energy_wh=10.0, train_time_s=20.0, tags=busy),
            _run(job(model="b"), energy_wh=90.0, train_time_s=80.0),
        ]
    )
    found = forecast([job(model="a", seed=7), job(model="c")], runs, {"c": 11_708_744})
    assert found["energy_wh"].tolist() == pytest.approx([10.0, 90.0])
    assert found["basis"].tolist() == [
        "1 run of it, disturbed by other programs",
        "extrapolated from 1 other model",
    ]


def test_disturbed_runs_are_ignored_where_others_exist() -> None:
    cpu = {"pepr.memory": "memory/rss_gb", "pepr.cpu_count": "2"}
    busy = _run(A, energy_wh=90.0, tags={**cpu, "pepr.cpu_others": "1.5"})
    alone = _run(job(model="a", seed=1), energy_wh=10.0, tags={**cpu, "pepr.cpu_others": "0"})
    (row,) = forecast([job(model="a", seed=2)], frame([busy, alone]), {}).to_dict("records")
    assert (row["energy_wh"], row["basis"]) == (10.0, "1 run of it")
    (row,) = forecast([job(model="a", seed=2)], frame([busy]), {}).to_dict("records")
    assert row["basis"] == "1 run of it, disturbed by other programs"


def test_threads_and_data_are_those_of_the_job() -> None:
    one = _run(job(model="a", threads=1), energy_wh=30.0, tags={"pepr.threads": "1"})
    all_ = _run(A, energy_wh=10.0, tags={"pepr.threads": "2"})
    runs = frame([one, all_])
    specs = [job(model="a", seed=1, threads=1), job(model="a", seed=1), job(model="a", threads=4)]
    found = forecast(specs, runs, {})
    assert found["energy_wh"].tolist()[:2] == [30.0, 10.0]
    assert found["basis"].tolist()[2] == "not known"
    assert found["machine"].tolist()[0] == "NVIDIA H100, 1 thread"
    assert forecast([job(model="a", folds=5, fold=1)], runs, {})["basis"].tolist() == ["not known"]
    fold = frame([one, _run(job(model="a", folds=5, fold=2), energy_wh=6.0)])
    assert forecast([job(model="a", folds=5, fold=1)], fold, {})["energy_wh"].tolist() == [6.0]
    corrected = job(model="a", data_digest="another")
    (row,) = forecast([corrected], runs, {}).to_dict("records")
    assert (row["energy_wh"], row["basis"]) == (10.0, "1 run of it on other data of this name")


def test_tuned_weights_and_augmentation_cost_their_own() -> None:
    runs = frame([_run(A, energy_wh=100.0), _run(job(model="a", tune="head"), energy_wh=5.0)])
    specs = [job(model="a", seed=1, tune=tune) for tune in ("all", "head")]
    assert forecast(specs, runs, {})["energy_wh"].tolist() == [100.0, 5.0]
    changed = job(model="a", augment="standard")
    assert forecast([changed], runs, {})["basis"].tolist() == ["not known"]


def test_a_run_that_its_patience_ended_says_nothing_of_all_epochs() -> None:
    early = {"pepr.early_stop": "2 of 10 epochs"}
    spec = job(model="a", patience=1)
    runs = frame([_run(spec, energy_wh=2.0, tags=early), _run(A, energy_wh=10.0)])
    again = job(model="a", patience=1, seed=1)
    assert forecast([again], runs, {})["energy_wh"].tolist() == [10.0]
    assert forecast([again], runs[:1], {})["basis"].tolist() == ["not known"]
