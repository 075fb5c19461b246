"""`pepr_mlops.measure` around other people's loops."""

from __future__ import annotations

import os
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from mlflow import MlflowClient
from zeus.monitor import Measurement

import pepr_mlops
from pepr_mlops.data.digest import of_tree
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.names import METRICS, TAGS
from pepr_mlops.tracking import Run

ROOT = Path(__file__).parents[2]


def _only_run(experiment: str) -> mlflow.entities.Run:
    client = MlflowClient()
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    (run,) = client.search_runs([found.experiment_id])
    return run


def test_the_documented_example_runs_and_scores_like_any_other(store: str) -> None:
    runpy.run_path(str(ROOT / "docs" / "examples" / "own_loop.py"))
    run = _only_run("digits-own-loop")
    assert run.info.status == "FINISHED"
    assert run.data.params == {
        "model": "mlp64",
        "dataset": "digits",
        "batch_size": "20",
        "epochs": "3",
    }
    assert run.data.metrics["performance"] == run.data.metrics["test/accuracy"] > 0.8
    assert set(run.data.metrics) <= set(METRICS)
    assert {"energy/train_wh", "energy/eval_wh", "time/train_s", "memory/rss_gb"} <= set(
        run.data.metrics
    )
    assert run.data.tags["pepr.performance"] == "test/accuracy"
    assert run.data.tags["pepr.energy_source"] in ("measured", "estimated")
    mine = {k for k in run.data.tags if k.startswith("pepr.") and "version" not in k}
    assert mine <= set(TAGS)
    history = MlflowClient().get_metric_history(run.info.run_id, "energy/train_wh")
    assert [m.step for m in history] == [1, 2, 3]
    assert history[0].value < history[1].value < history[2].value


class _Ticking:
    """A counter of 20 W that moves every 50 ms, as NVML's does."""

    def __init__(self) -> None:
        self._opened: dict[str, float] = {}

    def _read(self) -> float:
        return time.monotonic() // 0.05 * 0.05 * 20

    def begin_window(self, key: str, **_: object) -> None:
        self._opened[key] = self._read()

    def end_window(self, key: str, **_: object) -> Measurement:
        return Measurement(time=0.0, gpu_energy={0: self._read() - self._opened.pop(key)})


def test_a_real_counter_is_coarser_than_the_steps_between_calls(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = _Ticking()
    monkeypatch.setattr(
        "pepr_mlops.costs.meters.find_sensors", lambda uuids, host: (monitor, ("gpu",), {})
    )
    with pepr_mlops.measure("ticking", model="x") as m:
        for _ in range(3):
            time.sleep(0.4)
            with m.evaluation():
                time.sleep(0.2)
            m.epoch(performance=0.5)
    run = _only_run("ticking")
    assert run.data.metrics["energy/train_wh"] * 3600 == pytest.approx(3 * 0.4 * 20, rel=0.3)
    assert run.data.metrics["energy/eval_wh"] * 3600 == pytest.approx(3 * 0.2 * 20, rel=0.5)
    assert run.data.tags["pepr.energy_source"] == "measured"
    assert "pepr.energy_missing" not in run.data.tags
    assert "6 windows" in run.data.tags["pepr.energy_caution"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "gpu"}, "device: 'gpu' is not one of"),
        ({"energy": "guess"}, "energy: 'guess' is not one of"),
        ({"pue": 0.5}, "pue: 0.5 is not 1 or more"),
        ({"carbon_intensity": -1.0}, "carbon_intensity: -1.0 is not"),
    ],
)
def test_impossible_options_are_refused_as_for_a_job(
    store: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(WrongUse, match=words), pepr_mlops.measure("x", model="x", **options):
        pass


def test_two_measurements_do_not_mix_in_one_run(store: str) -> None:
    with mlflow.start_run():
        with pepr_mlops.measure("one", model="x", energy="off") as m:
            m.epoch(performance=0.5)
        with (
            pytest.raises(WorkFailed, match="has measurements already"),
            pepr_mlops.measure("two", model="x", energy="off"),
        ):
            pass


def test_the_data_set_is_known_by_what_it_holds_where_it_is_named(store: str, shapes: Path) -> None:
    found = []
    for given in (shapes, None):
        with pepr_mlops.measure("own", model="x", data=given, energy="off") as m:
            m.epoch(performance=0.5)
        found.append(MlflowClient().get_run(m.run_id).data.tags.get("pepr.data_digest"))
    assert found == [of_tree(shapes), None]
    wrong = pytest.raises(WrongUse, match="data: there is no file in")
    with wrong, pepr_mlops.measure("own", model="x", data=shapes / "none", energy="off"):
        pass


def test_the_threads_are_those_that_the_code_has_set(store: str) -> None:
    before = torch.get_num_threads()
    try:
        with pepr_mlops.measure("own", model="x", energy="off") as m:
            torch.set_num_threads(before + 3)
            m.epoch(performance=0.5)
    finally:
        torch.set_num_threads(before)
    tags = MlflowClient().get_run(m.run_id).data.tags
    assert tags["pepr.threads"] == str(before + 3)


def test_an_experiment_set_in_mlflow_takes_the_run(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)  # restored after
    mlflow.set_experiment("another")
    with pepr_mlops.measure("mine", model="x", energy="off") as m:
        m.epoch(performance=0.5)
    run = _only_run("another")
    assert run.info.status == "FINISHED"
    assert run.data.tags["pepr.experiment"] == "mine"


_STOPPED = """
import time
import pepr_mlops
with pepr_mlops.measure("stopped", model="x", energy="estimated", device="cpu") as m:
    print("begun", flush=True)
    began = time.process_time()
    while time.process_time() - began < 1.5: pass
    m.epoch(performance=0.5)
"""


def test_time_in_which_the_process_was_stopped_is_left_out_and_reported(store: str) -> None:
    """As by Ctrl-Z, `docker pause` or a scheduler that gives the machine to others."""
    command = [sys.executable, "-c", _STOPPED]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": store}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as job:  # type: ignore[call-overload]
        assert job.stdout is not None
        assert job.stdout.readline() == "begun\n"
        time.sleep(0.5)
        job.send_signal(signal.SIGSTOP)
        time.sleep(6.0)
        job.send_signal(signal.SIGCONT)
        _, err = job.communicate(timeout=120)
    assert job.returncode == 0
    assert "stopped, x: stopped or asleep for 6 s of the training: left out" in err
    run = _only_run("stopped")
    assert float(run.data.tags["pepr.paused_s"]) == pytest.approx(6.0, abs=0.5)
    assert 1.4 < run.data.metrics["time/train_s"] < 5.0
    # the model's power times this time, and not times the six seconds more
    watts = run.data.metrics["energy/train_wh"] * 3600 / run.data.metrics["time/train_s"]
    full = re.search(
        r"([\d.]+) W at full load.*memory ([\d.]+) W", run.data.tags["pepr.energy_method"]
    )
    assert full is not None
    assert watts <= 1.01 * (float(full[1]) + float(full[2]))


def test_evaluation_is_not_training(store: str) -> None:
    with pepr_mlops.measure("apart", model="x", energy="off") as m:
        time.sleep(0.1)
        with m.evaluation():
            time.sleep(0.5)
        time.sleep(0.1)
        m.epoch(performance=0.5)
    metrics = _only_run("apart").data.metrics
    assert 0.2 <= metrics["time/train_s"] < 0.45
    assert 0.5 <= metrics["time/eval_s"] < 0.75


def test_what_follows_the_last_epoch_is_not_logged(store: str) -> None:
    with pepr_mlops.measure("after", model="x", energy="off") as m:
        m.epoch(performance=0.5)
        time.sleep(0.5)
    assert _only_run("after").data.metrics["time/train_s"] < 0.4


def test_it_logs_to_the_active_run(store: str) -> None:
    with mlflow.start_run() as owner:
        mlflow.log_param("mine", 1)
        with pepr_mlops.measure("theirs", model="unet", energy="off") as m:
            m.epoch(performance=0.9, metrics={"val/dice": 0.9})
        assert m.run_id == owner.info.run_id
        assert mlflow.active_run() is not None
    found = MlflowClient().get_run(owner.info.run_id)
    assert found.data.params == {"mine": "1", "model": "unet"}
    assert found.data.tags["pepr.experiment"] == "theirs"
    assert found.data.metrics["val/dice"] == 0.9


@pytest.mark.parametrize(
    ("performance", "words"), [(83.2, "give a share, not per cent"), (float("nan"), "not finite")]
)
def test_a_performance_that_cannot_be_scored_is_refused(
    store: str, performance: float, words: str
) -> None:
    with (
        pytest.raises(WrongUse, match=words),
        pepr_mlops.measure("refused", model="x", energy="off") as m,
    ):
        m.epoch(performance=performance)
    assert _only_run("refused").info.status == "FAILED"


def test_the_cost_of_a_failing_loop_is_logged(store: str) -> None:
    def fails() -> None:
        with pepr_mlops.measure("fails", model="x", energy="off") as m:
            m.epoch(performance=0.5)
            time.sleep(0.2)
            raise ValueError("diverged")

    with pytest.raises(ValueError, match="diverged"):
        fails()
    run = _only_run("fails")
    assert run.info.status == "FAILED"
    assert "diverged" in run.data.tags["pepr.error"]
    assert run.data.metrics["time/train_s"] >= 0.2
    assert run.data.metrics["performance"] == 0.5


def test_costs_and_tags_are_logged_when_the_log_of_an_epoch_fails(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*of: object) -> None:
        raise OSError("no space left")

    def fails() -> None:
        with pepr_mlops.measure("full", model="x", energy="off", device="cpu") as m:
            time.sleep(0.2)
            with monkeypatch.context() as patch:
                patch.setattr(Run, "log", full)
                m.epoch(performance=0.5)  # ends its window before it logs

    with pytest.raises(OSError, match="no space left"):
        fails()
    run = _only_run("full")
    assert run.data.metrics["time/train_s"] >= 0.2
    assert "performance" not in run.data.metrics
    assert float(run.data.tags["pepr.cpu_others"]) >= 0


def test_names_of_the_package_are_what_it_says() -> None:
    assert callable(pepr_mlops.measure)
    assert callable(pepr_mlops.run)
    assert callable(pepr_mlops.measure)  # also after the module behind it was imported
    with pytest.raises(AttributeError, match="no attribute 'score_all'"):
        _ = pepr_mlops.score_all


def test_the_page_shows_the_example_that_is_run() -> None:
    example = (ROOT / "docs" / "examples" / "own_loop.py").read_text()
    code = example.split('"""\n', 1)[1].strip()
    assert f"```python\n{code}\n```" in (ROOT / "docs" / "measuring.md").read_text()
