"""Logs that carbontracker itself wrote, of simulated devices, become runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pepr_mlops import cli
from pepr_mlops.comparison import Question, inspect
from pepr_mlops.errors import WrongUse
from pepr_mlops.imports import carbontracker
from pepr_mlops.imports.files import FinishedRun
from pepr_mlops.tracking import import_runs, read

# A CPU of 50 W and a GPU of 240 W in epochs of 0.3 s. The first training ends, the second stops
# early, the third trains longer than it is monitored, the last breaks off. No place is looked up.
WRITE = """
import os, socket, sys, time
def offline(*_, **__):
    raise OSError("no network")
socket.getaddrinfo = offline
from carbontracker.tracker import CarbonTracker
def tracker(name, **options):
    return CarbonTracker(
        log_dir=sys.argv[1], log_file_prefix=name, update_interval=0.05, verbose=0,
        sim_cpu="Xeon X", sim_cpu_tdp=100, sim_cpu_util=0.5, **options,
    )
def train(tracker, epochs):
    for _ in range(epochs):
        tracker.epoch_start()
        time.sleep(0.3)
        tracker.epoch_end()
gpu = dict(sim_gpu="A100", sim_gpu_watts=300, sim_gpu_util=0.8)
train(tracker("full", epochs=2, **gpu), 2)
stopped = tracker("stopped", epochs=5, components="cpu")
train(stopped, 2)
stopped.stop()
train(tracker("part", epochs=3, monitor_epochs=2, components="cpu"), 3)
train(tracker("crashed", epochs=5, components="cpu"), 1)
os._exit(0)
"""
PUE = 1.58  # of carbontracker 2.4


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the logs of four trainings."""
    folder = tmp_path_factory.mktemp("logs")
    subprocess.run(
        [sys.executable, "-c", WRITE, str(folder)], check=True, capture_output=True, timeout=60
    )
    return folder


@pytest.fixture
def runs(logs: Path) -> dict[str, FinishedRun]:
    return {run.name: run for run in carbontracker.read(logs, "seg", {})[0]}


def _values(run: FinishedRun) -> dict[str, float]:
    return {name: value for name, value, _ in run.points}


def test_the_actual_consumption_becomes_a_run(runs: dict[str, FinishedRun], logs: Path) -> None:
    run = runs["full"]
    values = _values(run)
    # the durations are in the log to 0.01 s, with which 290 W give the energy of the machine
    assert values["time/train_s"] == pytest.approx(0.6, abs=0.1)
    assert values["energy/train_wh"] == pytest.approx(290 * values["time/train_s"] / 3600, rel=0.03)
    assert values["energy/train_gpu_wh"] == pytest.approx(240 * values["time/train_s"] / 3600)
    assert values["energy/train_cpu_wh"] == pytest.approx(50 * values["time/train_s"] / 3600)
    # the average of the world, where the place is not known
    assert values["carbon/train_gco2e"] == pytest.approx(
        values["energy/train_wh"] / 1000 * PUE * 445, rel=1e-6
    )
    assert run.params == {"model": "full", "epochs": "2"}
    expected = {
        "pepr.energy_source": "estimated",
        "pepr.energy_components": "gpu=imported,cpu=estimated",
        "pepr.energy_method": "carbontracker 2.4.7",
        "pepr.pue": "1.58",
        "pepr.carbon_intensity_g_per_kwh": "445",
        "pepr.carbon_source": "place not known, by carbontracker",
        "pepr.hardware": "A100",
        "pepr.gpu_count": "1",
        "pepr.cpu": "Xeon X",
    }
    assert {tag: run.tags[tag] for tag in expected} == expected
    from carbontracker import parser

    (output,) = logs.glob("full_*_output.log")
    actual, predicted = parser.get_consumption(output.read_text())
    assert values["energy/train_wh"] == pytest.approx(actual["energy (kWh)"] * 1000 / PUE)
    assert values["energy/train_wh"] != pytest.approx(predicted["energy (kWh)"] * 1000 / PUE)


def test_a_prediction_is_never_imported(logs: Path) -> None:
    found, notes = carbontracker.read(logs, "seg", {})
    assert {run.name for run in found} == {"full", "stopped", "part"}
    (note,) = notes
    assert note.startswith("crashed_")
    assert note.endswith("is left out: it has no actual consumption of the training")
    assert not any("forecast" in name for run in found for name, *_ in run.points)


def test_a_training_monitored_in_part_has_no_energy(
    store: str, runs: dict[str, FinishedRun]
) -> None:
    import_runs(list(runs.values()), store)
    found = read.load_runs("seg", tracking_uri=store)
    energies = found.set_index("model")["energy_wh"]
    assert runs["part"].params["epochs"] == "3"  # it was trained for all of them
    assert energies.isna().to_dict() == {"full": False, "stopped": False, "part": True}
    judged, _ = inspect(found, Question())
    reasons = dict(zip(judged["model"], judged["reasons"], strict=True))
    assert (
        "its energy is known for a part of it only: carbontracker monitored 2 of 3 epochs"
        in reasons["part"]
    )


def test_doubts_are_flagged(store: str, runs: dict[str, FinishedRun]) -> None:
    import_runs(list(runs.values()), store)
    judged, _ = inspect(read.load_runs("seg", tracking_uri=store), Question())
    flags = dict(zip(judged["model"], map(" ".join, judged["flags"]), strict=True))
    assert "training was interrupted after 2 of 5 epochs" in flags["stopped"]
    assert "the power of its GPU is 240 W in every epoch: a constant" in flags["full"]
    assert "its energy is an estimate" in flags["full"]


def _changed(logs: Path, folder: Path, old: str, new: str) -> Path:
    """The logs of the full training with another text, in another folder."""
    for path in logs.glob("full_*"):
        text = path.read_text()
        (folder / path.name).write_text(text.replace(old, new))
    return folder


def test_gpus_whose_mean_was_counted_have_no_energy(logs: Path, tmp_path: Path) -> None:
    two = _changed(logs, tmp_path, "device(s) A100.", "device(s) A100, A100.")
    ((run,), _) = carbontracker.read(two, "seg", {})
    assert run.tags["pepr.gpu_count"] == "2"
    assert run.tags["pepr.energy_source"] == "lost"
    assert run.tags["pepr.energy_missing"] == (
        "carbontracker counted the mean of its 2 GPUs, not their sum"
    )
    assert list(_values(run)) == ["time/train_s"]
    each = _changed(two, tmp_path, "for gpu: 240.0", "for gpu: [120.\n 120.]")
    ((run,), _) = carbontracker.read(each, "seg", {})
    assert run.tags["pepr.energy_source"] == "estimated"
    values = _values(run)
    assert values["energy/train_gpu_wh"] == pytest.approx(240 * values["time/train_s"] / 3600)


@pytest.mark.parametrize("power", ["0.0", "None"])
def test_a_gpu_that_could_not_be_read_leaves_no_energy(
    logs: Path, tmp_path: Path, power: str
) -> None:
    """carbontracker's total is then that of the CPU."""
    unread = _changed(logs, tmp_path, "for gpu: 240.0", f"for gpu: {power}")
    ((run,), _) = carbontracker.read(unread, "seg", {})
    assert run.tags["pepr.energy_source"] == "lost"
    assert run.tags["pepr.energy_missing"] == "gpu: carbontracker counted none"
    assert run.tags["pepr.energy_components"] == "cpu=estimated"
    assert list(_values(run)) == ["time/train_s"]


def test_a_cpu_that_could_not_be_read_is_missing(logs: Path, tmp_path: Path) -> None:
    unread = _changed(logs, tmp_path, "for cpu: 50.0", "for cpu: 0.0")
    ((run,), _) = carbontracker.read(unread, "seg", {})
    assert run.tags["pepr.energy_source"] == "imported"
    assert run.tags["pepr.energy_missing"] == "cpu: carbontracker counted none"
    assert run.tags["pepr.energy_components"] == "gpu=imported"


def test_counters_of_a_cpu_are_no_estimate(logs: Path, tmp_path: Path) -> None:
    ((run,), _) = carbontracker.read(
        _changed(logs, tmp_path, "device(s) Xeon X.", "device(s) cpu:0."), "seg", {}
    )
    assert run.tags["pepr.energy_source"] == "imported"


def test_the_user_names_the_model_where_the_log_does_not(logs: Path, tmp_path: Path) -> None:
    for path in logs.glob("full_*"):
        (tmp_path / path.name.removeprefix("full_")).write_bytes(path.read_bytes())
    with pytest.raises(WrongUse, match=r"names no model.*--model"):
        carbontracker.read(tmp_path, "seg", {})
    ((run,), _) = carbontracker.read(tmp_path, "seg", {"model": "unet", "dataset": "derma"})
    assert run.params == {"model": "unet", "dataset": "derma", "epochs": "2"}


def test_importing_again_adds_nothing(store: str, runs: dict[str, FinishedRun]) -> None:
    assert import_runs(list(runs.values()), store) == 3
    assert import_runs(list(runs.values()), store) == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("multiplied by a PUE", "multiplied", "does not state the PUE that its energy contains"),
        ("- Duration:", "-", "does not state the duration of an epoch"),
        ("Actual consumption", "", "no log in .* has an actual consumption"),
        (" kWh", "e400 kWh", "the actual energy in .* is '.*e400', not a number"),
        ("Energy:\t0", "Energy:\t-0", "is '-0.*', not a number"),
    ],
)
def test_damaged_logs_are_refused(
    logs: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(WrongUse, match=message):
        carbontracker.read(_changed(logs, tmp_path, old, new), "seg", {})


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"no log of carbontracker \(\*_carbontracker.log\) in"):
        carbontracker.read(tmp_path, "seg", {})
    (tmp_path / "a_carbontracker.log").write_bytes("ä".encode("latin-1"))
    with pytest.raises(WrongUse, match="is not UTF-8"):
        carbontracker.read(tmp_path, "seg", {})


def test_the_command_notes_what_is_left_out(
    store: str, logs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["import", "carbontracker", str(logs), "--experiment", "seg", "--model", "unet"])
    out, err = capfd.readouterr()
    assert out == "3 runs imported, 0 existed; experiments: seg\n"
    assert "note: crashed_" in err
    assert set(read.load_runs("seg", tracking_uri=store)["model"]) == {"unet"}
