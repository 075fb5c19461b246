"""`pepr profile`: from a run with weights to values of its use, and what is said of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient
from zeus.utils.testing import ReplayZeusMonitor

import pepr_mlops
from pepr_mlops import RunSpec, cli
from pepr_mlops.train.use import profile


def _pepr(*words: str) -> Result:
    found = CliRunner().invoke(cli.pepr, list(words))
    return found


@pytest.fixture
def trained(
    store: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """A run of 1 Wh whose profile has one call a window: 3.6 J for an image alone, and 57.6 J for
    32, which is 1 mWh and 0.5 mWh an image."""
    recording = tmp_path / "recorded.csv"
    windows = [("idle", 5.0), ("train", 3600.0), ("eval", 90.0)]
    windows += [("eval", joules) for _ in range(10) for joules in (3.6, 57.6)]
    rows = [f"{i}.0,{name},1.0,{joules}" for i, (name, joules) in enumerate(windows)]
    recording.write_text("\n".join(["start_time,window_name,elapsed_time,gpu0_energy", *rows, ""]))
    monitor = ReplayZeusMonitor(log_file=recording, ignore_sync_execution=True)
    monkeypatch.setattr(
        "pepr_mlops.costs.meters.find_sensors", lambda uuids, host: (monitor, ("gpu",), {})
    )
    for name in ("_LEAST_S", "_LEAST_TICKS", "_WARM_S", "_WARM_CALLS"):
        monkeypatch.setattr(profile, name, 0)
    settings: dict[str, Any] = {"image_size": 32, "epochs": 1, "pretrained": False}
    spec = RunSpec(model="test_resnet", dataset=str(shapes), device="cpu", **settings)
    return {"id": pepr_mlops.run(spec).run.run_id, "name": spec.experiment_name}


def test_a_run_gets_what_its_use_costs(trained: dict[str, Any]) -> None:
    run = trained["id"]
    found = _pepr("profile", run)
    assert found.exit_code == 0, found.output
    assert "One training of test_resnet = 2,000 images of use (1 Wh measured" in found.stdout
    data = MlflowClient().get_run(run).data
    assert data.metrics["inference/wh_per_image"] == pytest.approx(0.0005)
    assert data.metrics["inference/wh_per_image_b1"] == pytest.approx(0.001)
    assert data.metrics["inference/wh_per_image_cv"] == pytest.approx(0, abs=1e-9)
    assert data.metrics["inference/ms_p50"] <= data.metrics["inference/ms_p95"]
    tags = data.tags
    assert tags["pepr.inference_energy_source"] == "measured"
    assert tags["pepr.inference_precision"] == "fp32"
    assert tags["pepr.inference_hardware"] == tags["pepr.hardware"]

    other = _pepr("profile", run, "--batch", "16")
    assert other.exit_code == 2 or "--replace" in str(other.exception)
    again = _pepr(
        "profile", run, "--batch", "16", "--replace", "--format", "json", "--energy", "off"
    )
    (row,) = json.loads(again.stdout)
    assert row["batch"] == "16"
    runs = pepr_mlops.load_runs(trained["name"])
    assert runs["metrics.inference/wh_per_image"].isna().all()  # that of a batch of 32 is gone
    assert runs["metrics.inference/ms_p50"].notna().all()

    selected = _pepr("select", "--experiment", trained["name"], "--images-per-year", "1000")
    assert "was profiled" in str(selected.exception) or "profiled" in selected.output


def test_a_model_as_onnx_has_values_of_its_own(trained: dict[str, Any]) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    found = _pepr("profile", "--experiment", trained["name"], "--by", "performance", "--onnx")
    assert found.exit_code == 0, found.output
    data = MlflowClient().get_run(trained["id"]).data
    assert data.metrics["inference_onnx/wh_per_image"] == pytest.approx(0.0005)
    assert "inference/wh_per_image" not in data.metrics
    assert "inference_onnx/memory_gb" not in data.metrics
    assert "onnxruntime" in data.tags["pepr.inference_onnx_versions"]


def test_runs_are_named_in_one_way() -> None:
    for words in ((), ("abc", "--experiment", "derma")):
        found = _pepr("profile", *words)
        assert "of which runs?" in str(found.exception)
