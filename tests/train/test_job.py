"""A full job into the embedded store, and the one that fails."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image
from sklearn.metrics import average_precision_score, brier_score_loss, roc_curve
from sklearn.preprocessing import label_binarize

import pepr_mlops
from pepr_mlops import RunSpec, data
from pepr_mlops.cli.train import summary
from pepr_mlops.comparison import Question, compare
from pepr_mlops.comparison.predictions import from_arrays
from pepr_mlops.costs.totals import J_PER_WH
from pepr_mlops.errors import Paused, WorkFailed, WrongUse
from pepr_mlops.names import METRICS, TAGS
from pepr_mlops.train import models
from pepr_mlops.train.job import run
from pepr_mlops.train.progress import Printed
from pepr_mlops.train.resume import _machine

TINY: dict[str, Any] = {"model": "test_resnet", "image_size": 32, "pretrained": False}


def _artifact(run_id: str, name: str) -> Path:
    return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=name))


def test_a_job_leaves_everything_in_mlflow(store: str, shapes: Path) -> None:
    spec = RunSpec(
        dataset=str(shapes),
        image_size=32,
        epochs=2,
        pretrained=False,
        carbon_intensity=200.0,
        energy="estimated",
        device="cpu",
    )
    outcome = pepr_mlops.run(spec)
    assert repr(outcome).startswith("Outcome(run=")  # as the last line of a notebook's cell
    client = MlflowClient()
    found = client.get_run(outcome.run.run_id)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "resnet18d 0 from scratch"
    assert client.get_experiment(found.info.experiment_id).name == "shapes"
    assert RunSpec.parse(found.data.params) == spec
    of_the_first = {
        name: value
        for name, value in found.data.metrics.items()
        if name == "time/setup_s" or name.startswith("forecast/")
    }
    assert len(of_the_first) == 4
    assert found.data.metrics == pytest.approx(dict(outcome.result.metrics) | of_the_first)
    assert set(found.data.metrics) <= set(METRICS)

    tags = {k: v for k, v in found.data.tags.items() if not k.startswith("mlflow.")}
    assert all(k in TAGS or k.startswith("pepr.version.") for k in tags)
    assert tags["pepr.experiment"] == "shapes"
    assert tags["pepr.parameters"] == str(
        11_708_744  # as published
        - 513 * (1000 - 2)  # a head of 512 weights and a bias for each class
        - 32 * 9 * 2  # a first layer of 32 filters of 3×3 on one channel, not three
    )
    assert tags["pepr.version.torch"].startswith("2.")
    assert float(tags["pepr.ram_gb"]) > 0.5
    assert tags["pepr.carbon_source"] == "given"
    assert tags["pepr.energy_source"] == "estimated"
    assert tags["pepr.energy_components"] == "cpu=estimated,dram=estimated"
    energy = found.data.metrics["energy/train_wh"]
    seconds = found.data.metrics["time/train_s"]
    assert 1 < energy * J_PER_WH / seconds < 1000  # watts
    assert found.data.metrics["carbon/train_gco2e"] == pytest.approx(energy / 1000 * 200)
    assert float(tags["pepr.idle_power_w"]) > 1
    assert tags["pepr.weights"] == "none"
    assert tags["pepr.data_digest"] == data.identify(spec).data_digest
    assert tags["pepr.spec"] == data.identify(spec).fingerprint
    (row,) = pepr_mlops.load_runs("shapes").to_dict("records")
    assert (row["val_images"], row["test_images"]) == (12, 16)

    for name in ("test/accuracy", "train/loss", "energy/train_wh", "memory/rss_gb"):
        assert [m.step for m in client.get_metric_history(found.info.run_id, name)] == [1, 2]
    stored = json.loads(_artifact(found.info.run_id, "spec.json").read_text())
    assert RunSpec(**stored) == spec
    with np.load(_artifact(found.info.run_id, "predictions.npz")) as predictions:
        right = predictions["probabilities"].argmax(axis=1) == predictions["labels"]
        assert len(set(predictions["files"])) == 16  # digests, in the order of the paths
        assert predictions["labels"].tolist() == [0] * 8 + [1] * 8
        right_in_val = predictions["val_probabilities"].argmax(axis=1) == predictions["val_labels"]
        assert str(predictions["data_digest"]) == tags["pepr.data_digest"]
        assert not any(name.partition("group_")[1] for name in predictions)
    assert right.mean() == found.data.metrics["test/accuracy"]
    assert right_in_val.mean() == found.data.metrics["val/accuracy"]
    head, *rows = _artifact(found.info.run_id, "confusion_matrix.csv").read_text().splitlines()
    assert head == "true class,dark,light"
    hits = sum(int(row.split(",")[i]) for i, row in enumerate(rows, 1))
    assert hits == right.sum()
    assert _artifact(found.info.run_id, "confusion_matrix.png").stat().st_size < 10_000


def test_clinical_metrics_of_the_last_epoch_are_those_of_the_logged_predictions(
    store: str,
) -> None:
    spec = RunSpec(
        **{"model": "lcnet_050", "dataset": "digits", "image_size": 32, "epochs": 2},
        **{"pretrained": False, "energy": "estimated", "device": "cpu"},
    )
    outcome = run(spec)
    client, run_id = MlflowClient(), outcome.run.run_id
    with np.load(_artifact(run_id, "predictions.npz")) as arrays:
        found = dict(arrays)
    logged = client.get_run(run_id).data.metrics
    for split, prefix in (("test", ""), ("val", "val_")):
        truth = label_binarize(found[f"{prefix}labels"], classes=range(10))
        chances = found[f"{prefix}probabilities"]
        precision = average_precision_score(truth, chances)  # the mean over classes
        assert 0.1 < precision < 1
        assert logged[f"{split}/average_precision"] == pytest.approx(precision)
        brier = brier_score_loss(found[f"{prefix}labels"], chances, scale_by_half=True)
        assert logged[f"{split}/brier"] == pytest.approx(brier)
    curves = [roc_curve(true, chance)[:2] for true, chance in zip(truth.T, chances.T, strict=True)]
    best = np.mean([(found_share - alarms).max() for alarms, found_share in curves])  # on val
    assert logged["val/sensitivity"] + logged["val/specificity"] - 1 == pytest.approx(best)
    names = [name for name in METRICS if name.startswith(("val/", "test/")) and name in logged]
    late = {name for name in names if len(client.get_metric_history(run_id, name)) == 1}
    assert len(late) == 2 * 6
    assert {client.get_metric_history(run_id, name)[0].step for name in late} == {2}
    assert {name: outcome.result.metrics[name] for name in late} == {n: logged[n] for n in late}
    scored = compare(
        pepr_mlops.load_runs("digits"), Question(performance="test/average_precision", draws=0)
    )
    assert scored.scores["performance"].tolist() == [logged["test/average_precision"]]


def _all_that_is_logged(run_id: str) -> bytes:
    """What a tracking server has of a run, with the arrays of files unpacked."""
    client = MlflowClient()
    found = client.get_run(run_id)
    parts = [str(found.to_dictionary()).encode()]
    for path in Path(client.download_artifacts(run_id, "")).rglob("*.*"):
        parts.append(path.read_bytes())
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                parts += [f"{name} {values.tolist()}".encode() for name, values in arrays.items()]
    return b"\n".join(parts)


def test_groups_are_logged_and_files_and_patients_only_as_digests(store: str, shapes: Path) -> None:
    files = sorted(p.relative_to(shapes).as_posix() for p in shapes.rglob("*.png"))
    rows = [f"{file},PLANTED-{i // 4},site {i % 3}" for i, file in enumerate(files)]
    lines = ["file,patient,site", *sorted(rows, reverse=True)]
    (shapes / "images.csv").write_text("\n".join(lines))
    spec = RunSpec(
        **{"model": "lcnet_050", "dataset": str(shapes), "image_size": 32, "epochs": 1},
        **{"pretrained": False, "energy": "off", "device": "cpu"},
    )
    run_id = run(spec).run.run_id
    with np.load(_artifact(run_id, "predictions.npz")) as arrays:
        found = from_arrays(arrays)
    assert found.val is not None
    for name, split in (("test", found.test), ("val", found.val)):
        own = [i for i, file in enumerate(files) if file.startswith(name)]
        assert split.groups["site"].tolist() == [f"site {i % 3}" for i in own]
        digests = split.groups["patient"].tolist()
        assert np.unique(digests, return_inverse=True)[0].size == len(own) / 4
        assert all(digests[k] == digests[k - k % 4] for k in range(len(own)))
        assert split.images is not None
        assert len(set(split.images)) == len(own)
        assert all(re.fullmatch("[0-9a-f]{16}", text) for text in (*digests, *split.images))
    logged = _all_that_is_logged(run_id)
    assert b"site 2" in logged
    assert b"PLANTED" not in logged
    assert b"00.png" not in logged


def test_test_images_also_in_train_are_reported_before_and_after_and_refused_if_strict(
    store: str, shapes: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for i in range(4):
        shutil.copy(shapes / f"train/dark/{i:02d}.png", shapes / f"test/dark/copy{i}.png")
    frames = [Image.new("L", (20, 20), value) for value in (200, 220)]
    frames[0].save(shapes / "train/light/two.gif", save_all=True, append_images=frames[1:])
    spec = RunSpec(
        **{"model": "lcnet_050", "dataset": str(shapes), "image_size": 32, "epochs": 1},
        **{"pretrained": False, "energy": "off", "device": "cpu"},
    )
    leaked = "4 of 20 images of test are also in train"
    text = f"{leaked}: part of the test set was in the training set"
    outcome = run(spec, progress=Printed)
    lines = capfd.readouterr().err.splitlines()
    before = [line.partition(":")[0] for line in lines]
    assert "1 of 65 files has further frames or slices, 1 in all, which are passed over" in lines
    assert lines.index(f"caution: {text}") < before.index("epoch 1/1")
    assert text in outcome.cautions
    assert f"caution: {text}" in summary(outcome).splitlines()
    done = MlflowClient().get_run(outcome.run.run_id)
    assert done.data.tags["pepr.data_leak"] == leaked
    assert "pepr.data_val" not in done.data.tags

    refused = rf"dataset: shapes: {leaked}\. Correct the images .* without --strict"
    with pytest.raises(WrongUse, match=refused):
        run(spec, strict=True)
    failed = next(r for r in MlflowClient().search_runs(["1"]) if r.info.status == "FAILED")
    assert failed.data.tags["pepr.reason"] == "doubtful_data"
    assert failed.data.tags["pepr.spec"] == done.data.tags["pepr.spec"]  # it is the same job
    assert "time/train_s" not in failed.data.metrics


def test_recorded_energy_is_logged_to_the_joule(
    store: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full job whose sensor is Zeus' replay of a recording."""
    from zeus.utils.testing import ReplayZeusMonitor

    recording = tmp_path / "recorded.csv"
    windows = [("idle", 5.0), ("train", 1800.0), ("eval", 90.0), ("train", 2160.0), ("eval", 90.0)]
    rows = [f"{i}.0,{name},1.0,{joules}" for i, (name, joules) in enumerate(windows)]
    recording.write_text("\n".join(["start_time,window_name,elapsed_time,gpu0_energy", *rows, ""]))
    monitor = ReplayZeusMonitor(log_file=recording, ignore_sync_execution=True)
    monkeypatch.setattr(
        "pepr_mlops.costs.meters.find_sensors",
        lambda uuids, host: (monitor, ("gpu",), {"cpu": "no RAPL here"}),
    )
    spec = RunSpec(
        **{"model": "lcnet_050", "dataset": str(shapes), "image_size": 32, "epochs": 2},
        **{"pretrained": False, "energy": "measured"},
    )
    found = MlflowClient().get_run(pepr_mlops.run(spec).run.run_id)
    assert found.data.metrics["energy/train_wh"] == pytest.approx(1.1)
    assert found.data.metrics["energy/train_gpu_wh"] == pytest.approx(1.1)
    assert found.data.metrics["energy/eval_wh"] == pytest.approx(0.05)
    history = MlflowClient().get_metric_history(found.info.run_id, "energy/train_wh")
    assert [m.value for m in history] == pytest.approx([0.5, 1.1])
    tags = found.data.tags
    assert tags["pepr.energy_source"] == "measured"
    assert tags["pepr.energy_components"] == "gpu=measured"
    assert tags["pepr.energy_missing"] == "cpu: no RAPL here"
    assert "off by up to" in tags["pepr.energy_caution"]  # these epochs take well under 2 s
    assert tags["mlflow.note.content"].startswith("Energy: measured (Zeus 0.16")


def test_energy_of_a_part_of_the_run_does_not_count_as_its_sum(
    store: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recording ends in the second epoch, as if the sensor had vanished."""
    from zeus.utils.testing import ReplayZeusMonitor

    recording = tmp_path / "recorded.csv"
    rows = [f"{i}.0,{name},1.0,100.0" for i, name in enumerate(["idle", "train", "eval"])]
    recording.write_text("\n".join(["start_time,window_name,elapsed_time,gpu0_energy", *rows, ""]))
    monitor = ReplayZeusMonitor(log_file=recording, ignore_sync_execution=True)
    monkeypatch.setattr(
        "pepr_mlops.costs.meters.find_sensors", lambda uuids, host: (monitor, ("gpu",), {})
    )
    spec = RunSpec(**TINY, dataset=str(shapes), epochs=2)
    outcome = pepr_mlops.run(spec)
    assert outcome.energy_source == "lost"
    assert "energy/train_wh" not in outcome.result.metrics
    tags = MlflowClient().get_run(outcome.run.run_id).data.tags
    assert tags["pepr.energy_source"] == "lost"
    assert "gpu (train): epoch 2: RuntimeError: No more lines" in tags["pepr.energy_missing"]
    assert tags["mlflow.note.content"] == "Energy: lost during the run"


def test_energy_off_logs_none_and_time_all_the_same(store: str, shapes: Path) -> None:
    spec = RunSpec(**TINY, dataset=str(shapes), epochs=1, energy="off")
    found = MlflowClient().get_run(pepr_mlops.run(spec).run.run_id)
    assert not [name for name in found.data.metrics if name.startswith("energy/")]
    assert found.data.tags["pepr.energy_source"] == "none"
    assert "pepr.idle_power_w" not in found.data.tags
    assert found.data.metrics["time/train_s"] > 0


def test_a_failure_after_the_start_is_in_mlflow(store: str, shapes: Path) -> None:
    spec = RunSpec(dataset=str(shapes), image_size=32, epochs=1)  # weights from the hub, offline
    with pytest.raises(WorkFailed, match="could not be fetched"):
        pepr_mlops.run(spec)
    (run,) = MlflowClient().search_runs(
        [MlflowClient().get_experiment_by_name("shapes").experiment_id]
    )
    assert run.info.status == "FAILED"
    assert run.data.tags["pepr.reason"] == "missing_weights"
    assert "could not be fetched" in run.data.tags["pepr.error"]


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "no_such_model"},
        {"dataset": "no_such_set"},
        {"device": "cuda:99"},
        {"country": "XXX"},
        {"precision": "tf32", "device": "cpu"},
    ],
)
def test_an_impossible_spec_makes_no_run(store: str, fields: dict[str, str]) -> None:
    with pytest.raises(WrongUse):
        pepr_mlops.run(RunSpec(**{"dataset": "digits", **fields}))  # type: ignore[arg-type]
    assert [e.name for e in MlflowClient().search_experiments()] == ["Default"]


def test_an_attempt_that_does_not_finish_says_who_else_worked(
    store: str, shapes: Path, tmp_path: Path
) -> None:
    spec = RunSpec(**TINY, dataset=str(shapes), epochs=2, energy="off", device="cpu")
    with pytest.raises(Paused):
        run(spec, checkpoints=tmp_path / "c", until=1)
    client = MlflowClient()
    (paused,) = client.search_runs([client.get_experiment_by_name("shapes").experiment_id])
    assert float(paused.data.tags["pepr.cpu_others"]) >= 0
    client.set_tag(paused.info.run_id, "pepr.cpu_others", "99.50")  # a busy attempt
    outcome = run(spec, checkpoints=tmp_path / "c")
    assert outcome.run.run_id == paused.info.run_id
    assert client.get_run(outcome.run.run_id).data.tags["pepr.cpu_others"] == "99.50"


def test_a_training_does_not_resume_on_other_images(
    store: str, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a wrong label was corrected in place."""
    spec = RunSpec(**TINY, dataset=str(shapes), epochs=2, energy="off", device="cpu")
    with pytest.raises(Paused):
        run(spec, checkpoints=tmp_path / "c", until=1)
    (saved,) = (tmp_path / "c").iterdir()
    (shapes / "train" / "dark" / "00.png").rename(shapes / "train" / "light" / "99.png")
    outcome = run(spec, checkpoints=tmp_path / "c", progress=Printed)
    note = f"starts from the beginning: images or weights changed since {saved} was saved"
    assert note in capsys.readouterr().err
    client = MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name("shapes").experiment_id])
    assert len(runs) == 2
    assert len({r.data.tags["pepr.data_digest"] for r in runs}) == 2
    tags = client.get_run(outcome.run.run_id).data.tags
    assert tags["pepr.attempts"] == "1"
    history = client.get_metric_history(outcome.run.run_id, "performance")
    assert [m.step for m in history] == [1, 2]


def test_a_training_resumes_whatever_its_folder_is_called(
    store: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = RunSpec(**TINY, dataset=str(shapes), epochs=2, energy="off", device="cpu")
    with pytest.raises(Paused):
        run(spec, checkpoints=tmp_path / "c", until=1)
    monkeypatch.chdir(shapes.parent)
    shapes.rename(tmp_path / "moved")
    spec = dataclasses.replace(spec, dataset="./moved", experiment="shapes")
    outcome = run(spec, checkpoints=tmp_path / "c")
    tags = MlflowClient().get_run(outcome.run.run_id).data.tags
    assert tags["pepr.attempts"] == "2"
    assert list((tmp_path / "c").iterdir()) == []


def test_weights_are_logged_with_their_digest(store: str, shapes: Path, real_weights: Path) -> None:
    spec = RunSpec(
        **{"model": "tf_efficientnet_lite0", "dataset": str(shapes), "image_size": 32},
        **{"epochs": 1, "weights": str(real_weights), "energy": "off", "device": "cpu"},
    )
    tags = MlflowClient().get_run(pepr_mlops.run(spec).run.run_id).data.tags
    digest = data.identify(spec).weights_digest
    assert tags["pepr.weights"] == f"file {digest}"


def test_a_training_resumes_only_where_its_costs_add_up() -> None:
    """On as much of the same hardware, and with the energy of the same CPU where that counts."""
    gpu = {"pepr.hardware": "NVIDIA H100", "pepr.cpus": "16", "pepr.cpu": "AMD EPYC"}
    counted = {**gpu, "pepr.energy_components": "gpu=measured,cpu=measured"}
    other_cpu = {"pepr.cpu": "Intel Xeon"}
    assert _machine({**gpu, **other_cpu}) == _machine(gpu)
    assert _machine({**counted, **other_cpu}) != _machine(counted)
    assert _machine({**gpu, "pepr.cpus": "8"}) != _machine(gpu)
    model = {"pepr.energy_model": "cpu 8 W, dram 20 W"}
    assert _machine({**gpu, **model}) != _machine(gpu)


def test_weights_that_change_while_they_are_read_end_the_job(
    store: str, shapes: Path, tmp_path: Path, real_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*args: object, **kwargs: object) -> torch.nn.Module:
        network = real(*args, **kwargs)  # type: ignore[arg-type]
        with weights.open("ab") as file:
            file.write(b"0")
        return network

    real = models.build
    monkeypatch.setattr(models, "build", build)
    weights = tmp_path / "w.safetensors"
    shutil.copy(real_weights, weights)
    spec = RunSpec(
        **{"model": "tf_efficientnet_lite0", "dataset": str(shapes), "image_size": 32},
        **{"epochs": 1, "weights": str(weights), "energy": "off", "device": "cpu"},
    )
    with pytest.raises(WorkFailed, match=r"weights: .* has changed") as failed:
        run(spec)
    assert failed.value.reason == "data_changed"


def test_a_folder_of_checkpoints_that_cannot_be_written_is_refused_before_a_run(
    store: str, shapes: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    spec = RunSpec(**TINY, dataset=str(shapes), device="cpu")
    with pytest.raises(WrongUse, match=r"checkpoints: .* cannot be written"):
        run(spec, checkpoints=tmp_path / "file" / "c")
    assert MlflowClient().get_experiment_by_name("shapes") is None


def test_a_budget_ends_a_run_cleanly(store: str, shapes: Path) -> None:
    spec = RunSpec(**TINY, dataset=str(shapes), epochs=50, budget_s=0.01)
    found = MlflowClient().get_run(pepr_mlops.run(spec).run.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.tags["pepr.stopped"].startswith("budget_s=0.01 reached in epoch 1 of 50")
    (point,) = MlflowClient().get_metric_history(found.info.run_id, "test/brier")
    assert point.step == 1


@pytest.mark.slow
def test_x_rays_reach_the_expected_auc(store: str, pneumonia_root: Path) -> None:
    """A plain loop gave 0.96 with one seed."""
    spec = RunSpec(
        dataset="pneumonia",
        size=28,
        image_size=64,
        data_root=str(pneumonia_root),
        pretrained=False,
        precision="bf16",
        layout="channels_last",
    )
    outcome = pepr_mlops.run(spec)
    assert outcome.result.metrics["test/auc"] > 0.94


def test_a_server_that_is_away_is_reported_before_pytorch_is_imported() -> None:
    code = """
import sys
from pepr_mlops import RunSpec, run
from pepr_mlops.errors import WorkFailed
try:
    run(RunSpec(dataset="digits"), tracking_uri="http://127.0.0.1:9")
except WorkFailed as error:
    print(error.reason, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["tracking", "False"]
