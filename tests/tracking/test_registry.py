"""Models in MLflow's registry: registered with what they are, found by name, version and alias."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import frame, run

from pepr_mlops import RunSpec, load_model
from pepr_mlops import run as train
from pepr_mlops.cli import pepr
from pepr_mlops.comparison import Question, compare
from pepr_mlops.errors import WrongUse
from pepr_mlops.files import digest_of
from pepr_mlops.tracking import registry
from pepr_mlops.tracking.read import registered
from pepr_mlops.train.use import load
from pepr_mlops.train.use.find import find
from pepr_mlops.train.use.model import Model

SPEC = RunSpec(
    model="test_resnet", dataset="digits", image_size=32, pretrained=False, epochs=1, batch_size=64
)


def _pepr(*words: str) -> None:
    pepr.main(list(words), standalone_mode=False)


def _exported(uri: str, run_id: str, *words: str) -> None:
    _pepr("export", run_id, "--tracking-uri", uri, "--to", "mlflow", *words)


def test_a_registered_model_is_loaded_by_name_version_and_alias(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    run_id = train(SPEC, tracking_uri=store).run.run_id
    _exported(store, run_id, "--register", "numbers", "--alias", "best-so-far")
    assert "version 1 of numbers; load it as models:/numbers@best-so-far" in capsys.readouterr().out
    client = MlflowClient(store)
    version = client.get_model_version("numbers", "1")
    logged = client.get_run(run_id).data
    tags = {k.removeprefix("pepr.registered."): v for k, v in version.tags.items()}
    assert version.run_id == tags["run_id"] == run_id
    (described,) = (tmp_path / "mlruns").rglob("extra_files/model.json")
    assert tags["digest"] == digest_of(described)
    number, metric = tags["performance"].split()
    assert metric == logged.tags["pepr.performance"]
    assert float(number) == pytest.approx(logged.metrics["performance"], rel=1e-5)
    number, unit = tags["cost"].split()
    assert (float(number), unit) == (
        pytest.approx(logged.metrics["energy/train_wh"], rel=1e-5),
        "Wh",
    )
    assert tags["cost_source"] == logged.tags["pepr.energy_source"]
    assert tags["score"] == f"{float(tags['performance'].split()[0]):.6g} PePR-E"  # R is 0 alone
    assert tags["comparison_set"].startswith("digits ")

    x = np.random.default_rng(0).integers(0, 256, (3, 20, 31), np.uint8)
    expected = load_model(run_id, tracking_uri=store).probabilities(x)
    for name in ("numbers", "models:/numbers/1", "models:/numbers@best-so-far"):
        np.testing.assert_array_equal(
            load_model(name, tracking_uri=store).probabilities(x), expected
        )
        np.testing.assert_array_equal(find(name, tracking_uri=store).of_batch(x), expected)
    for name, message in (
        ("number", "no registered model 'number'; did you mean 'numbers'"),
        ("models:/numbers/9", "no registered model 'models:/numbers/9'"),
        ("models:/numbers@old", "numbers has no alias 'old'; it has: best-so-far"),
        ("models:/numbers/x", "is not NAME, models:/NAME/VERSION or models:/NAME@ALIAS"),
    ):
        with pytest.raises(WrongUse, match=message):
            load_model(name, tracking_uri=store)
    with pytest.raises(
        WrongUse, match="the best ones of test_resnet were not kept; there are: last"
    ):
        load_model("numbers", which="best", tracking_uri=store)
    _champion_else_latest(client, store, version)
    described.write_text(described.read_text().replace("test_resnet", "other"))
    with pytest.raises(
        WrongUse, match="is not the file that was registered as version 1 of numbers"
    ):
        load_model("numbers", tracking_uri=store)


def test_weights_of_another_epoch_than_p_have_no_score(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    run_id = train(SPEC, tracking_uri=store).run.run_id
    of_run = load.of_run

    def of_epoch_1_of_2(*given: Any, **options: Any) -> Model:
        model = of_run(*given, **options)
        return replace(model, description=replace(model.description, epochs=2))

    monkeypatch.setattr(load, "of_run", of_epoch_1_of_2)
    monkeypatch.chdir(tmp_path)
    _exported(store, run_id, "--register", "earlier")
    assert "these weights are of epoch 1, and P of the run is of epoch 2" in capsys.readouterr().err
    tags = MlflowClient(store).get_model_version("earlier", "1").tags
    assert {tag for tag in tags if tag.startswith("pepr.")} == {
        *("pepr.registered.run_id", "pepr.registered.digest"),
    }


def test_a_model_is_downloaded_from_a_server_and_again_where_it_is_damaged(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEPR_MODELS", str(tmp_path / "models"))
    run_id = train(SPEC, tracking_uri=server).run.run_id
    _exported(server, run_id, "--register", "remote", "--out", str(tmp_path / "model"))
    x = np.random.default_rng(0).integers(0, 256, (3, 20, 31), np.uint8)
    expected = load_model(run_id, tracking_uri=server).probabilities(x)
    for damaged in ("model.json", "last.safetensors", None):
        found = load_model("remote", tracking_uri=server)
        np.testing.assert_array_equal(found.probabilities(x), expected)
        (folder,) = (tmp_path / "models" / "registered").iterdir()
        assert sorted(p.name for p in folder.iterdir()) == ["last.safetensors", "model.json"]
        if damaged is not None:
            (folder / damaged).write_text("{}")


def _champion_else_latest(client: Any, uri: str, first: Any) -> None:
    client.create_model_version("numbers", first.source, first.run_id, tags=first.tags)
    assert registered.fetch("numbers", tracking_uri=uri).version == "2"
    client.set_registered_model_alias("numbers", "champion", "1")
    assert registered.fetch("numbers", tracking_uri=uri).version == "1"
    client.create_model_version("numbers", first.source, first.run_id)
    with pytest.raises(WrongUse, match="version 3 of numbers was not registered by `pepr export`"):
        registered.fetch("models:/numbers/3", tracking_uri=uri)


@pytest.mark.parametrize("name", ["best", "0" * 32, "a/b", "a:b", "a@b", " "])
def test_a_name_that_means_something_else_is_refused(name: str) -> None:
    with pytest.raises(WrongUse, match=r"register: .* cannot name a model"):
        registry.check_names(name, None)


@pytest.mark.parametrize("alias", ["latest", "v2", "a b", ""])
def test_an_alias_that_mlflow_refuses_is_refused_before_the_export(alias: str) -> None:
    registry.check_names("derma", "champion")
    with pytest.raises(WrongUse, match=r"alias: .* is not letters, digits, _ and -"):
        registry.check_names("derma", alias)


def test_only_mlflow_models_are_registered() -> None:
    with pytest.raises(WrongUse, match="registry takes MLflow models; give --to mlflow"):
        _pepr("export", "best", "--to", "onnx", "--register", "derma")
    with pytest.raises(WrongUse, match="alias: there is no version"):
        _pepr("export", "best", "--to", "mlflow", "--alias", "champion")


def test_the_tags_of_a_version_are_the_means_of_its_model() -> None:
    """P 0.8 and 0.9 of two seeds; the cheaper of two models has R 0, so its score is its P."""
    runs = [run("a", seed, performance=p, energy_wh=10) for seed, p in ((0, 0.8), (1, 0.9))]
    comparison = compare(frame([*runs, run("b", performance=0.9, energy_wh=30)]), Question(draws=0))
    tags = registry.standing(comparison, "run1")
    found = {k.removeprefix("pepr.registered."): v for k, v in tags.items()}
    assert found["performance"].split()[0] == "0.85"
    assert (found["score"], found["cost"], found["runs"]) == ("0.85 PePR-E", "10 Wh", "2")
    assert registry.standing(comparison, "another") == {}


@pytest.fixture
def served(store: str, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The run of a model, and the address of MLflow's own server of what was exported of it."""
    run_id = train(SPEC, tracking_uri=store).run.run_id
    _exported(store, run_id, "--out", str(tmp_path / "model"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["models", "serve", "--env-manager", "local", "-m", str(tmp_path / "model")]
    with (tmp_path / "served.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words, "--port", str(port)],
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield run_id, f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def test_mlflow_serves_what_was_exported(served: tuple[str, str], store: str) -> None:
    run_id, address = served
    image = np.random.default_rng(1).integers(0, 256, (1, 45, 60), np.uint8)
    body = json.dumps({"inputs": image.tolist()}).encode()
    request = urllib.request.Request(
        f"{address}/invocations", body, {"Content-Type": "application/json"}
    )
    for _ in range(240):
        with suppress(ConnectionError, urllib.error.URLError):  # it does not listen yet
            found = json.load(urllib.request.urlopen(request, timeout=60))["predictions"]
            break
        time.sleep(0.5)
    expected = load_model(run_id, tracking_uri=store).probabilities(image)
    np.testing.assert_allclose(found, expected, atol=1e-4)
