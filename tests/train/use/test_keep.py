"""Weights that a training keeps: the right epoch, the right numbers, and nothing that is not so."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file

import pepr_mlops
from pepr_mlops import RunSpec, data
from pepr_mlops.errors import Paused, WrongUse
from pepr_mlops.files import digest_of
from pepr_mlops.tracking import read
from pepr_mlops.train import trainer
from pepr_mlops.train.job import Outcome
from pepr_mlops.train.progress import Silent
from pepr_mlops.train.use import weights_file
from pepr_mlops.train.use.model import open_folder


def _spec(**changed: Any) -> RunSpec:
    common = {"image_size": 32, "epochs": 1, "fraction": 0.2, "pretrained": False, "energy": "off"}
    spec = {"model": "test_resnet", "dataset": "digits", "device": "cpu", **common}
    return RunSpec(**{**spec, **changed})


def _train(**changed: Any) -> Outcome:
    return pepr_mlops.run(_spec(**changed), progress=Silent)


def _tags(run_id: str) -> dict[str, str]:
    return dict(MlflowClient().get_run(run_id).data.tags)


def _files(run_id: str) -> list[str]:
    return [Path(f.path).name for f in MlflowClient().list_artifacts(run_id, "model")]


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Plants the accuracy on validation of each epoch."""
    evaluate = trainer.Trainer.evaluate
    accuracies: list[float] = []

    def planting(self: Any, batches: Any, epoch: int, name: str) -> trainer.Evaluation:
        found = evaluate(self, batches, epoch, name)
        if name == "val":
            found.scores["accuracy"] = accuracies[epoch - 1]
        return found

    def plant(*values: float) -> None:
        accuracies[:] = values

    monkeypatch.setattr(trainer.Trainer, "evaluate", planting)
    return plant


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_a_loaded_model_predicts_what_its_run_logged(store: str, layout: str) -> None:
    run_id = _train(layout=layout).run.run_id
    model = pepr_mlops.load_model(run_id)
    images = data.load(data.identify(_spec())).test.images
    logged = read.load_predictions(read.load_runs("digits"))[run_id]
    assert not isinstance(logged, str)
    found = model.probabilities(images)
    np.testing.assert_allclose(found, logged.test.probabilities, rtol=1e-5, atol=1e-7)
    if layout == "contiguous":
        np.testing.assert_array_equal(found, logged.test.probabilities)
    assert logged.thresholds is None or model.weights.thresholds == tuple(logged.thresholds)


def test_the_best_weights_are_those_after_the_epoch_of_the_highest_validation(
    store: str, planted: Callable[..., None]
) -> None:
    planted(0.5, 0.9, 0.9)
    after_two = pepr_mlops.load_model(_train(epochs=2).run.run_id)
    run_id = _train(epochs=3, keep="both").run.run_id
    assert sorted(_files(run_id)) == ["best.safetensors", "last.safetensors", "model.json"]
    with pytest.warns(UserWarning, match=r"of epoch 2; P of run .* is of epoch 3"):
        best = pepr_mlops.load_model(run_id, which="best")
    assert (best.weights.epoch, best.weights.digest) == (2, after_two.weights.digest)
    assert pepr_mlops.load_model(run_id).weights.epoch == 3


def test_one_file_serves_where_the_last_epoch_is_the_best(
    store: str, planted: Callable[..., None]
) -> None:
    planted(0.5, 0.9)
    run_id = _train(epochs=2, keep="both").run.run_id
    assert sorted(_files(run_id)) == ["last.safetensors", "model.json"]
    best, last = (pepr_mlops.load_model(run_id, which=name) for name in ("best", "last"))  # type: ignore[arg-type]
    assert best.weights == last.weights


def test_a_resumed_training_still_has_the_best_weights(
    store: str, tmp_path: Path, planted: Callable[..., None]
) -> None:
    planted(0.9, 0.5, 0.4)
    spec, checkpoints = _spec(epochs=3, keep="best"), tmp_path / "checkpoints"
    with pytest.raises(Paused):
        pepr_mlops.run(spec, progress=Silent, checkpoints=checkpoints, until=2)
    (path,) = checkpoints.glob("*/best-1.safetensors")
    digest = digest_of(path)
    run_id = pepr_mlops.run(spec, progress=Silent, checkpoints=checkpoints).run.run_id
    assert sorted(_files(run_id)) == ["best.safetensors", "model.json"]
    with pytest.warns(UserWarning, match=r"of epoch 1; P of run .* is of epoch 3"):
        model = pepr_mlops.load_model(run_id)
    assert (model.weights.epoch, model.weights.digest) == (1, digest)
    assert not list(checkpoints.iterdir())


def test_best_weights_that_an_earlier_attempt_did_not_write_are_missing(
    store: str, tmp_path: Path, planted: Callable[..., None]
) -> None:
    planted(0.9, 0.5)
    checkpoints = tmp_path / "checkpoints"
    with pytest.raises(Paused):
        pepr_mlops.run(_spec(epochs=2), progress=Silent, checkpoints=checkpoints, until=1)
    spec = _spec(epochs=2, keep="both")
    run_id = pepr_mlops.run(spec, progress=Silent, checkpoints=checkpoints).run.run_id
    assert sorted(_files(run_id)) == ["last.safetensors", "model.json"]
    with pytest.raises(WrongUse, match=r"has no best weights .best: the attempt .* --keep both"):
        pepr_mlops.load_model(run_id, which="best")


@pytest.mark.parametrize("keep", ["last", "both"])
def test_a_full_disk_costs_only_the_weights(store: str, keep: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_200_000, hard))  # the weights have 1.5 MB
    try:
        run_id = _train(keep=keep).run.run_id
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    tags = _tags(run_id)
    assert MlflowClient().get_run(run_id).info.status == "FINISHED"
    assert "last: File too large" in tags["pepr.model_missing"]
    assert "pepr.model" not in tags
    assert _files(run_id) == []
    with pytest.raises(WrongUse, match=r"File too large.*train it again: `pepr train"):
        pepr_mlops.load_model(run_id)


def test_none_keeps_none(store: str) -> None:
    run_id = _train(keep="none").run.run_id
    assert _files(run_id) == []
    assert not {"pepr.model", "pepr.model_missing"} & _tags(run_id).keys()
    with pytest.raises(WrongUse, match="kept no weights; train it again"):
        pepr_mlops.load_model(run_id)


def test_files_that_do_not_belong_together_are_refused(store: str, tmp_path: Path) -> None:
    run_id = _train(precision="auto").run.run_id
    place = Path(MlflowClient().get_run(run_id).info.artifact_uri) / "model"
    described = json.loads((place / "model.json").read_text())
    assert described["precision"] == _tags(run_id)["pepr.precision"]

    def copy(name: str, **changed: Any) -> Path:
        folder = Path(shutil.copytree(place, tmp_path / name))
        (folder / "model.json").write_text(json.dumps({**described, **changed}))
        return folder

    assert open_folder(copy("same")).description.classes == tuple("0123456789")
    with pytest.raises(WrongUse, match="has version 2, and this pepr_mlops reads 1"):
        open_folder(copy("later", version=2))
    fewer = described["classes"][:9]
    weights = {"last": {**described["weights"]["last"], "thresholds": None}}
    with pytest.raises(WrongUse, match="does not fit test_resnet with 9 classes"):
        open_folder(copy("classes", classes=fewer, weights=weights))
    damaged = copy("damaged")
    content = bytearray((damaged / "last.safetensors").read_bytes())
    content[-1] ^= 1
    (damaged / "last.safetensors").write_bytes(content)
    with pytest.raises(WrongUse, match="it was changed or damaged"):
        open_folder(damaged)
    swapped = {**described, "classes": described["classes"][::-1]}
    (place / "model.json").write_text(json.dumps(swapped))
    with pytest.raises(WrongUse, match="is not the file that run"):
        pepr_mlops.load_model(run_id)


def test_the_library_reads_the_weights_as_they_were_written(tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    filters = torch.randn(4, 3, 5, 5, generator=rng)
    state = {
        "filters": filters.to(memory_format=torch.channels_last),
        "count": torch.tensor(7),
        "half": torch.randn(3, generator=rng).bfloat16(),
        "mask": torch.tensor([True, False, True]),
        "empty": torch.zeros(0, 2),
    }
    path = tmp_path / "weights.safetensors"
    written = weights_file.write(state, path)
    assert (written.digest, written.bytes) == (digest_of(path), path.stat().st_size)
    found = load_file(path)
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
