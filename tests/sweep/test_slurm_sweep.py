"""Sweeps that train on a real Slurm of two nodes, while jobs are cancelled and sweeps killed."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from slurm import Slurm

from pepr_mlops.tracking import read

SEEDS, EPOCHS = 4, 2
EVERY_S = 2.0  # between calls of Slurm, else ten seconds
# `pepr` with more frequent calls.
PEPR = f"""
from pepr_mlops.sweep.slurm import engine, scheduler
scheduler.EVERY_S, engine._QUEUE_EVERY_S = {EVERY_S}, 3.0
from pepr_mlops.cli import main
main()
"""


@dataclass(frozen=True)
class Submitter:
    """A process of `pepr sweep`, which writes to `log`."""

    process: subprocess.Popen[bytes]
    log: Path

    def ended(self) -> tuple[int, str]:
        """Its exit status and its output."""
        return self.process.wait(), self.log.read_text()

    def has_printed(self, text: str) -> bool:
        return text in self.log.read_text()


class Submitters:
    """Processes of `pepr sweep`, whose calls of Slurm are counted."""

    def __init__(self, cluster: Slurm, folder: Path, uri: str) -> None:
        self.uri, self._folder = uri, folder
        programs = folder / "programs"
        programs.mkdir()
        self._calls = folder / "calls"
        self._calls.touch()
        for name in ("sbatch", "squeue", "scancel", "scontrol", "sinfo"):
            shim = programs / name
            shim.write_text(
                f'#!/bin/sh\necho "$(date +%s.%N) {name} $1" >>{self._calls}\n'
                f'exec {shutil.which(name)} "$@"\n'
            )
            shim.chmod(0o700)
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        self._environment = {**os.environ, **cluster.environment, "PATH": path}
        self._started: list[Submitter] = []

    def start(self, *words: str) -> Submitter:
        grid = {
            "model": "test_resnet", "dataset": "digits", "image-size": 32, "fraction": 0.1,
            "epochs": EPOCHS, "pretrained": "false", "keep": "none", "energy": "off",
            "device": "cpu", "seed": ",".join(map(str, range(SEEDS))), "engine": "slurm",
            "checkpoints": self._folder / "check points", "tracking-uri": self.uri,
            # Two nodes of one machine: the lock of its CPU is below TMPDIR.
            "setup": f"export TMPDIR='{self._folder}/'$SLURMD_NODENAME; mkdir -p \"$TMPDIR\"",
        }  # fmt: skip
        options = [str(part) for k, v in grid.items() for part in (f"--{k}", v)]
        log = self._folder / f"{len(self._started)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", PEPR, "sweep", *options, *words],
                env=self._environment,
                cwd=self._folder,
                stdout=file,
                stderr=file,
            )
        self._started.append(Submitter(process, log))
        return self._started[-1]

    def calls(self) -> list[tuple[float, str, str]]:
        """When which program of Slurm was called, with its first argument."""
        lines = [line.split() for line in self._calls.read_text().splitlines()]
        return [(float(at), name, first) for at, name, first in lines]

    def arrays(self) -> int:
        return sum(name == "sbatch" and "parsable" in first for _, name, first in self.calls())

    def runs(self) -> pd.DataFrame:
        return read.load_jobs(["digits"], tracking_uri=self.uri)

    def kill(self) -> None:
        for started in self._started:
            started.process.kill()
            started.process.wait()


@pytest.fixture
def submitters(cluster: Slurm, store: str, tmp_path: Path) -> Iterator[Submitters]:
    made = Submitters(cluster, tmp_path, store)
    yield made
    made.kill()
    cluster.ask("scancel", "--user=root")


def until(condition: Callable[[], bool], within_s: float = 300.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.3)


@pytest.mark.slow
def test_every_job_is_trained_once_whatever_is_killed(
    submitters: Submitters, cluster: Slurm
) -> None:
    one_by_one = ("--max-jobs", "1")  # so that some still wait when the two others have begun
    first = submitters.start(*one_by_one)
    until(lambda: submitters.calls() != [])  # it has imported everything
    two = [submitters.start(*one_by_one), submitters.start(*one_by_one)]
    until(lambda: submitters.arrays() == 1)
    first.process.kill()  # amid the submission
    until(lambda: all(one.has_printed("in the queue already") for one in two))
    until(lambda: (submitters.runs()["status"] == "RUNNING").any())
    in_queue = ("squeue", "--noheader", "--states=RUNNING", "--format=%F_%K")
    running = cluster.until(lambda: cluster.ask(*in_queue).split(), bool)[0]
    waiting = f"{running.partition('_')[0]}_{SEEDS - 1}"
    cluster.ask("scancel", running, waiting)
    for status, output in [one.ended() for one in two]:
        assert status == 1, output
        assert f"job {waiting} was cancelled" in output
    assert submitters.arrays() == 1
    status, output = submitters.start().ended()
    assert status == 0, output
    assert submitters.arrays() == 2

    runs = submitters.runs()
    assert set(runs["status"]) <= {"FINISHED", "KILLED"}  # of the one that was cancelled
    finished = runs[runs["status"] == "FINISHED"]
    assert sorted(finished["seed"].astype(int)) == list(range(SEEDS))
    client = MlflowClient(submitters.uri)
    for run_id in finished["run_id"]:
        history = client.get_metric_history(run_id, "test/accuracy")
        assert [point.step for point in history] == list(range(1, EPOCHS + 1))
    times_s = sorted(at for at, name, _ in submitters.calls())
    assert min(b - a for a, b in itertools.pairwise(times_s)) > 0.9 * EVERY_S


def test_a_detached_sweep_returns_and_the_same_command_reports(submitters: Submitters) -> None:
    status, output = submitters.start("--detach", "--seed", "0").ended()
    assert status == 0, output
    assert "slurm: 1 job submitted as array " in output
    (again,) = [line for line in output.splitlines() if line.startswith("pepr sweep ")]
    assert " --seed 0 " in again
    assert "--engine slurm" in again
    assert "--detach" not in again
    assert "FINISHED" not in set(submitters.runs()["status"])
    # It waits for the job above, and delivers that of a node without a network.
    status, output = submitters.start("--seed", "0,1", "--offline").ended()
    assert status == 0, output
    assert list(submitters.runs()["status"]) == ["FINISHED", "FINISHED"]
    assert submitters.arrays() == 2
