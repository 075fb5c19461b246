"""Complete sweeps on this machine: real jobs in real processes, one of them killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from made import logged, logging, run
from mlflow import MlflowClient

import pepr_mlops
from pepr_mlops import RunSpec
from pepr_mlops.costs import gpus
from pepr_mlops.errors import WrongUse
from pepr_mlops.sweep import sweep
from pepr_mlops.sweep.driver import Limits
from pepr_mlops.sweep.earlier import identify_runs
from pepr_mlops.sweep.engine import NOTE, Report
from pepr_mlops.sweep.jobs import downloads, jobs, models
from pepr_mlops.sweep.observed import Objective
from pepr_mlops.sweep.slurm.options import Options
from pepr_mlops.tracking import read
from pepr_mlops.tracking.read import load_epochs


def test_models_by_name_glob_and_category() -> None:
    assert models(["resnet18d", "resnet18d", "dla46x_c"]) == ["resnet18d", "dla46x_c"]
    assert len(models(["paper"])) == 131
    assert len(models(["paper:efficient"])) == 31
    assert len(models(["paper:cnn"])) == 80
    assert len(models(["paper:small"])) == 66  # the median is one of them
    small = models(["paper:small+efficient"])
    assert set(small) == {*models(["paper:small"])} & {*models(["paper:efficient"])}
    assert models(["paper:mobilenetv2_*"]) == [
        m for m in models(["paper"]) if m.startswith("mobilenetv2_")
    ]
    assert "resnet18d" in models(["resnet1?d"])
    for wrong in ("paper:tiny", "paper:small+large", "nothing_like_it*"):
        with pytest.raises(WrongUse, match="model: "):
            models([wrong])


def test_models_and_data_must_exist() -> None:
    with pytest.raises(WrongUse, match="timm has no 'resnet81'"):
        jobs({"model": ["resnet18d", "resnet81"], "dataset": "digits"})
    with pytest.raises(WrongUse, match="dataset: 'digit' is neither"):
        jobs({"dataset": ["digits", "digit"]})


def test_a_relative_folder_is_the_same_data_set_as_its_absolute_path(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shapes.parent)
    (spec,) = jobs({"dataset": f"./{shapes.name}"})
    assert spec == jobs({"dataset": str(shapes)})[0]
    assert jobs({"dataset": "digits"})[0].dataset == "digits"


def test_downloads_are_counted_before_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pepr_mlops.train.models.cached_models", set)
    specs = jobs(
        {"model": ["resnet18d", "dla46x_c"], "dataset": "derma", "data_root": str(tmp_path)}
    )
    # (11,708,744 + 1,068,440) weights of 4 bytes
    assert downloads(specs) == (
        f"weights of 2 models, about 0.051 GB; dermamnist_224.npz to {tmp_path}"
    )
    scratch = jobs({"dataset": "digits", "pretrained": False})
    assert downloads(scratch) == "nothing"


def test_a_killed_job_resumes_and_a_second_call_does_nothing(
    store: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process is killed once its first epoch is logged."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where other jobs of this machine have no lock
    grid = {
        "model": "resnet10t",
        "dataset": str(shapes),
        "image_size": 32,
        "epochs": 6,
        "pretrained": False,
        "device": "cpu",
        "batch_size": 8,
    }
    specs = jobs(grid)
    settings = sweep.Settings(store, tmp_path / "checkpoints", limits=Limits(retries=1))
    reports: list[Report] = []
    killed = threading.Event()

    def kill() -> None:
        while not killed.wait(0.05):
            for _, pid in logging(tmp_path / "mlflow.db"):
                os.kill(pid, signal.SIGKILL)
                killed.set()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        ended = sweep.run(specs, settings, lambda _: None, reports.append)
    finally:
        killed.set()
        killer.join()
    assert list(ended.jobs["state"]) == ["done"]
    assert [r.reason for r in reports] == ["lost", "finished"]

    client = MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("shapes").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.tags["pepr.attempts"] == "2"
    assert float(run.data.tags["pepr.unmeasured_s"]) > 0
    history = load_epochs([run.info.run_id], tracking_uri=store)
    assert list(history["step"]) == list(range(1, 7))
    assert history["energy/train_wh"].is_monotonic_increasing
    assert history["time/train_s"].is_monotonic_increasing
    assert history["test/accuracy"].notna().all()
    assert not list((tmp_path / "checkpoints").glob("*/state.pt"))

    reports.clear()
    assert list(sweep.run(specs, settings, lambda _: None, reports.append).jobs["state"]) == [
        "done"
    ]
    assert reports == []
    assert mlflow.get_tracking_uri() == store


TINY = {
    "model": "test_resnet",
    "image_size": 32,
    "epochs": 1,
    "pretrained": False,
    "device": "cpu",
    "energy": "off",
}


def _make_earlier(client: MlflowClient, store: str) -> str:
    """Change the only run to one logged before data sets had a digest, and return its id."""
    (run,) = client.search_runs([client.get_experiment_by_name("shapes").experiment_id])
    spec = RunSpec.parse({k: v for k, v in run.data.params.items() if not k.startswith("pepr.")})
    client.set_tag(run.info.run_id, "pepr.spec", spec.earlier_fingerprint)
    client.delete_tag(run.info.run_id, "pepr.data_digest")
    return str(run.info.run_id)


def test_the_content_of_the_files_decides_which_jobs_are_done(
    store: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    settings = sweep.Settings(store, tmp_path / "checkpoints")
    sweep.run(jobs({**TINY, "dataset": str(shapes)}), settings, lambda _: None, lambda _: None)

    def state(dataset: Path) -> tuple[str, list[str]]:
        now = sweep.status(jobs({**TINY, "dataset": str(dataset)}), settings)
        return now.jobs["state"].iloc[0], list(now.notes)

    moved, other = tmp_path / "moved" / "shapes", tmp_path / "other" / "shapes"
    shutil.copytree(shapes, moved)
    shutil.copytree(shapes, other)
    (other / "train" / "dark" / "00.png").rename(other / "train" / "light" / "99.png")
    assert state(shapes) == ("done", [])
    assert state(moved) == ("done", [])
    assert state(other) == ("pending", ["1 run of shapes used other images: not counted as done"])
    renamed = moved.with_name("renamed")
    shutil.copytree(moved, renamed)
    assert state(renamed) == (
        "pending",
        ["shapes has 1 of these jobs done: --experiment shapes does not train it again"],
    )
    # both in one sweep are two jobs, and a copy is the same job
    both = jobs({**TINY, "dataset": [str(shapes), str(other), str(moved)]})
    assert [job.dataset for job in both] == [str(shapes), str(other)]

    client = MlflowClient(store)
    run_id = _make_earlier(client, store)
    same = (
        "1 earlier run used the same images, as the digests they logged show: counted as done, "
        "but they compare with new runs only by --allow-mixed, since they name no CPUs and threads"
    )
    assert state(shapes) == ("done", [same])
    assert "pepr.data_digest" not in client.get_run(run_id).data.tags  # reading changes nothing
    (shapes / "test" / "dark" / "00.png").unlink()
    assert state(shapes) == ("pending", ["1 earlier run used other images: not counted as done"])

    found, absent = identify_runs(["shapes"], dataset=str(moved), tracking_uri=store)
    assert absent == []
    assert list(found.same) == [run_id]
    assert client.get_run(run_id).data.tags["pepr.data_digest"] == found.same[run_id].data_digest
    assert state(moved) == ("done", [])


def test_a_search_decides_on_validation_and_reports_test(
    store: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of one class of val has the other's label, so that P differs between the splits."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for i in range(3):
        (shapes / f"val/dark/{i:02d}.png").rename(shapes / f"val/light/dark{i}.png")
    specs = jobs({**TINY, "model": ["test_resnet", "test_vit"], "dataset": str(shapes)})
    settings = sweep.Settings(store, tmp_path / "checkpoints")
    search = sweep.frugal(specs, settings, "T", Objective(top=1))
    ended = sweep.run(specs, settings, lambda _: None, lambda _: None, search)
    found = search.verdict(ended.jobs, ended.runs).table
    assert list(found["state"]) == ["finished", "finished"]  # two must be, to know how P scatters
    runs = ended.runs[ended.runs["status"] == "FINISHED"].set_index("model").loc[found.index]
    for split, column in (("val", "P"), ("test", "test_P")):
        assert found[column].to_list() == runs[f"metrics.{split}/accuracy"].to_list()
    assert (found["P"] != found["test_P"]).all()
    by_test = replace(search, decide_on="test").verdict(ended.jobs, ended.runs).table
    assert by_test["P"].to_list() == found["test_P"].to_list()

    # what it believed and found is logged, and read alike from the tables and through MLflow
    records = read.load_searches("shapes", tracking_uri=store)
    record = search.record(search.verdict(ended.jobs, ended.runs))
    ((name, logged),) = records.items()
    assert name.startswith("pepr-t-top-1-zero-alpha-1-val.")
    assert logged == {**json.loads(json.dumps(record)), "seed": 0}
    assert set(record["prior"]) == {"derma", "lidc", "pneumonia"}
    monkeypatch.setattr(read.tables, "open_tables", lambda uri: None)
    assert read.load_searches("shapes", tracking_uri=store) == records
    assert read.load_searches("absent", tracking_uri=store) == {}


def test_doubtful_images_are_noted_before_a_sweep_and_refused_with_strict(
    store: str, shapes: Path, tmp_path: Path
) -> None:
    for i in range(3):
        shutil.copy(shapes / f"train/dark/{i:02d}.png", shapes / f"val/dark/copy{i}.png")
    specs = jobs({**TINY, "dataset": ["digits", str(shapes)], "seed": [0, 1]})
    settings = sweep.Settings(store, tmp_path / "checkpoints")
    assert sweep.status(specs, settings).notes == [
        "shapes: 3 of 15 images of val are also in train: validation scores are less "
        "reliable than they look; test scores are unaffected"
    ]
    strict = replace(settings, strict=True)
    refused = "dataset: shapes: 3 of 15 images of val are also in train"
    with pytest.raises(WrongUse, match=refused):
        sweep.status(specs, strict)
    with pytest.raises(WrongUse, match=refused):
        sweep.run(specs, strict, print, print)
    assert MlflowClient(store).search_experiments(filter_string="name = 'shapes'") == []
    (sound, _) = jobs({**TINY, "dataset": "digits", "seed": [0, 1]})
    assert sweep.status([sound], strict).notes == []


def test_data_of_an_earlier_run_are_found_from_any_folder_or_named_as_missing(
    store: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shapes.parent)
    pepr_mlops.run(RunSpec(**TINY, dataset=f"./{shapes.name}"))
    monkeypatch.chdir("/")
    client = MlflowClient(store)
    run_id = _make_earlier(client, store)
    found, absent = identify_runs(["shapes"], tracking_uri=store)
    assert (list(found.same), absent) == ([run_id], [])
    _make_earlier(client, store)
    shapes.rename(tmp_path / "moved")
    found, absent = identify_runs(["shapes"], tracking_uri=store)
    assert (found.unknown, absent) == ((run_id,), [str(shapes)])


def test_an_earlier_run_that_logged_no_digest_is_not_counted(store: str, shapes: Path) -> None:
    settings = sweep.Settings(store)
    (job,) = jobs({**TINY, "dataset": str(shapes)})
    tags = {"pepr.spec": job.earlier_fingerprint, "pepr.data_digest": None}
    logged(store, run(**{**job.values(), "tags": {**tags, "pepr.experiment": "shapes"}}), "shapes")
    now = sweep.status([job], settings)
    assert now.jobs["state"].tolist() == ["pending"]
    assert now.notes == [
        "1 earlier run may have used other images or weights, which cannot be checked: not counted "
        "as done"
    ]
    found, _ = identify_runs(["shapes"], tracking_uri=store)
    assert (len(found.same), len(found.other), len(found.unknown)) == (0, 0, 1)


def test_graphs_are_refused_before_a_sweep_begins_where_there_is_no_gpu(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus.driver(), "slots", lambda: [])
    specs = jobs(
        {"model": "resnet18d", "dataset": "digits", "launch": "graph", "pretrained": False}
    )
    with pytest.raises(
        WrongUse, match="launch: graph needs an NVIDIA GPU, and this machine has none"
    ):
        sweep.run(specs, sweep.Settings(tracking_uri=store), print, print)


def test_offline_jobs_are_delivered_by_the_sweep_and_a_deleted_run_is_trained_again(
    store: str, shapes: Path, tmp_path: Path
) -> None:
    grid = {"model": "test_resnet", "image_size": 32, "epochs": 2, "pretrained": False}
    specs = jobs({**grid, "dataset": str(shapes), "device": "cpu", "energy": "off"})
    settings = sweep.Settings(store, tmp_path / "checkpoints", slurm=Options(offline=True))
    client, deleted = MlflowClient(), []
    for _ in range(2):
        reports: list[Report] = []
        result = sweep.run(specs, settings, lambda status: None, reports.append)
        assert [report.reason for report in reports if report.reason != NOTE] == ["finished"]
        assert list(result.jobs["state"]) == ["done"]
        (found,) = client.search_runs([client.get_experiment_by_name("shapes").experiment_id])
        assert found.info.status == "FINISHED"
        assert found.info.run_id not in deleted
        deleted.append(found.info.run_id)
        client.delete_run(found.info.run_id)
