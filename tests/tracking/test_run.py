"""What MLflow has of a run afterwards, read with MLflow's own client."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from made import PREDICTIONS
from mlflow import MlflowClient

from pepr_mlops import data, tracking
from pepr_mlops.errors import Claimed, Paused, WorkFailed, WrongUse
from pepr_mlops.process import is_alive, this_process
from pepr_mlops.spec import RunSpec
from pepr_mlops.tracking import journal, server


def _get(run: tracking.Run) -> mlflow.entities.Run:
    return MlflowClient().get_run(run.run_id)


def test_a_run_is_complete_and_finished(store: str) -> None:
    splits = data.load(RunSpec(dataset="digits"))
    with tracking.start(None, "digits", "resnet18d 0") as run:
        run.params({"lr": "0.0005"})
        run.tag({"pepr.experiment": "digits"})
        run.data(splits)
        run.log({"test/accuracy": 0.5, "energy/train_wh": 1.0}, 1)
        run.log({"test/accuracy": 0.75, "energy/train_wh": 2.0}, 2)
        run.spec({"model": "resnet18d", "weights": None})
        run.predictions(PREDICTIONS)
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
        assert stored["probabilities"].tolist() == PREDICTIONS.test.probabilities.tolist()


def test_artifacts_are_next_to_a_database_that_is_named_by_its_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, elsewhere = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    with tracking.start("../skin lesions", "e", "n", uri) as run:
        run.spec({"model": "resnet18d"})
    (found,) = (path.relative_to(tmp_path / "mlruns") for path in tmp_path.rglob("spec.json"))
    assert re.fullmatch("_skin_lesions-[0-9a-f]{8}", found.parts[0])
    assert found.parts[1:] == (run.run_id, "artifacts", "spec.json")
    assert list(elsewhere.iterdir()) == []
    there = MlflowClient(uri).download_artifacts(run.run_id, "spec.json", str(elsewhere))
    assert json.loads(Path(there).read_text()) == {"model": "resnet18d"}
    with tracking.start("e", "e", "n", "sqlite:///relative.db") as run:  # relative: as MLflow does
        run.spec({"model": "resnet18d"})
    assert list((elsewhere / "mlruns").rglob("spec.json"))


def test_several_jobs_may_open_a_fresh_store_at_once(tmp_path: Path) -> None:
    """MLflow itself lets all but one crash, since each makes the tables."""
    fork = multiprocessing.get_context("fork")  # MLflow need not be imported again
    ready, done = fork.Barrier(3), fork.Queue()

    def opens() -> None:
        ready.wait()
        done.put(server.connect(f"sqlite:///{tmp_path}/new.db").get_experiment("0").name)

    processes = [fork.Process(target=opens) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 3
    assert [done.get() for _ in processes] == ["Default"] * 3


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
def test_the_status_is_that_of_the_failure(
    store: str, error: BaseException, status: str, reason: str
) -> None:
    begun = []
    with pytest.raises(type(error)):
        _start_and_raise(begun, error)
    found = _get(begun[0])
    assert found.info.status == status
    assert found.data.tags["pepr.reason"] == reason
    assert found.data.metrics == {"test/accuracy": 0.5}


def test_a_signal_while_the_run_is_made_finds_it_made(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = MlflowClient.create_run

    def interrupted(*given: Any, **named: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return create(*given, **named)

    monkeypatch.setattr(MlflowClient, "create_run", interrupted)
    with pytest.raises(KeyboardInterrupt), tracking.start("e", "e", "n"):
        pytest.fail("the run continued")
    client = MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("e").experiment_id])
    assert (run.info.status, run.data.tags["pepr.reason"]) == ("KILLED", "killed")
    assert not list(journal.home().iterdir())


def test_an_inherited_run_has_its_parameters_as_typed(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        name: str = MlflowClient(run.uri).get_experiment(run.experiment_id).name
        return name

    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    assert logged_to(None, "derma", "n") == "mine"
    assert logged_to("requested", "derma", "n") == "requested"
    assert logged_to(None, "derma", "n", store) == "derma"  # the variables are of another server
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    assert logged_to(None, "derma", "n") == "Default"


@pytest.mark.parametrize("phase", ["train", "trial"])
def test_a_run_that_was_measured_before_is_not_mixed_with_another(
    store: str, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    with tracking.start(None, "e", "n") as run:
        run.log({f"time/{phase}_s": 3.0, f"energy/{phase}_wh": 30.0}, 1)
    monkeypatch.setenv("MLFLOW_RUN_ID", run.run_id)
    with (
        pytest.raises(WorkFailed, match="has measurements already"),
        tracking.start(None, "e", "n"),
    ):
        pass
    assert _get(run).info.status == "FINISHED"


def test_a_failure_is_reported_even_when_the_server_is_gone(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*given: object) -> None:
        raise ConnectionError("no server")

    monkeypatch.setattr(MlflowClient, "log_batch", gone)
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
    assert tracking.address_of(run) == f"mlflow ui --backend-store-uri sqlite:///{other}/runs.db"


def test_a_server_over_http(store: str, server: str) -> None:
    with tracking.start(None, "over http", "n", server) as run:
        run.log({"test/accuracy": 0.25}, 1)
        run.spec({"model": "x"})
    client = MlflowClient(server)
    found = client.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.metrics == {"test/accuracy": 0.25}
    assert [f.path for f in client.list_artifacts(run.run_id)] == ["spec.json"]
    assert tracking.address_of(run).startswith(f"{server}/#/experiments/")


def test_reaching_a_new_store_makes_it(tmp_path: Path) -> None:
    tracking.reach(f"sqlite:///{tmp_path}/new.db")
    with sqlite3.connect(tmp_path / "new.db") as store:
        assert store.execute("SELECT name FROM experiments").fetchall() == [("Default",)]


def test_a_store_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WorkFailed, match="refused or did not answer"):
        tracking.reach(f"sqlite:///{tmp_path}/file/new.db")


def test_a_server_that_is_down_is_reported_in_seconds(store: str) -> None:
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


@pytest.mark.parametrize(
    "uri", ["postgresql://u:p@127.0.0.1:9/db", "mysql+pymysql://127.0.0.1:9/db"]
)
def test_a_database_that_is_down_is_reported_in_seconds(store: str, uri: str) -> None:
    started = time.monotonic()
    with pytest.raises(WorkFailed, match="Connection refused"):
        tracking.reach(uri)
    assert time.monotonic() - started < 30  # MLflow tries for minutes


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


# Jobs that several processes request -----------------------------------------------------------


def _job(**changed: Any) -> tracking.Attempt:
    return tracking.Attempt("0123456789abcdef", exclusive=True, **changed)


def _attempt(done: list[str], claimed: list[str], i: int) -> None:
    try:
        with tracking.start("e", "e", f"run {i}", job=_job()) as run:
            run.log({"test/accuracy": 0.5}, 1)
            done.append(run.run_id)
    except Claimed as error:
        claimed.append(str(error))


def test_of_several_processes_that_request_a_job_one_does_it(store: str) -> None:
    done: list[str] = []
    claimed: list[str] = []
    threads = [threading.Thread(target=_attempt, args=(done, claimed, i)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 1
    assert len(claimed) == 4
    _attempt(done, claimed, 9)  # it is done
    assert len(done) == 1
    client = MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("e").experiment_id])
    assert (run.info.run_id, run.info.status) == (done[0], "FINISHED")
    assert run.data.tags["pepr.spec"] == "0123456789abcdef"
    assert run.data.tags["pepr.claim"] == "held"
    assert is_alive(run.data.tags["pepr.process"])
    assert abs(int(run.data.tags["pepr.heartbeat"]) / 1000 - time.time()) < 60


def _start_log_and_raise(begun: list[str], error: BaseException) -> None:
    with tracking.start("e", "e", "n", job=_job()) as run:
        begun.append(run.run_id)
        run.log({"time/train_s": 2.0}, 1)
        raise error


def _interrupted(error: BaseException) -> str:
    begun: list[str] = []
    with pytest.raises(type(error)):
        _start_log_and_raise(begun, error)
    return begun[0]


def test_a_continued_run_is_the_same_one(store: str) -> None:
    run_id = _interrupted(WorkFailed("no connection", reason="tracking"))
    MlflowClient().set_tag(run_id, "pepr.keep_top", "--keep-top 1 --by cost")  # of another sweep
    with tracking.start("e", "e", "n", job=_job(continues=run_id)) as run:
        assert (run.run_id, run.attempt) == (run_id, 2)
        assert run.earlier["pepr.reason"] == "tracking"
        assert run.has("time/train_s", 1)
        assert not run.has("time/train_s", 2)
        found = _get(run)
        assert found.info.status == "RUNNING"
        assert not {"pepr.reason", "pepr.keep_top"} & set(found.data.tags)
    found = _get(run)
    assert found.info.status == "FINISHED"
    assert found.data.tags["pepr.attempts"] == "2"


def test_a_continued_run_is_never_running_under_its_former_process(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep that read it just then would close it."""
    run_id = _interrupted(WorkFailed("no connection", reason="tracking"))
    MlflowClient().set_tag(run_id, "pepr.process", "machine/boot/1 7 1")
    seen: list[tuple[str, str, str]] = []
    update = MlflowClient.update_run

    def observed(self: MlflowClient, *given: Any, **named: Any) -> None:
        update(self, *given, **named)
        found = self.get_run(run_id)
        tags = found.data.tags
        seen.append((found.info.status, tags["pepr.process"], tags["pepr.attempts"]))

    monkeypatch.setattr(MlflowClient, "update_run", observed)
    with tracking.start("e", "e", "n", job=_job(continues=run_id)) as run:
        assert _get(run).data.tags["pepr.attempts"] == "2"
    assert seen[0] == ("RUNNING", this_process(), "1")


def test_a_paused_run_is_killed_with_that_reason(store: str) -> None:
    client = MlflowClient()
    found = client.get_run(_interrupted(Paused("paused after epoch 1")))
    assert found.info.status == "KILLED"
    assert found.data.tags["pepr.reason"] == "paused"


def test_of_several_processes_that_continue_a_run_one_does(store: str) -> None:
    run_id = _interrupted(KeyboardInterrupt())
    attempts: list[int] = []
    claimed: list[str] = []
    ready = threading.Barrier(4)

    def continue_run() -> None:
        ready.wait()
        try:
            with tracking.start("e", "e", "n", job=_job(continues=run_id)) as run:
                attempts.append(run.attempt)
                time.sleep(1)
        except Claimed as error:
            claimed.append(str(error))

    threads = [threading.Thread(target=continue_run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert attempts == [2]
    assert len(claimed) == 3
    assert MlflowClient().get_run(run_id).info.status == "FINISHED"


def test_a_run_that_ended_before_its_process_did_is_not_lost(store: str) -> None:
    """A sweep has read it as RUNNING, and only then found its process gone."""
    with tracking.start("e", "e", "n", job=_job()) as run:
        run.log({"test/accuracy": 0.5}, 1)
    tracking.close_lost([run.run_id])
    found = MlflowClient().get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert "pepr.reason" not in found.data.tags


def _log_until_taken(begun: list[tracking.Run]) -> None:
    with tracking.start("e", "e", "n", job=_job()) as run:
        begun.append(run)
        tracking.close_lost([run.run_id])
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            run.log({"test/accuracy": 0.5}, 1)
            time.sleep(0.05)


def test_a_process_taken_for_lost_logs_nothing_more_once_another_continues(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pepr_mlops.tracking.ownership.HEARTBEAT_S", 0.05)

    def taken_over(run_ids: list[str]) -> None:
        MlflowClient().set_tag(run_ids[0], "pepr.process", "another")

    monkeypatch.setattr(tracking, "close_lost", taken_over)
    begun: list[tracking.Run] = []
    with pytest.raises(Claimed):
        _log_until_taken(begun)
    assert _get(begun[0]).info.status == "RUNNING"  # it is the other's to end


@pytest.mark.parametrize("error", [None, KeyboardInterrupt()])
def test_a_process_taken_for_lost_does_not_end_the_run_of_another(
    store: str, monkeypatch: pytest.MonkeyPatch, error: BaseException | None
) -> None:
    monkeypatch.setattr("pepr_mlops.tracking.ownership.HEARTBEAT_S", 0.05)
    begun: list[tracking.Run] = []

    def work() -> None:
        with tracking.start("e", "e", "n", job=_job()) as run:
            begun.append(run)
            MlflowClient().set_tag(run.run_id, "pepr.process", "another")
            deadline = time.monotonic() + 30
            while (
                run.heartbeat is not None
                and not run.heartbeat.taken
                and time.monotonic() < deadline
            ):
                time.sleep(0.05)
            if error is not None:
                raise error

    with pytest.raises(Claimed if error is None else KeyboardInterrupt):
        work()
    found = _get(begun[0])
    assert found.info.status == "RUNNING"
    assert "pepr.reason" not in found.data.tags


def test_a_process_taken_for_lost_logs_nothing_more(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pepr_mlops.tracking.ownership.HEARTBEAT_S", 0.05)
    begun: list[tracking.Run] = []
    with pytest.raises(Claimed, match="closed by another"):
        _log_until_taken(begun)
    found = _get(begun[0])
    assert found.info.status == "FAILED"
    assert found.data.tags["pepr.reason"] == "lost"
