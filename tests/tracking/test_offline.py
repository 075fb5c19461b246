"""Runs without a server: done once, continued in one run, and delivered while they run."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from pepr_mlops import tracking
from pepr_mlops.errors import Claimed, WorkFailed
from pepr_mlops.process import this_process
from pepr_mlops.tracking import Attempt, Run, journal, offline, ownership

JOB = Attempt("0123", exclusive=True, saved=True)


def _start(job: Attempt | None = JOB) -> Any:
    return tracking.start("e", "e", "n", job=job, offline=True)


def _only_run() -> Any:
    client = MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("e").experiment_id])
    return run


def _steps(run_id: str) -> list[int]:
    return [p.step for p in MlflowClient().get_metric_history(run_id, "test/accuracy")]


def _child(work: Callable[[Any], None]) -> tuple[Any, Any]:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs,))
    process.start()
    return process, ours


def _two_epochs_and_killed(pipe: Any) -> None:
    with _start() as run:
        run.tag({"pepr.unmeasured_s": "7.0"})
        for epoch in (1, 2):
            run.log({"test/accuracy": epoch / 10}, epoch)
        pipe.send(run.name)
        pipe.recv()
        os.kill(os.getpid(), signal.SIGKILL)


def test_it_is_delivered_while_it_runs_without_loss_or_duplicates(store: str) -> None:
    with _start(Attempt("0123")) as run:
        run.log({"test/accuracy": 0.5}, 1)
        (synced,) = tracking.sync()
        assert (synced.status, synced.entries) == ("RUNNING", 1)
        assert list(tracking.sync()) == []  # no news
        run.log({"test/accuracy": 0.75}, 2)
        tracking.catch_up(store)  # as a sweep does that waits
        assert _steps(_only_run().info.run_id) == [1, 2]
        run.log({"test/accuracy": 0.8}, 3)
    (synced,) = tracking.sync()
    assert (synced.status, synced.entries) == ("FINISHED", 2)
    assert _steps(_only_run().info.run_id) == [1, 2, 3]
    assert not [path for path in journal.home().iterdir() if path.name[0] != "."]


def test_a_run_that_ends_during_its_delivery_stays_ended(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end comes after the sender has found it running, and before it reads what to send."""
    with ExitStack() as run:
        run.enter_context(_start())
        list(tracking.sync())

        def looks_and_it_ends(there: journal.Journal) -> bool:
            found = offline.is_running(there)
            run.close()
            return found

        monkeypatch.setattr("pepr_mlops.tracking.unsent.is_running", looks_and_it_ends)
        (synced,) = tracking.sync()
    assert synced.status == "FINISHED"
    assert _only_run().info.status == "FINISHED"


def test_delivery_shows_that_its_process_is_alive(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "HEARTBEAT_S", 0.05)
    began_ms = int(time.time() * 1000)
    with _start():
        list(tracking.sync())
        run_id = _only_run().info.run_id
        MlflowClient().set_tag(run_id, "pepr.heartbeat", "0")
        tracking.close_lost([run_id])  # by a sweep that saw no delivery for long
        time.sleep(0.2)
        list(tracking.sync())
        found = _only_run()
        assert found.info.status == "RUNNING"
        assert int(found.data.tags["pepr.heartbeat"]) > began_ms
        assert "pepr.reason" not in found.data.tags


def test_a_job_is_done_by_one_process_and_once(store: str) -> None:
    with _start(), pytest.raises(Claimed, match="another process does this job"), _start():
        pytest.fail("two at once")
    with pytest.raises(Claimed, match="another run has done this job"), _start():
        pytest.fail("done already")
    assert tracking.delivered() == set()
    list(tracking.sync())
    with pytest.raises(Claimed, match="another run has done this job"), _start():
        pytest.fail("delivered already")
    assert _only_run().info.status == "FINISHED"
    assert tracking.delivered() == {"0123"}
    tracking.forget(["0123"])  # its run was deleted on the server
    with _start():
        pass


def test_many_processes_at_once_do_a_job_once(store: str) -> None:
    def work(pipe: Any) -> None:
        pipe.recv()
        try:
            with _start():
                pipe.send("has it")
                pipe.recv()
        except Claimed:
            pipe.send("claimed")

    children = [_child(work) for _ in range(6)]
    for _, pipe in children:
        pipe.send("go")
    outcomes = [pipe.recv() for _, pipe in children]
    for _, pipe in children:
        with suppress(OSError):  # one that has ended
            pipe.send("end")
    for process, _ in children:
        process.join()
    assert sorted(outcomes) == ["claimed"] * 5 + ["has it"]


def test_a_killed_run_is_continued_in_its_journal(store: str) -> None:
    process, pipe = _child(_two_epochs_and_killed)
    name = pipe.recv()
    list(tracking.sync())
    pipe.send("die")
    process.join()
    with _start(Attempt("0123", exclusive=True, saved=True, continues=name)) as run:
        assert run.attempt == 2
        assert run.earlier["pepr.unmeasured_s"] == "7.0"
        assert abs(int(run.earlier["pepr.heartbeat"]) / 1000 - time.time()) < 60
        assert run.has("test/accuracy", 2)
        assert not run.has("test/accuracy", 3)
        run.log({"test/accuracy": 0.3}, 3)
        list(tracking.sync())
        found = _only_run()
        assert found.info.status == "RUNNING"
        assert found.data.tags["pepr.process"] == this_process()
        assert found.data.tags["pepr.attempts"] == "2"
    list(tracking.sync())
    found = _only_run()
    assert found.info.status == "FINISHED"
    assert _steps(found.info.run_id) == [1, 2, 3]


def test_a_run_killed_before_it_logged_anything_leaves_its_job_to_others(store: str) -> None:
    def begin_and_die(pipe: Any) -> None:
        with _start():
            os.kill(os.getpid(), signal.SIGKILL)

    process, _ = _child(begin_and_die)
    process.join()
    list(tracking.sync())
    with _start():
        pass


def test_a_killed_run_that_was_closed_as_lost_is_continued_too(store: str) -> None:
    process, pipe = _child(_two_epochs_and_killed)
    name = pipe.recv()
    pipe.send("die")
    process.join()
    (synced,) = tracking.sync()
    assert (synced.status, _only_run().data.tags["pepr.reason"]) == ("FAILED", "lost")
    assert list(tracking.sync()) == []
    with _start(Attempt("0123", exclusive=True, saved=True, continues=name)) as run:
        run.log({"test/accuracy": 0.3}, 3)
    (synced,) = tracking.sync()
    found = _only_run()
    assert (synced.status, found.info.status) == ("FINISHED", "FINISHED")
    assert "pepr.reason" not in found.data.tags
    assert _steps(found.info.run_id) == [1, 2, 3]


@pytest.mark.parametrize("restarted", [True, False])
def test_a_node_that_died_holds_a_job_until_slurm_starts_it_again_or_its_heartbeat_is_stale(
    restarted: bool, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    process, pipe = _child(_two_epochs_and_killed)
    name = pipe.recv()
    pipe.send("die")
    process.join()
    monkeypatch.setenv("SLURMD_NODENAME", "n2")
    again = Attempt("0123", exclusive=True, saved=True, continues=name)
    with pytest.raises(Claimed, match="another process does this job"), _start(again):
        pytest.fail("it may be alive on n1")
    if restarted:
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    else:
        os.utime(journal.home() / ".claims" / "0123.1", (0, 0))
    with _start(again) as run:
        assert run.attempt == 2


def test_a_training_resumes_offline_with_every_epoch_once(
    store: str, shapes: Path, tmp_path: Path
) -> None:
    from pepr_mlops.errors import Paused
    from pepr_mlops.spec import RunSpec
    from pepr_mlops.train.job import run

    spec = RunSpec(
        dataset=str(shapes),
        model="test_resnet",
        image_size=32,
        epochs=3,
        pretrained=False,
        device="cpu",
    )
    options: dict[str, Any] = {"checkpoints": tmp_path / "c", "exclusive": True, "offline": True}
    with pytest.raises(Paused):
        run(spec, **options, until=1)
    list(tracking.sync())
    client = MlflowClient()
    (experiment,) = (e for e in client.search_experiments() if e.name == "shapes")
    (paused,) = client.search_runs([experiment.experiment_id])
    assert paused.data.tags["pepr.reason"] == "paused"
    run(spec, **options)
    list(tracking.sync())
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.run_id, found.info.status) == (paused.info.run_id, "FINISHED")
    assert _steps(found.info.run_id) == [1, 2, 3]
    assert found.data.metrics["time/train_s"] > paused.data.metrics["time/train_s"]
    with pytest.raises(Claimed):
        run(spec, **options)


def test_a_disk_without_hard_links_is_refused_in_one_line(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*given: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(WorkFailed, match=r"cannot be saved in .* \(Operation not permitted\); set"):
        _start().__enter__()
    assert not [path for path in journal.home().iterdir() if path.name[0] != "."]


def test_a_run_of_the_server_is_not_continued_offline(store: str) -> None:
    with tracking.start("e", "e", "n", job=Attempt("0123")) as run:
        assert isinstance(run, Run)
        assert tracking.has_run(run.name)
        assert not tracking.has_run(run.name, offline=True)
    with _start(Attempt("4567")) as run:
        assert tracking.has_run(run.name, offline=True)
        assert not tracking.has_run(run.name)
