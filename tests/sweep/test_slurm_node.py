"""What runs inside a job of a real Slurm: one training however many tasks, and requeued jobs."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from slurm import Slurm

TINY = ("--model=test_resnet", "--image-size=32", "--no-pretrained", "--device=cpu", "--energy=off")
RESUMABLE = (
    "train",
    "--dataset=digits",
    "--epochs=12",
    "--fraction=0.1",
    "--checkpoints=saved",
    *TINY,
)


def _pepr(*words: str) -> str:
    return shlex.join([sys.executable, "-m", "pepr_mlops", *words])


def _until_a_checkpoint(signal: str, train: str) -> str:
    """A script that trains; at its first start the training gets a signal after an epoch."""
    return f"""
        [ ! -e started ] || exec {train}
        touch started
        {train} &
        until ls saved/*/state.pt; do sleep 0.05; done 2>/dev/null
        kill -{signal} $!
        touch signalled
        sleep 600
    """


def _runs(store: str) -> list[Any]:
    client = MlflowClient(store)
    ids = [e.experiment_id for e in client.search_experiments()]
    return list(client.search_runs(ids, order_by=["attributes.start_time"]))


def _epochs(store: str, run_id: str) -> list[int]:
    return [m.step for m in MlflowClient(store).get_metric_history(run_id, "train/loss")]


def test_several_tasks_train_once_and_the_run_names_its_job(
    cluster: Slurm, store: str, tmp_path: Path
) -> None:
    train = _pepr("train", "--dataset=digits", "--epochs=1", "--fraction=0.1", *TINY)
    options = ["--output=out-%t", "--ntasks=4"]
    job = cluster.submit(f"srun {shlex.join(options)} {train}", ["-n4", "--array=3", "-oall"])
    assert cluster.wait(f"{job}_3")["JobState"] == "COMPLETED"
    (run,) = _runs(store)
    assert run.info.status == "FINISHED"
    tags = {k: v for k, v in run.data.tags.items() if "slurm" in k}
    assert tags == {
        "pepr.slurm_job_id": f"{job}_3",
        "pepr.slurm_array_task": "3",
        "pepr.slurm_partition": "main",
        "pepr.slurm_nodes": tags["pepr.slurm_nodes"],
    }
    assert tags["pepr.slurm_nodes"] in ("n1", "n2")
    first, *others = ((tmp_path / f"out-{task}").read_text() for task in range(4))
    assert first.startswith(
        "srun: it started 4 tasks, but train runs once, in this one; give srun --ntasks=1"
    )
    assert others == [
        f"srun: task {n} of 4 (from 0) has nothing to do: train runs once, in task 0\n"
        for n in (1, 2, 3)
    ]
    rows = subprocess.check_output(shlex.split(_pepr("runs", "--experiment=digits", "--all")))
    assert f"{job}_3" in rows.decode()


def test_a_job_that_slurm_starts_again_continues_on_the_other_node(
    cluster: Slurm, store: str, tmp_path: Path
) -> None:
    """Its node fails: Slurm puts it back in the queue, and no one waits for a stale heartbeat."""
    options = ["--requeue", "--output=out", "--open-mode=append"]
    job = cluster.submit(_until_a_checkpoint("KILL", _pepr(*RESUMABLE)), options)
    cluster.until((tmp_path / "signalled").exists, bool)
    node = cluster.job(job)["NodeList"]
    cluster.fail(node)
    try:
        cluster.until(lambda: cluster.job(job)["JobState"], lambda state: state == "PENDING")
        (begun,) = _runs(store)
        assert begun.info.status == "RUNNING"
        cluster.start_again(job, f"ExcNodeList={node}")  # the node is back at once
        ended = cluster.wait(job, 300)
    finally:
        cluster.back(node)
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", "1")
    (run,) = _runs(store)
    assert (run.info.run_id, run.info.status) == (begun.info.run_id, "FINISHED")
    assert run.data.tags["pepr.attempts"] == "2"
    assert run.data.tags["pepr.slurm_nodes"] != node
    assert _epochs(store, run.info.run_id) == list(range(1, 13))


def test_an_offline_job_is_delivered_while_it_runs_and_continues_after_scancel(
    cluster: Slurm, store: str, tmp_path: Path
) -> None:
    """Its nodes know the address of a server that they cannot reach."""
    train = _pepr(*RESUMABLE, "--offline", "--tracking-uri=http://127.0.0.1:9")
    sync = shlex.split(_pepr("sync", "--tracking-uri", store))
    job = cluster.submit(_until_a_checkpoint("STOP", train), ["-oout", "--open-mode=append"])
    cluster.until((tmp_path / "signalled").exists, bool)
    assert "is RUNNING" in subprocess.check_output(sync, text=True)
    (running,) = _runs(store)
    assert running.info.status == "RUNNING"
    cluster.ask("scancel", job)
    cluster.wait(job)
    again = cluster.submit(_until_a_checkpoint("STOP", train), ["-oout", "--open-mode=append"])
    assert cluster.wait(again, 300)["JobState"] == "COMPLETED"
    assert "is FINISHED" in subprocess.check_output(sync, text=True)
    (run,) = _runs(store)
    assert (run.info.run_id, run.info.status) == (running.info.run_id, "FINISHED")
    assert run.data.tags["pepr.attempts"] == "2"
    assert run.data.tags["pepr.slurm_job_id"] == again
    assert _epochs(store, run.info.run_id) == list(range(1, 13))
    assert subprocess.run(sync, capture_output=True, text=True).stdout == ""
