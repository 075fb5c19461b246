"""A server that goes away, is slow, in error or loses its answers, while a run logs to it."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.exceptions
import mlflow
import numpy as np
import pytest
import requests
from made import PREDICTIONS
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE
from proxy import Proxy

from pepr_mlops import tracking
from pepr_mlops.data import Splits
from pepr_mlops.data.splits import Split
from pepr_mlops.errors import Claimed, WorkFailed
from pepr_mlops.tracking import journal, outbox


@pytest.fixture
def proxy(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setattr(outbox, "_PAUSES_S", (0.1,))
    monkeypatch.setattr(outbox, "_WAIT_S", 0.5)
    between = Proxy(server)
    yield between
    between.close()


def _points(server: str, run_id: str) -> list[tuple[int, float]]:
    history = MlflowClient(server).get_metric_history(run_id, "test/accuracy")
    return [(point.step, point.value) for point in history]


def _status(server: str, run_id: str) -> str:
    return str(MlflowClient(server).get_run(run_id).info.status)


def _back(proxy: Proxy, fault: str) -> None:
    if fault == "down":
        proxy.up()
    proxy.mode = "pass"


@pytest.mark.parametrize("fault", ["down", "error", "slow", "lose"])
def test_a_server_that_fails_meanwhile_has_everything_in_the_end(
    store: str, server: str, proxy: Proxy, fault: str
) -> None:
    notes: list[str] = []
    with tracking.start("faults", "faults", fault, proxy.address, note=notes.append) as run:
        run.log({"test/accuracy": 0.1}, 1)
        if fault == "down":
            proxy.down()
        else:
            proxy.mode = fault
        began = time.monotonic()
        for epoch in (2, 3, 4):
            run.log({"test/accuracy": epoch / 10}, epoch)
        assert time.monotonic() - began < 10  # training continues
        if fault != "slow":
            time.sleep(0.5)
            assert "does not answer" in notes[0]
        _back(proxy, fault)
        run.log({"test/accuracy": 0.5}, 5)
    assert _status(server, run.run_id) == "FINISHED"
    assert _points(server, run.run_id) == [(i, i / 10) for i in range(1, 6)]
    assert not list(journal.home().iterdir())
    assert notes[1:] == ([] if fault == "slow" else [f"tracking: {proxy.address} answers again"])


def test_what_a_server_that_stays_away_lacks_is_sent_by_the_next_start(
    store: str, server: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pepr_mlops.tracking.run._PATIENCE_S", 0.2)
    notes: list[str] = []
    with tracking.start("faults", "faults", "away", proxy.address, note=notes.append) as run:
        proxy.down()
        run.log({"test/accuracy": 0.1}, 1)
        run.tag({"a": "b"})
    assert "`pepr sync` sends them" in notes[-1]
    assert _status(server, run.run_id) == "RUNNING"
    proxy.up()
    with tracking.start("faults", "faults", "next", proxy.address, note=notes.append):
        pass
    found = MlflowClient(server).get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert (found.data.metrics, found.data.tags["a"]) == ({"test/accuracy": 0.1}, "b")
    assert found.info.end_time < time.time() * 1000
    assert not list(journal.home().iterdir())


def test_a_server_that_hangs_does_not_hold_up_the_training(
    store: str, server: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pepr_mlops.tracking.run._PATIENCE_S", 0.2)
    notes: list[str] = []
    began = time.monotonic()
    with tracking.start("faults", "faults", "hangs", proxy.address, note=notes.append) as run:
        proxy.mode = "hang"
        for epoch in range(1, 5):
            run.log({"test/accuracy": epoch / 10}, epoch)
    assert time.monotonic() - began < 20
    proxy.mode = "pass"
    (left,) = tracking.sync()
    assert (left.run_id, left.entries, left.status) == (run.run_id, 5, "FINISHED")
    assert _points(server, run.run_id) == [(i, i / 10) for i in range(1, 5)]


def test_a_lost_answer_to_the_begin_leaves_no_second_run(
    store: str, server: str, proxy: Proxy
) -> None:
    def lose_one(path: str) -> None:
        proxy.mode = "pass"
        if path.endswith("runs/create"):
            proxy.mode = "lose"
            proxy.on_request = once

    def once(path: str) -> None:
        proxy.mode = "pass"

    proxy.on_request = lose_one
    with tracking.start("twins", "twins", "n", proxy.address) as run:
        pass
    assert [p for p in proxy.paths if p.endswith("runs/create")] != []
    client = MlflowClient(server)
    runs = client.search_runs([run.experiment_id])
    assert [(r.info.run_id, r.info.status) for r in runs] == [(run.run_id, "FINISHED")]
    assert proxy.paths.count("/api/2.0/mlflow/runs/create") == 2


def test_what_the_server_refuses_ends_the_run_with_the_reason(store: str, server: str) -> None:
    begun: list[tracking.Run] = []

    def work() -> None:
        with tracking.start("faults", "faults", "refused", server) as run:
            begun.append(run)
            run.log({"test/accuracy": 0.5}, 1)
            run.log({"a;b\n": 0.5}, 1)

    with pytest.raises(WorkFailed, match="Names may only contain"):
        work()
    (run,) = begun
    found = MlflowClient(server).get_run(run.run_id)
    assert (found.info.status, found.data.tags["pepr.reason"]) == ("FAILED", "tracking")
    assert found.data.metrics == {"test/accuracy": 0.5}
    assert not list(journal.home().iterdir())


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is known only after it was logged."""
    send = outbox.send

    def slow(*given: Any) -> None:
        time.sleep(0.2)
        send(*given)

    monkeypatch.setattr(outbox, "_WAIT_S", 0.0)
    monkeypatch.setattr(outbox, "send", slow)


@pytest.mark.parametrize("fails", [False, True])
def test_a_late_refusal_fails_the_run(store: str, late: None, fails: bool) -> None:
    begun: list[tracking.Run] = []

    def work() -> None:
        with tracking.start("e", "e", "n") as run:
            begun.append(run)
            run.log({"a;b\n": 0.5}, 1)
            if fails:
                time.sleep(0.5)
                raise WorkFailed("no memory", reason="out_of_memory")

    with pytest.raises(WorkFailed, match="no memory" if fails else "Names may only contain"):
        work()
    found = MlflowClient().get_run(begun[0].run_id)
    reason = "out_of_memory" if fails else "tracking"
    assert (found.info.status, found.data.tags["pepr.reason"]) == ("FAILED", reason)
    assert not list(journal.home().iterdir())


@pytest.mark.parametrize(("status", "away"), [(413, False), (403, True), (503, True)])
def test_a_file_is_refused_as_anything_else_is(status: int, away: bool) -> None:
    """A proxy that takes no large files answers 413, in an error that is not MLflow's."""
    answer = requests.Response()
    answer.status_code = status
    assert outbox.is_away(requests.HTTPError(response=answer)) is away


def test_a_late_refusal_is_reported_to_the_owner_of_the_run(store: str, late: None) -> None:
    with (
        mlflow.start_run(),
        pytest.raises(WorkFailed, match="Names may only contain"),
        tracking.active("e", "n") as run,
    ):
        run.log({"a;b\n": 0.5}, 1)


def test_own_code_that_ends_while_the_server_is_away_has_not_failed(
    store: str, server: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    monkeypatch.setattr("pepr_mlops.tracking.run._PATIENCE_S", 0.2)
    mlflow.set_tracking_uri(proxy.address)
    monkeypatch.setattr("pepr_mlops.tracking.run._warn", notes.append)
    with tracking.active("own", "n") as run:
        proxy.down()
        run.log({"test/accuracy": 0.5}, 1)
    assert "`pepr sync` sends them" in notes[-1]
    assert mlflow.active_run() is None
    proxy.up()
    (left,) = tracking.sync()
    assert (left.run_id, left.status) == (run.run_id, "FINISHED")
    assert _points(server, run.run_id) == [(1, 0.5)]


def test_a_run_that_somebody_deletes_meanwhile_is_an_error(store: str) -> None:
    def work() -> None:
        with tracking.start("e", "e", "n") as run:
            MlflowClient().delete_run(run.run_id)
            run.log({"test/accuracy": 0.5}, 1)

    with pytest.raises(WorkFailed, match="must be in the 'active' state"):
        work()


def test_a_run_without_a_journal_is_logged_with_a_note(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PEPR_JOURNAL", str(tmp_path / "file" / "journal"))
    notes: list[str] = []
    with tracking.start("e", "e", "n", note=notes.append) as run:
        run.log({"test/accuracy": 0.5}, 1)
    assert MlflowClient().get_run(run.run_id).data.metrics == {"test/accuracy": 0.5}
    assert len(notes) == 1
    assert "cannot be written (Not a directory)" in notes[0]


def test_a_disk_that_fills_up_is_reported_and_the_server_has_everything(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    notes: list[str] = []
    with tracking.start("e", "e", "n", note=notes.append) as run:
        run.log({"test/accuracy": 0.25}, 1)
        monkeypatch.setattr(journal.Journal, "add", full)
        run.log({"test/accuracy": 0.5}, 2)
    found = MlflowClient().get_run(run.run_id)
    assert (found.info.status, found.data.metrics) == ("FINISHED", {"test/accuracy": 0.5})
    assert [("No space left" in n, "is lost when" in n) for n in notes] == [(True, True)]
    assert not list(journal.home().iterdir())


def test_a_file_there_is_no_room_for_holds_up_nothing_else(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outbox, "_PAUSES_S", (0.05,))
    monkeypatch.setattr("pepr_mlops.tracking.run._PATIENCE_S", 0.2)
    notes: list[str] = []
    with tracking.start("e", "e", "n", note=notes.append) as run:
        run.log({"test/accuracy": 0.25}, 1)
        with monkeypatch.context() as patched:
            patched.setattr(journal.Journal, "add", full)
            patched.setattr(Path, "write_bytes", full)
            run.spec({"model": "x"})
            run.log({"test/accuracy": 0.5}, 2)
            time.sleep(0.3)
    client = MlflowClient()
    found = client.get_run(run.run_id)
    assert (found.info.status, found.data.metrics) == ("FINISHED", {"test/accuracy": 0.5})
    assert "spec.json cannot be stored (no room in" in notes[1]
    assert "No space left on device); it is tried again" in notes[1]
    assert "pepr.not_stored" not in found.data.tags
    assert [f.path for f in client.list_artifacts(run.run_id)] == ["spec.json"]  # there is room now
    assert not list(journal.home().iterdir())


def test_after_an_absence_a_run_that_another_took_over_is_left_to_it(
    store: str, server: str, proxy: Proxy
) -> None:
    def work() -> None:
        with tracking.start("e", "e", "n", proxy.address, tracking.Attempt("0123")) as run:
            begun.append(run)
            proxy.down()
            run.log({"test/accuracy": 0.5}, 1)
            run.tag({"whose": "the old"})
            MlflowClient(server).set_tag(run.run_id, "pepr.process", "elsewhere 7 1")
            MlflowClient(server).set_tag(run.run_id, "whose", "the new")
            proxy.up()
            assert run.outbox.drain(10)
            run.log({"test/accuracy": 0.75}, 2)

    begun: list[tracking.Run] = []
    with pytest.raises(Claimed):
        work()
    found = MlflowClient(server).get_run(begun[0].run_id)
    assert (found.info.status, found.data.tags["whose"]) == ("RUNNING", "the new")
    assert found.data.metrics == {"test/accuracy": 0.5}


@pytest.fixture
def closed(server: str, tmp_path: Path) -> tuple[str, Path]:
    """An experiment of a server whose folder of artifacts cannot be written, and what is in the
    way: a file where a folder has to be."""
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    name = f"closed {tmp_path.name}"
    MlflowClient(server).create_experiment(name, (blocked / "artifacts").as_uri())
    return name, blocked


def test_artifacts_that_cannot_be_written_hold_up_nothing_else(
    store: str, server: str, closed: tuple[str, Path]
) -> None:
    name, blocked = closed
    notes: list[str] = []
    with tracking.start(name, name, "n", server, note=notes.append) as run:
        run.spec({"model": "x"})
        run.log({"test/accuracy": 0.5}, 1)
        run.predictions(PREDICTIONS)
    client = MlflowClient(server)
    found = client.get_run(run.run_id)
    assert (found.info.status, found.data.metrics) == ("FINISHED", {"test/accuracy": 0.5})
    lacking = found.data.tags["pepr.not_stored"]
    assert lacking.startswith("spec.json, predictions.npz ([Errno 20] Not a directory")
    assert "spec.json cannot be stored" in notes[0]
    assert "`pepr sync`" in notes[0]

    notes.clear()
    with tracking.start(name, name, "next", server, note=notes.append):
        pass
    assert notes == []  # no later start tries again what a person has to see to

    (synced,) = tracking.sync()
    assert (synced.run_id, synced.entries, synced.status) == (run.run_id, 0, "FINISHED")
    assert synced.problem == lacking
    blocked.unlink()
    (sent,) = tracking.sync()
    assert (sent.entries, sent.status, sent.problem) == (2, "FINISHED", None)
    found = client.get_run(run.run_id)
    assert "pepr.not_stored" not in found.data.tags
    stored = client.list_artifacts(run.run_id)
    assert [f.path for f in stored] == ["predictions.npz", "spec.json"]
    assert not list(journal.home().iterdir())


def test_an_offline_run_ends_though_its_artifacts_are_refused(
    store: str, server: str, closed: tuple[str, Path]
) -> None:
    name, blocked = closed
    with tracking.start(name, name, "n", server, offline=True) as run:
        run.spec({"model": "x"})
        run.log({"test/accuracy": 0.5}, 1)
    (synced,) = tracking.sync()
    assert synced.run_id is not None
    found = MlflowClient(server).get_run(synced.run_id)
    assert (found.info.status, found.data.metrics) == ("FINISHED", {"test/accuracy": 0.5})
    assert found.data.tags["pepr.not_stored"].startswith("spec.json (")
    blocked.unlink()
    assert [left.problem for left in tracking.sync()] == [None]


def test_a_server_older_than_dataset_inputs_has_all_else(
    store: str, server: str, proxy: Proxy
) -> None:
    """MLflow 2.0 to 2.3 answer so; tried with the real 2.0.1 and 2.3.0."""
    page = b"<!doctype html><title>404 Not Found</title>"
    proxy.answers["runs/log-inputs"] = (404, page)
    notes: list[str] = []
    images = np.zeros((2, 4, 4), dtype=np.uint8)
    split = Split(images, np.array([0, 1]))
    with tracking.start("old", "old", "n", proxy.address, note=notes.append) as run:
        run.data(Splits("x", "here", "multi-class", ("a", "b"), 1, split, split, split))
        run.spec({"model": "x"})
        run.log({"test/accuracy": 0.5}, 1)
    client = MlflowClient(server)
    found = client.get_run(run.run_id)
    assert (found.info.status, found.data.metrics) == ("FINISHED", {"test/accuracy": 0.5})
    why = "dataset inputs (the server is older than MLflow 2.4)"
    assert found.data.tags["pepr.not_stored"] == why
    assert notes == [
        "tracking: dataset inputs cannot be stored (the server is older than MLflow 2.4); "
        "the run continues without"
    ]
    assert [f.path for f in client.list_artifacts(run.run_id)] == ["spec.json"]
    assert not list(journal.home().iterdir())


def test_the_page_of_a_proxy_whose_server_restarts_costs_nothing(
    store: str, server: str, proxy: Proxy
) -> None:
    """It answers 404 to every call, as an old server does to those that it does not know."""
    split = Split(np.zeros((2, 4, 4), dtype=np.uint8), np.array([0, 1]))
    page = (404, b"404 page not found")
    with tracking.start("page", "page", "n", proxy.address) as run:
        proxy.answers[""] = page
        run.data(Splits("x", "here", "multi-class", ("a", "b"), 1, split, split, split))
        run.spec({"model": "x"})
        run.log({"test/accuracy": 0.5}, 1)
        time.sleep(0.3)
        del proxy.answers[""]
    found = MlflowClient(server).get_run(run.run_id)
    assert (found.info.status, found.data.metrics) == ("FINISHED", {"test/accuracy": 0.5})
    assert "pepr.not_stored" not in found.data.tags
    assert [i.dataset.name for i in found.inputs.dataset_inputs] == ["x train", "x val", "x test"]
    assert [f.path for f in MlflowClient(server).list_artifacts(run.run_id)] == ["spec.json"]


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), False),
        (OSError(errno.EROFS, "Read-only file system"), False),
        (ModuleNotFoundError("No module named 'boto3'"), False),
        (TimeoutError("timed out"), True),
        (requests.ConnectionError("refused"), True),
        (MlflowException("down", error_code=INTERNAL_ERROR), True),
        (botocore.exceptions.NoCredentialsError(), False),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="http://s3"), True),
        (MlflowException("no", error_code=INVALID_PARAMETER_VALUE), False),
    ],
)
def test_only_what_may_pass_is_tried_again_in_the_run(error: Exception, passes: bool) -> None:
    assert outbox.may_pass(error) is passes
