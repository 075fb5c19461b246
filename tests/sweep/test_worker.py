"""A task in its process: how it reserves its device, and how it ends."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from made import job

from pepr_mlops import data
from pepr_mlops.costs.device import Device
from pepr_mlops.errors import TimeLimit, WorkFailed
from pepr_mlops.spec import RunSpec
from pepr_mlops.sweep import worker
from pepr_mlops.sweep.engine import FINAL, TRANSIENT, Task
from pepr_mlops.sweep.worker import Worker

CPU = Device(torch.device("cpu"))


@pytest.fixture(autouse=True)
def _own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(worker, "_POLL_EVERY_S", 0.05)


_HOLD = """
import sys, tempfile, time
tempfile.tempdir = sys.argv[1]
from pepr_mlops.costs.device import Device
from pepr_mlops.sweep.worker import _alone
with _alone(Device.resolve("cpu"), "refuse", "3f2a9c10 (resnet18d)", print):
    print("has it", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def _holder(folder: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _HOLD, str(folder), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "has it\n"
    return process


def test_one_job_has_the_device_until_its_process_ends(tmp_path: Path) -> None:
    process = _holder(tmp_path, 600)
    with (
        pytest.raises(WorkFailed, match=r"CPU is used by job 3f2a9c10 \(resnet18d\);") as refused,
        worker._alone(CPU, "refuse", "b", print),
    ):
        pytest.fail("two at once")
    assert refused.value.reason == "busy"
    process.kill()  # as abrupt as an end can be
    process.wait()
    with worker._alone(CPU, "refuse", "b", print):
        pass


def test_a_job_waits_for_a_busy_device(tmp_path: Path) -> None:
    process = _holder(tmp_path, 1.0)
    started, lines = time.monotonic(), []
    with worker._alone(CPU, "wait", "b", lines.append):
        assert process.poll() is not None or time.monotonic() - started > 0.5
    (line, *_) = lines
    pattern = r"Waiting for the CPU: job 3f2a9c10 \(resnet18d\) has held it for \d\.\d s\."
    assert re.fullmatch(pattern, line)
    assert len(lines) <= 2  # once while it has it, not at every poll
    process.wait()


def test_files_of_dead_processes_and_of_strangers_name_no_holder(tmp_path: Path) -> None:
    lock = tmp_path / "pepr_mlops-cpu.lock"
    process = _holder(tmp_path, 600)
    (left,) = tmp_path.glob("*.json")
    assert left.stat().st_mode & 0o777 == 0o644  # other users wait as well
    job, held_s = worker._holder(lock)
    assert job == "job 3f2a9c10 (resnet18d)"
    assert held_s is not None
    process.kill()
    process.wait()
    assert left.exists()
    (tmp_path / "pepr_mlops-cpu.7.json").write_text('{"process": 5}')
    (tmp_path / "pepr_mlops-cpu.8.json").write_text("[]")
    assert worker._holder(lock) == ("another job", None)
    with worker._alone(CPU, "refuse", "b", print):
        assert worker._holder(lock)[0] == "job b"
    assert not left.exists()


def test_jobs_of_slurm_on_one_node_or_two_do_not_wait_for_each_others_cpus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    with worker._alone(CPU, "refuse", "a", print):
        with (
            pytest.raises(WorkFailed, match="CPU is used by job a"),
            worker._alone(CPU, "refuse", "b", print),
        ):
            pytest.fail("two at once in one job")
        for name, value in (("SLURM_JOB_ID", "8"), ("SLURMD_NODENAME", "n2")):
            monkeypatch.setenv(name, value)
            with worker._alone(CPU, "refuse", "b", print):
                pass


def test_a_gpu_others_compute_on_is_refused_or_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [{"71 python"}, {"71 python"}, set()]
    monkeypatch.setattr("pepr_mlops.costs.gpus.nvidia.identify", lambda device: "GPU-0/1")
    monkeypatch.setattr(Device, "other_processes", lambda self: seen.pop(0) if seen else set())
    device = Device(torch.device("cuda:0"))
    with (
        pytest.raises(WorkFailed, match="GPU-0/1 is used by 71 python"),
        worker._alone(device, "refuse", "b", print),
    ):
        pytest.fail("not alone")
    lines: list[str] = []
    with worker._alone(device, "wait", "b", lines.append):
        assert seen == []
    assert lines == ["Waiting for GPU-0/1: 71 python uses it."]


def test_the_device_cools_down_first(monkeypatch: pytest.MonkeyPatch) -> None:
    temperatures = [61.0, 52.0, 45.0]
    monkeypatch.setattr(Device, "temperature_c", lambda self: temperatures.pop(0))
    worker._cool(CPU, 45.0)
    assert temperatures == []
    monkeypatch.setattr(Device, "temperature_c", lambda self: None)
    with pytest.raises(WorkFailed, match="no readable temperature"):
        worker._cool(CPU, 45.0)
    worker._cool(CPU, None)
    monkeypatch.setattr(Device, "temperature_c", lambda self: 70.0)
    monkeypatch.setattr(worker, "_COOLING_S", 0.1)
    with pytest.raises(WorkFailed, match="still at 70 °C") as warm:
        worker._cool(CPU, 45.0)
    assert warm.value.reason == "too_warm"


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (WorkFailed("no", reason="out_of_memory"), "out_of_memory"),
        (ZeroDivisionError("oops"), "crashed"),
        (SystemExit(143), "killed"),
        (TimeLimit("its job reached the time limit"), "time_limit"),
    ],
)
def test_every_outcome_is_a_report(
    store: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    raised: BaseException,
    reason: str,
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise raised

    monkeypatch.setattr("pepr_mlops.train.job.run", fail)
    monkeypatch.setattr(worker, "_end_with", lambda owner: None)
    task = Task(job(dataset="digits", device="cpu"))
    report = Worker(store, tmp_path, owner="")(task, print)
    assert report.reason == reason


def test_doubtful_images_are_a_report_that_a_later_call_may_change(
    store: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_end_with", lambda owner: None)
    shutil.copy(shapes / "train/dark/00.png", shapes / "test/dark/copy.png")
    spec = data.identify(RunSpec(dataset=str(shapes), image_size=32, epochs=1, pretrained=False))
    report = Worker(store, tmp_path, strict=True, owner="")(Task(spec), print)
    assert report.reason == "doubtful_data"
    assert report.reason not in TRANSIENT | FINAL
    assert report.error is not None
    assert "1 of 17 images of test are also in train" in report.error


def test_a_sweep_receives_the_notes_about_its_server_and_sensors(
    capfd: pytest.CaptureFixture[str],
) -> None:
    received: list[str] = []
    notes = worker._Forwarded(job(), "estimated", received.append)
    notes.note("tracking: spec.json cannot be stored (closed); `pepr sync` tries again")
    notes.note("energy of the GPU is not known: the GPU has no energy counter")
    notes.note("resnet18d on cpu")
    assert received == [
        "tracking: spec.json cannot be stored (closed); `pepr sync` tries again",
        "energy of the GPU is not known: the GPU has no energy counter",
    ]
    assert capfd.readouterr().err.splitlines() == [*received, "resnet18d on cpu"]


_WORK = """
import pathlib, sys
from pepr_mlops import data
from pepr_mlops.spec import RunSpec
from pepr_mlops.sweep.engine import Task
from pepr_mlops.sweep.worker import Worker

store, shapes, checkpoints, epochs = sys.argv[1:]
model = dict(model="test_resnet", image_size=32, pretrained=False, device="cpu", energy="off")
spec = data.identify(RunSpec(dataset=shapes, epochs=int(epochs), **model))
report = Worker(store, pathlib.Path(checkpoints))(Task(spec), print)
print(report.reason, report.error, sep="|")
"""


def test_a_time_limit_ends_the_run_with_that_reason(
    store: str, shapes: Path, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    words = [sys.executable, "-c", _WORK, store, str(shapes), str(tmp_path / "checkpoints"), "2000"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / "checkpoints").glob("*/state.pt")) and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGUSR1)
    out, _ = process.communicate(timeout=60)
    assert out.splitlines()[-1] == "time_limit|its job reached the time limit"
    client = MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("shapes").experiment_id])
    tags = run.data.tags
    assert (run.info.status, tags["pepr.reason"]) == ("KILLED", "time_limit")
    assert tags["pepr.error"] == "its job reached the time limit"
    assert run.data.metrics["time/train_s"] > 0


def test_a_job_pauses_at_an_epoch_and_at_a_budget_and_resumes(
    store: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    from pepr_mlops.tracking.read import load_epochs

    monkeypatch.setattr(worker, "_end_with", lambda owner: None)
    monkeypatch.setattr("pepr_mlops.train.loop._PROBE_S", 0.0)
    work = Worker(store, tmp_path / "checkpoints", keep_top="--keep-top 2 --by cost", owner="")
    spec = data.identify(
        RunSpec(model="test_resnet", dataset=str(shapes), image_size=32, epochs=4, pretrained=False)
    )
    reports = [
        work(Task(spec, until=0), print),
        work(Task(spec, until=1), print),
        work(Task(spec, left_wh=1e-9), print),
        work(Task(spec), print),
        work(Task(spec), print),
    ]
    reasons = [r.reason for r in reports]
    assert reasons == ["probed", "paused", "paused", "finished", "claimed"]
    client = MlflowClient(store)
    runs = client.search_runs([client.get_experiment_by_name("shapes").experiment_id])
    trained, probed = sorted(runs, key=lambda r: "pepr.probe" in r.data.tags)
    assert len(runs) == 2
    assert (probed.info.status, probed.data.tags["pepr.reason"]) == ("KILLED", "probed")
    assert probed.data.metrics["forecast/train_wh"] > 0
    assert "performance" not in probed.data.metrics
    assert (trained.info.status, trained.data.tags["pepr.attempts"]) == ("FINISHED", "3")
    assert "pepr.unmeasured_s" not in trained.data.tags  # it was not interrupted
    assert trained.data.tags["pepr.keep_top"] == "--keep-top 2 --by cost"
    history = load_epochs([trained.info.run_id], ["test/accuracy", "time/train_s"])
    assert list(history["step"]) == [1, 2, 3, 4]
    assert history["time/train_s"].is_monotonic_increasing
    assert not (tmp_path / "checkpoints" / spec.fingerprint).exists()
