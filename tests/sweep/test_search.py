"""The frugal search over runs: its observations of them, and its tasks for a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made import frame, job, run

from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.process import is_alive
from pepr_mlops.sweep import driver, plan
from pepr_mlops.sweep.engine import Report, Task
from pepr_mlops.sweep.observed import Objective, Observed
from pepr_mlops.sweep.replay import Curves, curves_of, recorded, replay
from pepr_mlops.sweep.search import HISTORY, Search, check, check_budget

EPOCHS = 4
SPECS = {name: job(model=name, epochs=EPOCHS) for name in ("a", "b", "c")}
OBJECTIVE = Objective(top=1, epochs=EPOCHS)

# P, the same on both splits, Wh and s after each epoch
Steps = dict[str, list[tuple[float, float | None, float]]]


def history(steps: Steps) -> Any:
    rows = [
        (run_id, epoch, p, p, *costs)
        for run_id, points in steps.items()
        for epoch, (p, *costs) in enumerate(points, 1)
    ]
    table = pd.DataFrame(rows, columns=["run_id", "step", *HISTORY])
    return lambda run_ids: table[table["run_id"].isin(list(run_ids))]


def logged(name: str, status: str, wh: float | None, s: float | None, **changed: Any) -> Any:
    """A run of a candidate with its cost so far."""
    tags = {"pepr.spec": SPECS[name].fingerprint, **changed.pop("tags", {})}
    return run(
        name, epochs=EPOCHS, status=status, energy_wh=wh, train_time_s=s, tags=tags, **changed
    )


def probed(name: str, wh: float, s: float, spent_wh: float, **metrics: float) -> Any:
    """A probe that took `spent_wh` and forecasts `wh` and `s` for all epochs."""
    return logged(
        name,
        "KILLED",
        spent_wh,
        1.0,
        performance=None,
        memory_gb=2.0,
        tags={"pepr.probe": "3 + 10", "pepr.reason": "probed"},
        metrics={"forecast/train_wh": wh, "forecast/train_s": s, **metrics},
    )


def searched(runs: Sequence[Any], steps: Steps, **changed: Any) -> tuple[Search, pd.DataFrame, Any]:
    found = frame(runs)
    search = Search(OBJECTIVE, "E", "energy_wh", history(steps))
    return replace(search, **changed), plan.states(list(SPECS.values()), found), found


PAUSED = {"pepr.reason": "paused"}
RUNS = [
    probed("a", 40.0, 80.0, 1.0),
    logged(
        "a",
        "KILLED",
        16.0,
        30.0,
        tags=PAUSED,
        start=1_790_000_000_001,
        metrics={"forecast/train_wh": 1e6, "forecast/train_s": 1e6},  # after its first epoch
    ),
    probed("b", 10.0, 20.0, 0.5),
]
STEPS: Steps = {"run1": [(0.6, 9.0, 16.0), (0.7, 16.0, 30.0), (0.8, 25.0, 45.0)]}


def test_costs_are_forecast_from_probes_and_from_the_epochs_trained() -> None:
    search, jobs, runs = searched(RUNS, STEPS)
    assert search.observed(jobs, runs) == [
        Observed("a", 0, None, 40.0, 40.0, 1.0),
        Observed("a", 1, 0.6, 36.0, 36.0, 9.0),  # 9 Wh · 4 epochs
        Observed("a", 2, 0.7, 32.0, 32.0, 7.0),  # 16 Wh · 4 / 2; the third is being logged
        Observed("b", 0, None, 10.0, 10.0, 0.5),
    ]


def test_time_memory_and_carbon_are_costs_too() -> None:
    search, jobs, runs = searched(RUNS, STEPS, letter="T")
    assert [o.cost for o in search.observed(jobs, runs)] == [80.0, 64.0, 60.0, 20.0]
    assert [o.expense for o in search.observed(jobs, runs)] == [40.0, 36.0, 32.0, 10.0]
    timed = replace(search, spending="train_time_s").observed(jobs, runs)
    assert [o.spent for o in timed] == [1.0, 16.0, 14.0, 1.0]
    memory = replace(search, letter="M").observed(jobs, runs)
    assert [o.cost for o in memory] == [2.0, 4.0, 4.0, 2.0]
    grid = {"carbon_intensity_g_per_kwh": 500.0, "pue": 1.2}
    carbon = replace(search, letter="C").observed(jobs, runs.assign(**grid))
    assert [o.cost for o in carbon] == pytest.approx([24.0, 21.6, 19.2, 6.0])  # Wh · 0.6


def test_other_attempts_count_once_as_spent() -> None:
    earlier = logged("a", "FAILED", 3.0, 6.0, tags={"pepr.reason": "lost"})
    twice = probed("b", 12.0, 24.0, 0.75)
    search, jobs, runs = searched([*RUNS, earlier, {**twice, "start": 1_790_000_000_009}], STEPS)
    seen = {(o.candidate, o.epoch): o for o in search.observed(jobs, runs)}
    assert seen["a", 0].spent == 4.0  # the probe and the attempt that was lost
    assert seen["b", 0] == Observed("b", 0, None, 12.0, 12.0, 1.25)  # the later of two probes
    assert search.verdict(jobs, runs).spent == 4.0 + 16.0 + 1.25


def test_requests_become_tasks() -> None:
    search, jobs, runs = searched(RUNS, STEPS)
    assert search(jobs, runs) == [Task(SPECS["c"], until=0)]
    search, jobs, runs = searched([*RUNS, probed("c", 400.0, 800.0, 0.5)], STEPS)
    assert search(jobs, runs) == [Task(SPECS["b"]), Task(SPECS["a"])]  # two must be finished
    # b reaches at least 0.9 / 1.025, and c at most 1 / 2
    done = [logged(n, "FINISHED", wh, 20.0) for n, wh in (("a", 40.0), ("b", 10.0))]
    steps: Steps = {"run0": [(0.8, 10.0 * e, 5.0 * e) for e in range(1, 5)]}
    steps["run1"] = [(0.9, 2.5 * e, 5.0 * e) for e in range(1, 5)]
    search, jobs, runs = searched([*done, probed("c", 400.0, 800.0, 0.5)], steps)
    assert search(jobs, runs) == []
    found = search.verdict(jobs, runs)
    assert (found.top, found.proven) == (["b"], ["b"])
    assert list(found.table["state"]) == ["finished", "finished", "discarded"]
    assert found.table["score"].iloc[1] == pytest.approx(0.9 / (1 + 10 / 400))


def test_a_budget_in_wh_lasts_for_evaluation_too() -> None:
    evaluation = {"energy/eval_wh": 1.0, "time/eval_s": 1.0}  # half of what the probes took
    costs = {"a": 40.0, "b": 10.0, "c": 8.0}
    probes = [probed(name, wh, 2 * wh, 1.0, **evaluation) for name, wh in costs.items()]
    for budget, affordable in ((30.0, ["c"]), (46.0, ["c", "b"])):
        search, jobs, runs = searched(probes, {}, objective=replace(OBJECTIVE, budget=budget))
        assert jobs["energy_wh"].sum() == 6
        # half of the budget is for training, of which the probes took 3 Wh
        assert [task.spec.model for task in search(jobs, runs)] == affordable


def test_a_job_that_cannot_be_trained_is_no_candidate_but_counts_as_spent() -> None:
    failed = logged("c", "FAILED", 5.0, 9.0, tags={"pepr.reason": "out_of_memory"})
    search, jobs, runs = searched([*RUNS, failed], {**STEPS, "run3": [(np.nan, 5.0, 9.0)]})
    assert search(jobs, runs) == [Task(SPECS["b"]), Task(SPECS["a"])]
    found = search.verdict(jobs, runs)
    assert list(found.table.index) == ["a", "b"]
    assert found.spent == 17.0 + 0.5 + 5.0
    hopeless = probed("c", 1.0, 1.0, 0.1)
    tags = {**hopeless["tags"], "pepr.reason": "out_of_memory", "pepr.probe": "begun"}
    search, jobs, runs = searched([*RUNS, {**hopeless, "status": "FAILED", "tags": tags}], STEPS)
    assert list(jobs["state"]) == ["pending", "pending", "failed"]


def test_an_interrupted_epoch_counts_as_spent() -> None:
    # 20 Wh in all, 16 of them in two complete epochs
    broken = logged("a", "KILLED", 20.0, 40.0, tags={"pepr.reason": "killed"})
    steps: Steps = {"run0": [*STEPS["run1"][:2], (np.nan, 20.0, 40.0)]}
    search, jobs, runs = searched([broken, probed("a", 40.0, 80.0, 1.0)], steps)
    seen = search.observed(jobs, runs)
    assert [(o.epoch, o.spent) for o in seen] == [(0, 5.0), (1, 9.0), (2, 7.0)]


def test_a_finished_run_without_all_epochs_is_an_error() -> None:
    search, jobs, runs = searched([logged("a", "FINISHED", 40.0, 80.0)], STEPS | {"run0": []})
    with pytest.raises(WorkFailed, match=r"run run0 \(a\) is finished but has no val/accuracy of"):
        search(jobs, runs)


def test_the_split_that_decides_chooses_the_model_that_trains_for_longer() -> None:
    """All cost the same, so R is 0 and every score is P. The finished curves are flat, so a model
    is expected to end with the P that it has."""
    val = {"a": [0.6] * 4, "b": [0.5] * 4, "c": [0.9], "d": [0.5]}
    test = {"a": [0.55] * 4, "b": [0.45] * 4, "c": [0.5], "d": [0.8]}
    specs = {name: job(model=name, epochs=EPOCHS) for name in val}
    found = frame(
        [
            run(
                name,
                epochs=EPOCHS,
                status="FINISHED" if len(curve) == EPOCHS else "KILLED",
                performance=test[name][-1],
                energy_wh=10.0 * len(curve),
                train_time_s=10.0 * len(curve),
                tags={"pepr.spec": specs[name].fingerprint},
            )
            for name, curve in val.items()
        ]
    )
    logged = history(
        {
            f"run{i}": [(p, 10.0 * e, 10.0 * e) for e, p in enumerate(curve, 1)]
            for i, curve in enumerate(val.values())
        }
    )
    tested = np.concatenate(list(test.values()))
    by_val = Search(OBJECTIVE, "E", "energy_wh", lambda ids: logged(ids).assign(performance=tested))
    by_test = replace(by_val, decide_on="test")
    jobs = plan.states(list(specs.values()), found)
    assert by_val(jobs, found) == [Task(specs["c"], until=2)]  # 0.9 beats 0.6
    assert by_test(jobs, found) == [Task(specs["d"], until=2)]  # 0.8 beats 0.55
    table = by_val.verdict(jobs, found).table
    assert table["P"].tolist() == [0.6, 0.5, 0.9, 0.5]
    assert table["score"]["a"] == 0.6
    assert table["test_P"].tolist() == pytest.approx([0.55, 0.45, np.nan, np.nan], nan_ok=True)
    table = by_test.verdict(jobs, found).table
    assert table["P"].tolist() == [0.55, 0.45, 0.5, 0.8]
    assert table["test_P"].tolist() == pytest.approx([0.55, 0.45, np.nan, np.nan], nan_ok=True)


def test_a_run_without_validation_is_an_error_unless_test_decides() -> None:
    def tested_only(run_ids: Sequence[str]) -> Any:
        return history(STEPS)(run_ids).assign(**{"val/accuracy": np.nan})

    search, jobs, runs = searched(RUNS, STEPS, history=tested_only)
    with pytest.raises(
        WorkFailed, match=r"run1 \(a\) has no val/accuracy of epoch 1, .* --decide-on test, or"
    ):
        search(jobs, runs)
    observed = replace(search, decide_on="test").observed(jobs, runs)
    assert [o.performance for o in observed] == [None, 0.6, 0.7, None]
    # a run in progress may be logging it
    running = runs.assign(status=runs["status"].where(runs["probe"].notna(), "RUNNING"))
    assert [o.epoch for o in search.observed(jobs, running)] == [0, 0]


def test_unknown_costs_and_costs_of_two_machines_are_refused() -> None:
    unknown = logged("a", "FINISHED", None, 30.0)
    search, jobs, runs = searched([unknown], {"run0": [(0.6, None, 16.0)]})
    with pytest.raises(WorkFailed, match=r"energy_wh: run run0 \(a\) does not have it"):
        search(jobs, runs)
    # MLflow keeps the last sum of an energy that was lost: the run has none
    search, jobs, runs = searched([unknown], {"run0": [(0.6, 9.0, 16.0)]})
    with pytest.raises(WorkFailed, match=r"energy_wh: run .* does not have it"):
        search(jobs, runs)
    search, jobs, runs = searched(RUNS, STEPS, letter="C")
    with pytest.raises(WorkFailed, match=r"carbon_gco2e: run .* does not have it"):
        search(jobs, runs)
    other = probed("c", 1.0, 1.0, 0.1)
    other["tags"]["pepr.hardware"] = "NVIDIA A40"
    search, jobs, runs = searched([*RUNS, other], STEPS)
    with pytest.raises(WorkFailed, match=r"hardware: .* NVIDIA H100 and NVIDIA A40"):
        search(jobs, runs)

    known = probed("c", 1.0, 1.0, 0.1)
    known["tags"]["pepr.threads"] = "2"
    search, jobs, runs = searched([*RUNS, known], STEPS)
    with pytest.raises(WorkFailed, match=r"threads: .* measured on not known and 2, which"):
        search(jobs, runs)


def test_a_search_compares_models_under_one_condition() -> None:
    check(list(SPECS.values()), "E")
    seeds = [job(model=m, seed=s) for m in "ab" for s in (0, 1)]
    with pytest.raises(WrongUse, match=r"differ in seed \(0, 1\); run one search for each"):
        check(seeds, "E")
    with pytest.raises(WrongUse, match="energy=off leaves E unknown"):
        check([job(energy="off")], "E")
    check([job(energy="off")], "T")
    with pytest.raises(WrongUse, match="pepr-c needs the grid"):
        check([job()], "C")
    check([job(country="DNK")], "C")
    check_budget(Objective(budget=5.0), "energy_wh")
    check_budget(Objective(budget_share=0.05), "train_time_s")
    with pytest.raises(WrongUse, match=r"budget_wh: .* not known, .* give --budget-percent"):
        check_budget(Objective(budget=5.0), "train_time_s")
    with pytest.raises(WrongUse, match="drop --folds, or train all jobs"):
        check([job(folds=3, fold=k) for k in (1, 2, 3)], "E")


# A complete search -------------------------------------------------------------------------------


@dataclass
class Trainer:
    """Engine and server of jobs whose curves are known; every epoch takes as much as any."""

    curves: Curves
    slots: int = 1
    epochs: dict[str, int] = field(default_factory=dict)
    probes: list[str] = field(default_factory=list)
    running: list[Task] = field(default_factory=list)

    is_alive = staticmethod(is_alive)

    @property
    def steps(self) -> Steps:
        return {
            f"run{i}": [
                (p, self.curves.expense[name] * e / EPOCHS, 10.0 * e)
                for e, p in enumerate(self.curves.performance.loc[name].iloc[:trained], 1)
            ]
            for i, (name, trained) in enumerate(self.epochs.items())
        }

    def read(self) -> pd.DataFrame:
        cost = self.curves.expense
        runs = [
            self._run(name, trained == EPOCHS, cost[name] * trained / EPOCHS, 10.0 * trained)
            for name, trained in self.epochs.items()
        ]
        for name in self.probes:
            one = self._run(name, False, cost[name] / EPOCHS / 20, 0.5)
            one["tags"]["pepr.probe"] = "3 + 10"
            one["metrics"] |= {"forecast/train_wh": cost[name], "forecast/train_s": 40.0}
            runs.append(one)
        return frame(runs) if runs else frame([run()]).assign(spec=None).iloc[:0]

    def _run(self, name: str, done: bool, wh: float, s: float) -> dict[str, Any]:
        spec = job(model=name, epochs=EPOCHS)
        tags = {"pepr.spec": spec.fingerprint, **({} if done else PAUSED)}
        status = "FINISHED" if done else "KILLED"
        return run(name, epochs=EPOCHS, status=status, energy_wh=wh, train_time_s=s, tags=tags)

    def close(self, run_ids: Sequence[str] = ()) -> None: ...

    def stop(self) -> None: ...

    def submit(self, task: Task) -> None:
        self.running.append(task)

    def poll(self, timeout_s: float) -> list[Report]:
        reports = []
        for task in self.running:
            if task.until == 0:
                self.probes.append(task.spec.model)
            else:
                self.epochs[task.spec.model] = task.until or EPOCHS
            reports.append(Report(task.spec, "finished" if task.until is None else "paused"))
        self.running = []
        return reports


@pytest.mark.parametrize("slots", [1, 3])
def test_a_sweep_finds_and_spends_the_same_as_its_replay(
    slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "_POLL_EVERY_S", 0.0)
    drawn = np.random.default_rng(0)
    names = [f"m{i:02d}" for i in range(20)]
    level = drawn.uniform(0.5, 0.8, 20)[:, None]
    curves = Curves(
        pd.DataFrame(level + drawn.normal(0.1, 0.02, (20, EPOCHS)).cumsum(axis=1) / 4, names),
        cost := pd.Series(np.geomspace(1, 60, 20), names),
        cost,
    )
    objective = Objective(top=3, epochs=EPOCHS)
    trainer = Trainer(curves, slots)
    search = Search(objective, "E", "energy_wh", lambda run_ids: history(trainer.steps)(run_ids))
    result = driver.Driver(
        [job(model=name, epochs=EPOCHS) for name in names],
        search,
        trainer,
        trainer,
        driver.Limits(),
        lambda status: None,
        lambda report: None,
    ).run()
    assert result.stopped is None
    found = search.verdict(result.jobs, result.runs)
    expected = replay(curves, objective)
    assert found.exhaustive == pytest.approx(cost.sum())
    finished = list(found.table.index[found.table["state"] == "finished"])
    assert sorted(trainer.probes) == names
    assert found.spent < 0.5 * found.exhaustive
    assert {*found.top} <= {*curves.scores(Objective()).iloc[:, -1].nlargest(5).index}
    if slots == 1:
        assert finished == sorted(expected.finished)
        assert found.spent / found.exhaustive == pytest.approx(expected.spent)
    again = Trainer(curves, slots, dict(trainer.epochs), list(trainer.probes))
    assert search(result.jobs, again.read()) == []


def test_recorded_runs_become_curves() -> None:
    runs = frame([run("a", energy_wh=3.0), run("b", energy_wh=5.0)])
    epochs = pd.DataFrame(
        {"run_id": ["run1", "run0", "run0", "run1"], "step": [1, 1, 2, 2]}
    ).assign(performance=[0.5, 0.1, 0.2, 0.6])
    curves = curves_of(runs, epochs, "train_time_s", "energy_wh")
    assert curves.performance.loc["a"].tolist() == [0.1, 0.2]
    assert curves.performance.loc["b"].tolist() == [0.5, 0.6]
    assert (curves.expense["b"], curves.cost["b"]) == (5.0, 360.0)
    with pytest.raises(WrongUse, match=r"run run1 \(b\) does not have performance of every epoch"):
        curves_of(runs, epochs.iloc[:3], "energy_wh", "energy_wh")
    with pytest.raises(WrongUse, match="twice"):
        curves_of(frame([run("a"), run("a")]), epochs, "energy_wh", "energy_wh")


def test_the_papers_runs_have_no_validation_so_test_decides(paper_store: str) -> None:
    (one,) = recorded(["derma_pt"], "E", paper_store)
    assert one.decide_on == "test"
    assert one.test_p.to_dict() == one.curves.performance.iloc[:, -1].to_dict()
    with pytest.raises(WrongUse, match=r"have val/accuracy of every epoch, .* --decide-on test"):
        recorded(["derma_pt"], "E", paper_store, "val")


def test_the_name_of_a_search_is_one_that_mlflow_takes_for_a_tag() -> None:
    def name(**target: Any) -> str:
        return Search(Objective(**target), "E", "energy_wh", history({})).name

    assert name(alpha=1e6) == "pepr-e-top-5-zero-alpha-1e06-val"
    assert name(top=1, within=1e-5) == "within-1e-05-e-val"
