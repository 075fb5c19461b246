"""How the journals of runs whose process has ended are sent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from made import PREDICTIONS
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

from pepr_mlops import tracking
from pepr_mlops.cli.sync import command
from pepr_mlops.process import this_process
from pepr_mlops.tracking import journal, unsent
from pepr_mlops.tracking.journal import Entry, Journal


def _killed(uri: str, moment: str, pipe: Any) -> None:
    """A process that is killed after an epoch, or after one more that the server lacks."""
    with tracking.start("e", "e", "n", uri, tracking.Attempt("0123")) as run:
        run.params({"lr": "0.0005"})
        run.log({"test/accuracy": 0.5}, 1)
        pipe.send(run.run_id)
        if moment == "away":
            run.outbox._client = None  # as if the server did not take what follows
            run.log({"test/accuracy": 0.75}, 2)
        os.kill(os.getpid(), signal.SIGKILL)


def _kill(uri: str, moment: str) -> str:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_killed, args=(uri, moment, theirs))
    process.start()
    run_id = str(ours.recv())
    process.join()
    return run_id


@pytest.mark.parametrize(("moment", "steps"), [("epoch", [1]), ("away", [1, 2])])
def test_a_killed_run_is_failed_and_has_what_was_measured(
    store: str, moment: str, steps: list[int]
) -> None:
    run_id = _kill(store, moment)
    client = MlflowClient()
    assert client.get_run(run_id).info.status == "RUNNING"
    (synced,) = tracking.sync()
    assert (synced.run_id, synced.status, synced.problem) == (run_id, "FAILED", None)
    found = client.get_run(run_id)
    assert found.data.tags["pepr.reason"] == "lost"
    assert found.data.params == {"lr": "0.0005"}
    history = client.get_metric_history(run_id, "test/accuracy")
    assert [point.step for point in history] == steps
    assert list(tracking.sync()) == []


def test_the_next_start_closes_it_as_well(store: str) -> None:
    run_id = _kill(store, "epoch")
    with tracking.start("e", "e", "next"):
        pass
    assert MlflowClient().get_run(run_id).info.status == "FAILED"


def test_a_run_that_another_process_continues_is_left_to_it(store: str) -> None:
    run_id = _kill(store, "away")
    client = MlflowClient()
    client.set_tag(run_id, "pepr.process", "elsewhere 7 1")
    (synced,) = tracking.sync()
    assert (synced.status, synced.problem) == ("RUNNING", None)
    assert [p.step for p in client.get_metric_history(run_id, "test/accuracy")] == [1, 2]


def test_a_run_whose_machine_may_still_work_on_it_is_left_alone(store: str) -> None:
    run_id = _kill(store, "epoch")
    (saved,) = journal.unsent()
    lines = (saved.folder / "entries.jsonl").read_text().replace(this_process().split()[0], "other")
    (saved.folder / "entries.jsonl").write_text(lines)
    client = MlflowClient()
    process = client.get_run(run_id).data.tags["pepr.process"]
    client.set_tag(run_id, "pepr.process", process.replace(this_process().split()[0], "other"))
    saved.release()
    (synced,) = tracking.sync()
    assert synced.problem is not None
    assert "another machine" in synced.problem
    assert client.get_run(run_id).info.status == "RUNNING"
    client.set_tag(run_id, "pepr.heartbeat", "1000")  # silent since 1970
    (synced,) = tracking.sync()
    assert synced.status == "FAILED"


def test_an_own_loop_that_a_power_cut_ended_is_closed_after_a_day(store: str) -> None:
    """It has no heartbeat, and after a restart its process looks like that of another machine."""
    begun = MlflowClient().create_run("0").info
    head = {"uri": store, "process": "machine/boot/1 7 1", "run_id": begun.run_id, "name": "n"}
    saved = Journal.create(head)
    point = {"step": 1, "time_ms": begun.start_time, "values": {"test/accuracy": 0.5}}
    saved.add(1, Entry("metrics", point))
    saved.release()
    (synced,) = tracking.sync()
    assert "another machine" in str(synced.problem)
    before_s = int(time.time()) - 90_000
    os.utime(saved.folder / "entries.jsonl", (before_s, before_s))
    (synced,) = tracking.sync()
    assert (synced.problem, synced.status) == (None, "FAILED")
    found = MlflowClient().get_run(begun.run_id)
    assert found.data.metrics == {"test/accuracy": 0.5}
    assert found.info.end_time == before_s * 1000


def test_a_run_that_is_continued_while_it_is_sent_is_not_closed(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = _kill(store, "away")
    send = unsent.send

    def meanwhile(client: MlflowClient, run: str, entry: Entry) -> None:
        send(client, run, entry)
        client.set_tag(run, "pepr.process", "elsewhere 7 1")

    monkeypatch.setattr(unsent, "send", meanwhile)
    (synced,) = tracking.sync()
    assert (synced.run_id, synced.status) == (run_id, "RUNNING")
    assert "pepr.reason" not in MlflowClient().get_run(run_id).data.tags


def test_an_offline_run_becomes_the_run_it_would_have_been(store: str) -> None:
    with tracking.start("e", "e", "n", job=tracking.Attempt("0123"), offline=True) as run:
        run.params({"lr": "0.0005"})
        run.log({"test/accuracy": 0.5}, 1)
        run.log({"test/accuracy": 0.75}, 2)
        run.predictions(PREDICTIONS)
        run.tag({"pepr.experiment": "e"})
    client = MlflowClient()
    assert client.get_experiment_by_name("e") is None
    (synced,) = tracking.sync()
    assert (synced.status, synced.entries) == ("FINISHED", 6)
    assert synced.run_id is not None
    found = client.get_run(synced.run_id)
    assert found.info.run_name == "n"
    assert found.info.start_time <= found.info.end_time
    assert found.data.params == {"lr": "0.0005"}
    assert found.data.tags["pepr.spec"] == "0123"
    history = client.get_metric_history(synced.run_id, "test/accuracy")
    assert [(p.step, p.value) for p in history] == [(1, 0.5), (2, 0.75)]
    assert all(found.info.start_time <= p.timestamp <= found.info.end_time for p in history)
    path = download_artifacts(run_id=synced.run_id, artifact_path="predictions.npz")
    with np.load(path) as stored:
        assert stored["probabilities"].tolist() == PREDICTIONS.test.probabilities.tolist()


def test_an_interrupted_sync_makes_no_second_run(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tracking.start("e", "e", "n", offline=True) as run:
        run.log({"test/accuracy": 0.5}, 1)

    def cut_off(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pepr_mlops.tracking.unsent.send", cut_off)
        with pytest.raises(KeyboardInterrupt):
            list(tracking.sync())
    # as if it had been killed before it could save the id of the run, too
    (saved,) = journal.unsent()
    (saved.folder / "begun").unlink()
    saved.release()
    (synced,) = tracking.sync()
    client = MlflowClient()
    experiment = client.get_experiment_by_name("e")
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.run_id, found.info.status) == (synced.run_id, "FINISHED")
    assert found.data.metrics == {"test/accuracy": 0.5}


def test_a_run_killed_before_it_was_begun_leaves_nothing(store: str) -> None:
    MlflowClient().create_experiment("e")
    head = {"uri": store, "process": "p", "experiment": "e", "name": "n", "tags": {}, "start_ms": 1}
    Journal.create(head).release()
    (synced,) = tracking.sync()
    assert (synced.run_id, synced.problem) == (None, None)
    assert MlflowClient().search_runs(["1"]) == []
    assert not list(journal.home().iterdir())


def test_offline_runs_go_where_they_are_sent(store: str, tmp_path: Path) -> None:
    with tracking.start("e", "e", "n", "http://127.0.0.1:9", offline=True) as run:
        run.log({"test/accuracy": 0.5}, 1)
    result = CliRunner().invoke(command, [], standalone_mode=False)
    assert result.return_value == 1
    assert "n: still in" in result.stderr
    assert "127.0.0.1:9 refused or did not answer" in result.stderr
    result = CliRunner().invoke(command, ["--tracking-uri", store], standalone_mode=False)
    assert result.return_value == 0
    assert f"n: 2 entries sent to {store}; run " in result.stdout
    assert "is FINISHED" in result.stdout
    result = CliRunner().invoke(command, [], standalone_mode=False)
    assert (result.return_value, result.stdout) == (0, "")
    with tracking.start("e", "e", "n", f"sqlite:///{tmp_path}/new.db", offline=True):
        pass
    (synced,) = tracking.sync()
    assert (synced.status, (tmp_path / "new.db").exists()) == ("FINISHED", True)


def test_a_store_that_is_gone_is_not_made_again(store: str, tmp_path: Path) -> None:
    run_id = _kill(store, "epoch")
    (tmp_path / "mlflow.db").rename(tmp_path / "moved.db")
    (synced,) = tracking.sync()
    assert synced.problem is not None
    assert "is not there any more" in synced.problem
    assert not (tmp_path / "mlflow.db").exists()
    (tmp_path / "moved.db").rename(tmp_path / "mlflow.db")
    (synced,) = tracking.sync()
    assert (synced.run_id, synced.status) == (run_id, "FAILED")


def test_a_journal_stores_no_password_and_uses_the_one_that_is_given(
    store: str, guarded_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = guarded_server.replace("://", "://admin:only-for-tests@")
    with tracking.start("e", "e", "guarded", secret, offline=True) as run:
        run.log({"test/accuracy": 0.5}, 1)
    (folder,) = journal.home().iterdir()
    assert "only-for-tests" not in (folder / "entries.jsonl").read_text()
    (synced,) = tracking.sync()
    assert synced.problem is not None
    (synced,) = tracking.sync(secret)
    assert (synced.status, synced.uri) == ("FINISHED", guarded_server)


def test_one_entry_that_is_refused_holds_back_only_its_own_run(store: str) -> None:
    for name in ("bad", "good"):
        with tracking.start("e", "e", name, offline=True) as run:
            run.log({"a;b\n" if name == "bad" else "test/accuracy": 0.5}, 1)
    bad, good = tracking.sync()
    assert (bad.name, good.name) == ("bad", "good")
    assert bad.problem is not None
    assert "Names may only contain" in bad.problem
    assert good.status == "FINISHED"
    assert len(list(journal.home().iterdir())) == 1


def test_a_full_disk_here_does_not_stop_the_sending(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tracking.start("e", "e", "n", offline=True) as run:
        run.spec({"model": "x"})
        run.log({"test/accuracy": 0.5}, 1)

    def full(*given: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Journal, "sent", full)
    (synced,) = tracking.sync()
    assert (synced.problem, synced.status) == (None, "FINISHED")
    assert list(tracking.sync()) == []


def test_what_was_sent_and_is_sent_again_empties_no_file(store: str) -> None:
    """As after a power cut that took the newest write."""
    with tracking.start("e", "e", "n", offline=True) as run:
        run.spec({"model": "x"})
    (saved,) = journal.unsent()
    (saved.folder / "1").unlink()
    saved.release()
    (synced,) = tracking.sync()
    assert (synced.problem, synced.status) == (None, "FINISHED")
    assert MlflowClient().list_artifacts(synced.run_id) == []


def test_an_entry_is_the_same_after_the_disk(store: str) -> None:
    saved = Journal.create({"uri": store, "process": this_process()})
    values = {"a/b": 1e-300, "c": 0.1, "d": float("inf")}
    saved.add(1, Entry("metrics", {"step": 3, "time_ms": 5, "values": values}))
    assert saved.pending()[1].data["values"] == values


def test_a_damaged_journal_is_reported_and_stops_no_other_run(store: str) -> None:
    damaged = Journal.create({"uri": store, "process": this_process(), "run_id": 7})
    damaged.add(1, Entry("metrics", {"step": 1}))
    damaged.release()
    notes: list[str] = []
    with tracking.start("e", "e", "n", note=notes.append) as run:
        run.log({"test/accuracy": 0.5}, 1)
    assert MlflowClient().get_run(run.run_id).info.status == "FINISHED"
    assert [str(damaged.folder) in note for note in notes] == [True]
    (synced,) = tracking.sync()
    assert synced.problem is not None


def test_an_invalid_address_holds_back_only_its_own_run(store: str) -> None:
    for name, uri in (("bad", "http://host:no-port"), ("good", store)):
        with tracking.start("e", "e", name, uri, offline=True):
            pass
    bad, good = tracking.sync()
    assert bad.problem is not None
    assert "is not the address" in bad.problem
    assert (good.name, good.status) == ("good", "FINISHED")


def test_a_file_that_was_only_not_sent_yet_goes_with_the_next_start(store: str) -> None:
    """The end goes before files, so that a kill in between leaves them and nothing else."""
    with tracking.start("e", "e", "n") as run:
        pass
    head = {"uri": store, "process": this_process(), "run_id": run.run_id, "name": "n"}
    saved = Journal.create(head)
    saved.add(1, Entry("file", {"name": "predictions.npz"}, b"numbers"))
    saved.add(2, Entry("end", {"status": "FINISHED"}))
    saved.sent(2, but=[1])
    saved.release()
    with tracking.start("e", "e", "next"):
        pass
    assert [f.path for f in MlflowClient().list_artifacts(run.run_id)] == ["predictions.npz"]
    assert not list(journal.home().iterdir())


def test_the_next_start_deletes_a_journal_with_nothing_left_to_send(store: str) -> None:
    """Its process was killed between the last entry and the end of the journal."""
    with tracking.start("e", "e", "n") as run:
        pass
    head = {"uri": store, "process": this_process(), "run_id": run.run_id, "name": "n"}
    saved = Journal.create(head)
    saved.add(1, Entry("tags", {"values": {"pepr.not_stored": "spec.json (closed)"}}))
    saved.add(2, Entry("end", {"status": "FINISHED"}))
    saved.sent(2)
    saved.release()
    with tracking.start("e", "e", "next"):
        pass
    assert not list(journal.home().iterdir())


def test_a_damaged_journal_stops_no_later_job(store: str) -> None:
    saved = Journal.create({"uri": store, "process": this_process(), "run_id": "x", "name": "n"})
    saved.add(1, Entry("file", {"name": "spec.json"}, b"{}"))
    saved.add(2, Entry("end", {"status": "FINISHED"}))
    (saved.folder / "1").unlink()
    (saved.folder / "1").mkdir()
    saved.release()
    notes: list[str] = []
    with tracking.start("e", "e", "next", note=notes.append):
        pass
    assert "cannot be read (IsADirectoryError" in notes[0]


def test_what_an_earlier_attempt_lacks_does_not_tag_a_later_one(store: str) -> None:
    with tracking.start("e", "e", "n") as run:
        run.tag({"pepr.process": "elsewhere 7 1", "pepr.not_stored": "predictions.npz (closed)"})
    head = {"uri": store, "process": this_process(), "run_id": run.run_id, "name": "n"}
    saved = Journal.create(head)
    saved.add(1, Entry("file", {"name": "spec.json"}, b"{}"))
    saved.add(2, Entry("end", {"status": "FINISHED"}))
    saved.release()
    (synced,) = tracking.sync()
    assert synced.problem is None
    tags = MlflowClient().get_run(run.run_id).data.tags
    assert tags["pepr.not_stored"] == "predictions.npz (closed)"
