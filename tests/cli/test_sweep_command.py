"""`pepr sweep` with a strategy: a real tracking server, and trainings whose curves are known."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made import frame, job, logged, run
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from pepr_mlops.cli import main, search_output, sweep_output
from pepr_mlops.cli.sweep import split
from pepr_mlops.errors import WrongUse
from pepr_mlops.process import is_alive
from pepr_mlops.sweep import plan, sweep
from pepr_mlops.sweep.driver import Result, Status
from pepr_mlops.sweep.engine import NOTE, Report, Task
from pepr_mlops.sweep.jobs import jobs
from pepr_mlops.sweep.keep_top import KeepTop
from pepr_mlops.sweep.observed import Objective, Verdict
from pepr_mlops.sweep.search import Search
from pepr_mlops.sweep.sweep import Settings

# P after each of four epochs and energy in Wh of all four. R is energy / 80.
CURVES = {
    "resnet18d": ((0.60, 0.70, 0.78, 0.80), 8.0),
    "resnet10t": ((0.50, 0.60, 0.68, 0.70), 4.0),
    "tinynet_e": ((0.40, 0.50, 0.58, 0.60), 2.0),
    "resnet34d": ((0.80, 0.85, 0.88, 0.90), 80.0),
}
WORDS = [
    *("sweep", "--model", ",".join(CURVES), "--dataset", "digits", "--no-pretrained"),
    *("--epochs", "4", "--device", "cpu", "--top", "2"),
]
FRUGAL = [*WORDS, "--strategy", "frugal", "--normalisation", "zero"]


@dataclass
class Engine:
    """Logs what a job would."""

    uri: str
    broken: str | None = None
    lost: str | None = None
    busy: str | None = None
    tested: dict[str, float] = field(default_factory=dict)  # P on test, where it is not that on val
    validates: bool = True
    slots: int = 1
    run_ids: dict[str, str] = field(default_factory=dict)
    tasks: list[tuple[str, int | None]] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)

    is_alive = staticmethod(is_alive)

    def submit(self, task: Task) -> None:
        model = task.spec.model
        curve, wh = CURVES[model]
        self.tasks.append((model, task.until))
        if task.until == 0:
            points = [("energy/train_wh", wh / 40, 0), ("time/train_s", wh / 4, 0)]
            points += [("forecast/train_wh", wh, 0), ("forecast/train_s", 10 * wh, 0)]
            self._log(self._begin(task, {"pepr.probe": "3 + 10"}), points, "probed")
            self.reports.append(Report(task.spec, "probed"))
            return
        if model == self.lost:
            self.reports.append(Report(task.spec, "lost", "its process was killed by SIGKILL"))
            return
        if model == self.broken:
            tags = {"pepr.reason": "out_of_memory", "pepr.error": "too large"}
            MlflowClient(self.uri).set_terminated(self._begin(task, tags), "FAILED")
            self.reports.append(Report(task.spec, "out_of_memory", "too large"))
            return
        if model not in self.run_ids:
            self.run_ids[model] = self._begin(task, {})
        points = []
        for epoch, p in enumerate(curve[: task.until], 1):
            points += [("performance", self.tested.get(model, p), epoch)]
            points += [("val/accuracy", p, epoch)] if self.validates else []
            points += [("time/train_s", 10 * wh * epoch / 4, epoch)]
            points += [("energy/train_wh", wh * epoch / 4, epoch)]
        reason = "paused" if task.until else None
        self._log(self.run_ids[model], points, reason)
        self.reports.append(Report(task.spec, reason or "finished"))

    def _begin(self, task: Task, tags: dict[str, str]) -> str:
        client = MlflowClient(self.uri)
        found = client.get_experiment_by_name("digits")
        tags |= {
            "pepr.spec": task.spec.fingerprint,
            "pepr.data_digest": task.spec.data_digest,
            "pepr.experiment": "digits",
            "pepr.performance": "test/accuracy",
            "pepr.hardware": "AMD EPYC",
            "pepr.energy_source": "estimated",
            "pepr.energy_components": "cpu=estimated",
            "pepr.model": "last=1,model=2",
        }
        if task.spec.model == self.busy:
            tags |= {"pepr.cpu_others": "1.5", "pepr.cpu_others_of": "2"}
            tags |= {"pepr.memory": "memory/rss_gb"}
        run = client.create_run(found.experiment_id, tags=tags)
        params = [Param(k, v) for k, v in task.spec.as_params().items()]
        client.log_batch(run.info.run_id, params=params)
        return str(run.info.run_id)

    def _log(self, run_id: str, points: Sequence[Any], reason: str | None) -> None:
        client = MlflowClient(self.uri)
        client.log_batch(run_id, [Metric(k, v, 1000 * step, step) for k, v, step in points])
        if reason is not None:
            client.set_tag(run_id, "pepr.reason", reason)
        client.set_terminated(run_id, "KILLED" if reason else "FINISHED")

    def poll(self, timeout_s: float) -> list[Report]:
        reports, self.reports = self.reports, []
        return reports

    def stop(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def engine(store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engine:
    monkeypatch.setenv("PEPR_CHECKPOINTS", str(tmp_path))
    made = Engine(store)
    monkeypatch.setattr("pepr_mlops.sweep.sweep._engine", lambda *given: made)
    return made


def _run(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capfd.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    out, err = capfd.readouterr()
    return int(stopped.value.code or 0), out, err


def test_a_frugal_search_from_the_first_probe_to_the_verdict(
    capfd: pytest.CaptureFixture[str], engine: Engine
) -> None:
    status, out, err = _run(capfd, *FRUGAL)
    assert status == 0, err
    assert {t for t in engine.tasks if t[1] == 0} == {(m, 0) for m in CURVES}
    assert engine.tasks[4:6] == [("tinynet_e", None), ("resnet10t", None)]
    # scores: 0.7 / 1.05 and 0.6 / 1.025; resnet18d can have 1 / 1.1, resnet34d 1 / 2
    assert set(engine.run_ids) == {"resnet10t", "tinynet_e"}
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line}
    assert rows["resnet10t"][1:6] == ["finished", "4/4", "0.7000", "0.0500", "0.6667"]
    assert rows["resnet18d"][1:5] == ["stopped", "0/4", "0.1000", "0.9091"]
    assert rows["resnet34d"][1:5] == ["discarded", "0/4", "1.0000", "0.5000"]
    assert re.search(r"^top 2 by val PePR-E +resnet10t, tinynet_e$", out, flags=re.M)
    assert re.search(r"^proven of them +resnet10t$", out, flags=re.M)
    assert re.search(r"^could still be in it +resnet18d \(\d+%\)$", out, flags=re.M)
    # 6 Wh, and 94 / 40 for the probes
    spent = "8.35 Wh of training, 8.9% of about 94 Wh that training all takes (estimated)"
    assert re.search(rf"^spent on training +{re.escape(spent)}$", out, flags=re.M)

    status, out, _ = _run(capfd, *FRUGAL, "--certify")
    assert status == 0
    assert engine.tasks[6:] == [("resnet18d", None)]  # it resumes where it was
    assert re.search(r"^top 2 by val PePR-E +resnet18d, resnet10t$", out, flags=re.M)
    assert re.search(r"^proven of them +all$", out, flags=re.M)
    assert re.search(r"^could still be in it +none$", out, flags=re.M)

    done = len(engine.tasks)
    status, out, _ = _run(capfd, *FRUGAL, "--format", "json")
    assert (status, len(engine.tasks)) == (0, done)  # nothing is done again
    found = {row["model"]: row for row in json.loads(out)}
    assert found["resnet18d"]["score"] == pytest.approx(0.8 / 1.1)
    assert found["resnet34d"]["P"] is None
    assert found["resnet34d"]["energy_wh"] == 2.0


def test_the_search_scores_as_a_comparison_does(
    capfd: pytest.CaptureFixture[str], engine: Engine
) -> None:
    """The costs are 1, 2, 4 and 40 Wh at the ends of the sorted list."""
    status, out, err = _run(capfd, *WORDS, "--strategy", "frugal", "--format", "json")
    assert status == 0, err
    found = {row["model"]: row for row in json.loads(out)}
    costs = [wh for _, wh in CURVES.values()]
    least, greatest = min(costs), max(costs)
    for model, (_, wh) in CURVES.items():
        assert found[model]["R"] == pytest.approx((wh - least) / (greatest - least))


def test_a_margin_and_a_budget_from_the_first_probe_to_the_answer(
    capfd: pytest.CaptureFixture[str], engine: Engine
) -> None:
    words = [*WORDS[: WORDS.index("--top")], "--strategy", "frugal", "--within", "0.05"]
    status, out, err = _run(capfd, *words, "--budget-percent", "20", "--prior", "none")
    assert status == 0, err
    # the cheapest two are looked at after the first of four epochs; the others cost too much
    assert [task for task in engine.tasks if task[1] != 0] == [
        ("tinynet_e", 1),
        ("tinynet_e", None),
        ("resnet10t", 1),
        ("resnet10t", None),
        ("resnet18d", 1),
        ("resnet18d", None),
    ]
    assert re.search(
        r"^least energy of training, val P at most 0.05 below the best +resnet18d$", out, flags=re.M
    )
    assert re.search(r"^prior +none$", out, flags=re.M)
    assert re.search(r"^estimated chance that training all confirms it +\d+%$", out, flags=re.M)


@pytest.mark.parametrize(
    ("holds", "objective", "hinted"),
    [
        (0.21, Objective(top=1), True),
        (0.85, Objective(top=1), False),
        (0.21, Objective(top=1, budget_share=0.1), False),
        (0.21, Objective(top=1, certify=0.2), False),
    ],
)
def test_an_unsure_answer_comes_with_the_option_that_makes_it_surer(
    holds: float, objective: Objective, hinted: bool
) -> None:
    table = pd.DataFrame({"test_P": [0.5], "chance": [1.0]}, ["a"])
    known = Verdict(table, ["a"], [], [], [], holds, 1.0, 4.0, (4.0, 4.0), None)
    search = Search(objective, "E", "energy_wh", lambda ids: pd.DataFrame())
    text = search_output._conclusion(known, search, "estimated")
    assert ("the same command with --certify 0.8 continues" in text) is hinted


def test_what_follows_from_a_forecast_cost_is_marked() -> None:
    rows = pd.DataFrame({"forecast": [True, False, True], "R": [0.5, 0.25, np.nan], "P": 0.75})
    assert search_output._scores(rows, "R") == ["~0.5000", "0.2500", ""]
    assert search_output._scores(rows, "P") == ["0.7500"] * 3


def test_validation_or_test_decides_and_test_is_reported(
    capfd: pytest.CaptureFixture[str], engine: Engine
) -> None:
    """By validation the scores are 0.7 / 1.05 of resnet10t and 0.6 / 1.025 of tinynet_e."""
    engine.tested = {"resnet10t": 0.2, "tinynet_e": 0.9}
    status, out, _ = _run(capfd, *FRUGAL)
    assert status == 0
    assert set(engine.run_ids) == {"resnet10t", "tinynet_e"}
    assert re.search(r"^decided on +validation$", out, flags=re.M)
    assert re.search(r"^top 2 by val PePR-E +resnet10t, tinynet_e$", out, flags=re.M)
    assert re.search(r"^their test P +0.2000, 0.9000$", out, flags=re.M)
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line}
    assert rows["resnet10t"][3] == "0.7000"
    assert rows["resnet10t"][-1] == "0.2000"

    # By test they are 0.2 / 1.05 and 0.9 / 1.025, so resnet18d with 0.8 / 1.1 is in the top.
    status, out, _ = _run(capfd, *FRUGAL, "--decide-on", "test", "--format", "json")
    assert status == 0
    assert set(engine.run_ids) == {"resnet10t", "tinynet_e", "resnet18d"}
    found = {row["model"]: row for row in json.loads(out)}
    assert list(found)[:2] == ["tinynet_e", "resnet18d"]
    assert {row["decided_on"] for row in found.values()} == {"test"}
    assert found["tinynet_e"]["score"] == pytest.approx(0.9 / 1.025)
    assert (found["tinynet_e"]["P"], found["tinynet_e"]["test_P"]) == (0.9, 0.9)
    assert found["resnet34d"]["test_P"] is None
    _, out, _ = _run(capfd, *FRUGAL, "--decide-on", "test")
    optimistic = "test: the winner was chosen by it, so the winner's test P is optimistic"
    assert re.search(rf"^decided on +{optimistic}$", out, flags=re.M)

    done = len(engine.tasks)
    status, out, _ = _run(capfd, *FRUGAL)  # the runs for the other split count
    assert (status, len(engine.tasks)) == (0, done)
    assert re.search(r"^top 2 by val PePR-E +resnet18d, resnet10t$", out, flags=re.M)
    assert re.search(r"^their test P +0.8000, 0.2000$", out, flags=re.M)


def test_runs_without_validation_are_searched_and_replayed_on_test(
    capfd: pytest.CaptureFixture[str], engine: Engine
) -> None:
    engine.validates = False
    assert _run(capfd, *WORDS[:-2])[0] == 0
    status, out, err = _run(capfd, *FRUGAL)
    assert (status, out, len(err.strip().splitlines())) == (1, "", 1)
    assert "has no val/accuracy of epoch 1, only P on test; search with --decide-on test" in err
    assert _run(capfd, *FRUGAL, "--decide-on", "test")[0] == 0
    again = ["sweep", "--replay", "--experiment", "digits"]
    status, out, err = _run(capfd, *again)
    assert status == 0
    assert (
        "note: digits, seed 0: not all runs have P on validation, so their P on test decides" in err
    )
    assert "decided on test: the winner was chosen by it" in out
    assert _run(capfd, *again, "--decide-on", "test")[2] == ""
    status, out, err = _run(capfd, *again, "--decide-on", "val")
    assert (status, out, len(err.strip().splitlines())) == (2, "", 1)
    assert "does not have val/accuracy of every epoch" in err
    assert "--decide-on test" in err


def test_a_candidate_that_fails_is_left_out_and_reported(
    capfd: pytest.CaptureFixture[str], engine: Engine
) -> None:
    engine.broken = "resnet10t"
    status, out, _ = _run(capfd, *FRUGAL)
    assert status == 1
    (row,) = (line for line in out.splitlines() if line.startswith("resnet10t"))
    assert row.split()[1] == "failed"
    assert row.endswith("too large")
    assert re.search(r"^top 2 by val PePR-E +resnet18d, tinynet_e$", out, flags=re.M)


def test_a_sweep_says_why_jobs_failed_and_what_remains(
    capfd: pytest.CaptureFixture[str], engine: Engine
) -> None:
    engine.broken, engine.lost = "resnet10t", "tinynet_e"
    status, out, err = _run(capfd, *WORDS[:-2], "--retries", "0")
    assert status == 1
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert rows["resnet18d"].split()[1:] == ["done", "8", "Wh"]
    assert rows["resnet10t"].endswith("too large")
    assert re.match(r"resnet10t +failed: out of memory +", rows["resnet10t"])
    assert rows["tinynet_e"].endswith("lost: its process was killed by SIGKILL")
    assert re.match(r"tinynet_e +to do +", rows["tinynet_e"])
    assert "4 jobs: 2 done, 1 failed, 1 to do" in err
    assert "used the machine" not in err
    status, out, _ = _run(capfd, *WORDS[:-2], "--retries", "0", "--format", "json")
    errors = {row["model"]: row["error"] for row in json.loads(out)}
    assert errors["resnet18d"] is None
    assert errors["resnet10t"] == "too large"


def test_a_sweep_says_at_its_end_which_of_its_costs_are_overstated(
    capfd: pytest.CaptureFixture[str], engine: Engine
) -> None:
    engine.busy = "tinynet_e"
    status, _, err = _run(capfd, *WORDS[:-2])
    assert status == 0
    assert (
        "1 of them ran while other programs used the machine, or were stopped: their costs are too "
        "high; pepr runs --experiment digits lists them"
    ) in err


def test_recorded_runs_are_searched_without_training(
    capfd: pytest.CaptureFixture[str], engine: Engine
) -> None:
    engine.tested = {"resnet18d": 0.75, "resnet10t": 0.9}
    assert _run(capfd, *WORDS[:-2])[0] == 0  # all of them
    assert sorted(engine.tasks) == sorted((model, None) for model in CURVES)
    done = list(engine.tasks)
    for form in ("table", "json"):
        status, out, _ = _run(
            capfd, "sweep", "--replay", "--experiment", "digits", "--top", "3", "--format", form
        )
        assert status == 0
    rows = {row["strategy"]: row for row in json.loads(out)}
    assert (rows["frugal"]["best"], rows["frugal"]["hits"]) == (True, 3)
    assert list(rows) == ["frugal", "proven", "exhaustive"]
    # all but resnet34d, and a twentieth of an epoch of four for each probe
    assert rows["frugal"]["expense"] == pytest.approx(14 + 94 / 80)
    assert rows["exhaustive"]["expense"] == 94
    # 0.8 / 1.1 of resnet18d is the highest on validation, and 0.9 / 1.05 of resnet10t on test
    for row in rows.values():
        assert (row["decided_on"], row["winner"]) == ("val", "resnet18d")
        assert (row["P"], row["test_P"]) == (0.8, 0.75)
    words = ["sweep", "--replay", "--experiment", "digits", "--decide-on", "test"]
    _, out, _ = _run(capfd, *words, "--format", "json")
    for row in json.loads(out):
        assert (row["decided_on"], row["winner"]) == ("test", "resnet10t")
        assert (row["P"], row["test_P"]) == (0.9, 0.9)
    _, out, _ = _run(capfd, "sweep", "--replay", "--experiment", "digits")
    assert re.search(r"^frugal +yes +4 of 4 ", out, flags=re.M)  # the top five of four are four
    Path("grid.toml").write_text('experiment = "digits"\n')
    assert _run(capfd, "sweep", "grid.toml", "--replay", "--top", "3")[0] == 0
    assert engine.tasks == done


def test_a_value_with_commas_is_one_value() -> None:
    assert split("window", "40,400") == ["40,400"]
    assert split("external", "a=/a,b=/b") == ["a=/a,b=/b"]
    assert split("seed", "0, 1") == ["0", "1"]
    windows = [spec.window for spec in plan.expand({"window": ["40,400", "dicom"]})]
    assert windows == ["40,400", "dicom"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            [*WORDS[:-2], "--decide-on", "val"],
            "decide_on: it is an option of a search; add --strategy frugal or --replay",
        ),
        (WORDS, "top: it is an option of a search; add --strategy frugal or --replay"),
        ([*FRUGAL, "--seed", "0,1"], "differ in seed (0, 1)"),
        ([*FRUGAL, "--alpha", "0.5"], "alpha: 0.5 is not 1 or more"),
        ([*FRUGAL, "--objective", "pepr-c"], "give --country or --carbon-intensity"),
        (
            [*WORDS, "--replay"],
            "give --experiment NAME and not model, dataset, epochs, pretrained, device; its runs",
        ),
        (
            ["sweep", "--replay", "--experiment", "digits", "--budget-wh", "5", "--dry-run"],
            "give --experiment NAME and not dry_run; its runs are replayed",
        ),
        (["sweep", "--replay", "--experiment", "none"], "'none' is neither"),
    ],
)
def test_a_search_that_is_impossible_is_one_line(
    capfd: pytest.CaptureFixture[str], engine: Engine, words: list[str], message: str
) -> None:
    status, out, err = _run(capfd, *words)
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert engine.tasks == []


def test_a_sweep_warns_that_auto_settings_may_not_compare(
    capfd: pytest.CaptureFixture[str], store: str
) -> None:
    words = ["sweep", "--model", "resnet10t,tinynet_e", "--dataset", "digits", "--dry-run"]
    status, out, err = _run(capfd, *words, "--layout", "auto")
    assert (status, err.count("layout: each model tries once what is fastest for it")) == (0, 1)
    assert "tries once" not in out
    assert "tries once" not in _run(capfd, *words)[2]
    words[2], seeds = "resnet10t", ["--layout", "auto", "--seed", "0,1"]
    assert "tries once" not in _run(capfd, *words, *seeds)[2]  # its seeds share a choice


def test_a_forecast_for_models_that_never_ran_is_a_range_marked_as_extrapolated(
    capfd: pytest.CaptureFixture[str], store: str
) -> None:
    """From 1 and 3 Wh of two models of other sizes."""
    (job,) = jobs({"model": "resnet18d", "dataset": "digits"})
    for model, wh, size in (("resnet10t", 1.0, 6_000_000), ("tinynet_e", 3.0, 3_000_000)):
        of_model = replace(job, model=model)
        tags = {
            **{"pepr.experiment": "digits", "pepr.data_digest": job.data_digest},
            **{"pepr.spec": of_model.fingerprint, "pepr.parameters": str(size)},
        }
        made = run(**{**of_model.values(), "energy_wh": wh, "train_time_s": 60 * wh, "tags": tags})
        logged(store, made, "digits")
    words = ["sweep", "--model", "resnet10t,resnet18d", "--dataset", "digits"]
    status, out, _ = _run(capfd, *words, "--dry-run")
    assert status == 0
    line = next(line for line in out.splitlines() if line.startswith("resnet18d"))
    # at least 1 / 1.5; at most 1.5 × 3 × 11,708,744 / 3,000,000
    assert "3.42 Wh (0.667 Wh to 17.6 Wh)" in line
    assert line.endswith("extrapolated from 2 other models")
    total = next(line for line in out.splitlines() if line.startswith("energy of training alone"))
    assert total.endswith("about 3.42 Wh (0.667 Wh to 17.6 Wh, 1 of 1 jobs extrapolated)")
    assert re.search(r"^forecast from runs on +NVIDIA H100$", out, flags=re.M)


def test_a_note_that_many_jobs_give_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [job(seed=seed) for seed in range(3)]
    progress = sweep_output.Progress(jobs)
    for one in jobs:
        progress.report(Report(one, NOTE, "tracking: spec.json cannot be stored (closed)"))
    progress.report(Report(jobs[0], NOTE, "Waiting for the CPU: another job uses it."))
    assert capsys.readouterr().err.splitlines() == [
        "tracking: spec.json cannot be stored (closed)",
        "Waiting for the CPU: another job uses it.",
    ]


def test_the_status_line_has_the_weights_that_are_still_to_come(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """resnet18d has 11,708,744 weights of 4 bytes, 0.047 GB."""
    specs = [job(model="resnet18d", seed=seed) for seed in range(3)]
    runs = frame([run("resnet18d", tags={"pepr.spec": specs[0].fingerprint})])
    settings = Settings(keep_top=KeepTop(1))
    for keep, text in (
        ("last", "; weights to come: up to 0.094 GB before --keep-top 1 --by cost drops some"),
        ("both", "; weights to come: up to 0.19 GB before --keep-top 1 --by cost drops some"),
        ("none", ""),
    ):
        jobs = plan.states([replace(spec, keep=keep) for spec in specs], runs)
        sweep_output.Progress(specs, None, settings).show(Status(jobs, runs, 1.0))
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("1 done, 2 to do of 3 jobs; ")
        assert (line.partition(" elapsed")[2].partition("; training")[0]) == text


def test_a_dry_run_refuses_what_the_sweep_refuses(
    capfd: pytest.CaptureFixture[str], store: str
) -> None:
    words = ["sweep", "--model", "test_resnet", "--dataset", "digits", "--keep-top", "2"]
    for more in ([], ["--dry-run"]):
        status, out, err = _run(capfd, *words, "--keep", "none", *more)
        assert (status, out) == (2, "")
        assert err.splitlines() == [
            "pepr: keep_top: --keep none keeps no weights; leave one of the two out"
        ]


def test_a_comparison_that_fails_is_noted_once(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: object) -> int:
        raise WrongUse("P: no run has one")

    monkeypatch.setattr(sweep, "prune", fails)
    notes: list[str] = []
    settings, failures = Settings(store, keep_top=KeepTop(1)), set[str]()
    for _ in range(3):
        sweep._tidy(settings, notes.append, failures, Result(pd.DataFrame(), pd.DataFrame()))
    assert notes == ["--keep-top 1 --by cost: no weights are dropped now (P: no run has one)"]
