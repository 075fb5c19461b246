"""What MLflow holds afterwards, read back with MLflow's own client."""

from __future__ import annotations

import os
import time
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from pepr_mlops import data, tracking
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.schema import RunSpec
from pepr_mlops.server import without_password


def _get(run: tracking.Run) -> mlflow.entities.Run:
    return MlflowClient().get_run(run.run_id)


def test_a_run_is_whole_and_finished(store: str) -> None:
    splits = data.load(RunSpec(dataset="digits"))
    with tracking.start(None, "digits", "resnet18d 0") as run:
        run.params({"lr": "0.0005"})
        run.tag({"pepr.experiment": "digits"})
        run.data(splits)
        run.log({"test/accuracy": 0.5, "energy/train_wh": 1.0}, 1)
        run.log({"test/accuracy": 0.75, "energy/train_wh": 2.0}, 2)
        run.spec({"model": "resnet18d", "weights": None})
        run.predictions(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]), ("a", "b"))
    found = _get(run)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "resnet18d 0"
    assert found.data.params == {"lr": "0.0005"}
    assert found.data.metrics == {"test/accuracy": 0.75, "energy/train_wh": 2.0}
    history = MlflowClient().get_metric_history(run.run_id, "energy/train_wh")
    assert [(m.step, m.value) for m in history] == [(1, 1.0), (2, 2.0)]
    inputs = found.inputs.dataset_inputs
    assert {i.tags[0].value: i.dataset.digest for i in inputs} == {
        "train": splits.train.digest(),
        "val": splits.val.digest(),
        "test": splits.test.digest(),
    }
    name = MlflowClient().get_experiment(run.experiment_id).name
    assert name == "digits"
    path = mlflow.artifacts.download_artifacts(run_id=run.run_id, artifact_path="predictions.npz")
    with np.load(path) as stored:
        assert stored["classes"].tolist() == ["a", "b"]
        assert stored["probabilities"].shape == (2, 2)


def _start_and_raise(begun: list[tracking.Run], error: BaseException) -> None:
    with tracking.start("e", "e", "n") as run:
        begun.append(run)
        run.log({"test/accuracy": 0.5}, 1)
        raise error


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (WorkFailed("no memory", reason="out_of_memory"), "FAILED", "out_of_memory"),
        (WrongUse("no such file"), "FAILED", "wrong_use"),
        (ZeroDivisionError("oops"), "FAILED", "crashed"),
        (KeyboardInterrupt(), "KILLED", "killed"),
        (SystemExit(143), "KILLED", "killed"),
    ],
)
def test_the_status_is_the_truth(
    store: str, error: BaseException, status: str, reason: str
) -> None:
    begun = []
    with pytest.raises(type(error)):
        _start_and_raise(begun, error)
    found = _get(begun[0])
    assert found.info.status == status
    assert found.data.tags["pepr.reason"] == reason
    assert found.data.metrics == {"test/accuracy": 0.5}


def test_an_inherited_run_keeps_what_was_typed(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = MlflowClient()
    begun = client.create_run("0")
    client.log_param(begun.info.run_id, "lr", "5e-4")
    monkeypatch.setenv("MLFLOW_RUN_ID", begun.info.run_id)
    with tracking.start("ignored", "ignored", "ignored") as run:
        run.params({"lr": "0.0005", "epochs": "10"})
    assert run.run_id == begun.info.run_id
    assert _get(run).data.params == {"lr": "5e-4", "epochs": "10"}
    assert _get(run).info.experiment_id == "0"


def test_mlflows_own_variables_name_the_experiment(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def logged_to(*target: str | None) -> str:
        with tracking.start(*target) as run:  # type: ignore[arg-type]
            pass
        name: str = run.client.get_experiment(run.experiment_id).name
        return name

    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    assert logged_to(None, "derma", "n") == "mine"
    assert logged_to("asked for", "derma", "n") == "asked for"
    assert logged_to(None, "derma", "n", store) == "derma"  # the variables are of another server
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    assert logged_to(None, "derma", "n") == "Default"


def test_a_run_that_was_measured_before_is_not_mixed_with_another(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tracking.start(None, "e", "n") as run:
        run.log({"time/train_s": 3.0, "energy/train_wh": 30.0}, 1)
    monkeypatch.setenv("MLFLOW_RUN_ID", run.run_id)
    with (
        pytest.raises(WorkFailed, match="has measurements already"),
        tracking.start(None, "e", "n"),
    ):
        pass
    assert _get(run).info.status == "FINISHED"


def test_a_failure_is_told_even_when_the_server_is_gone(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(self: tracking.Run, tags: object) -> None:
        raise WorkFailed("tracking: no server")

    monkeypatch.setattr(tracking.Run, "tag", gone)
    with pytest.raises(WorkFailed, match="no memory"), tracking.start(None, "e", "n"):
        raise WorkFailed("no memory")


def test_a_deleted_experiment_is_an_error_with_a_remedy(store: str) -> None:
    client = MlflowClient()
    client.delete_experiment(client.create_experiment("gone"))
    with pytest.raises(WorkFailed, match="'gone' is deleted"), tracking.start(None, "gone", "n"):
        pass


def test_a_file_of_another_path(store: str, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    with tracking.start("e", "e", "n", f"sqlite:///{other}/runs.db") as run:
        run.log({"test/accuracy": 1.0}, 1)
    assert MlflowClient(f"sqlite:///{other}/runs.db").get_run(run.run_id).info.status == "FINISHED"
    assert tracking.where(run) == f"mlflow ui --backend-store-uri sqlite:///{other}/runs.db"


def test_a_server_over_http(store: str, server: str) -> None:
    with tracking.start(None, "over http", "n", server) as run:
        run.log({"test/accuracy": 0.25}, 1)
        run.spec({"model": "x"})
    client = MlflowClient(server)
    found = client.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.metrics == {"test/accuracy": 0.25}
    assert [f.path for f in client.list_artifacts(run.run_id)] == ["spec.json"]
    assert tracking.where(run).startswith(f"{server}/#/experiments/")


def test_a_server_that_is_down_is_told_in_seconds(store: str) -> None:
    started = time.monotonic()
    with (
        pytest.raises(
            WorkFailed, match=r"tracking: http://127\.0\.0\.1:9 refused or did not answer"
        ),
        tracking.start("e", "e", "n", "http://user:secret@127.0.0.1:9"),
    ):
        pass
    assert time.monotonic() - started < 30  # MLflow's own patience is four minutes
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


def test_passwords_are_not_shown() -> None:
    assert without_password("http://user:secret@host:5000/x") == "http://host:5000/x"
    assert without_password("postgresql://u:p@db/mlflow") == "postgresql://db/mlflow"
    assert without_password("sqlite:///mlflow.db") == "sqlite:///mlflow.db"


def test_the_active_run_is_left_for_its_owner(store: str) -> None:
    with mlflow.start_run() as owner:
        with tracking.active("e", "n") as run:
            run.log({"performance": 0.5}, 1)
        assert run.run_id == owner.info.run_id
        assert MlflowClient().get_run(run.run_id).info.status == "RUNNING"
    assert MlflowClient().get_run(run.run_id).info.status == "FINISHED"


def test_a_new_run_is_active_meanwhile(store: str) -> None:
    with tracking.active("own loop", "unet") as run:
        mlflow.log_metric("mine", 1.0)
    assert mlflow.active_run() is None
    assert _get(run).data.metrics == {"mine": 1.0}
    assert _get(run).info.status == "FINISHED"
    with pytest.raises(ValueError, match="broken"), tracking.active("own loop", "unet") as failed:
        raise ValueError("broken")
    assert _get(failed).info.status == "FAILED"
    assert mlflow.active_run() is None
