"""Does a sweep on Slurm train each job once, whatever is cancelled, killed, too long or gone?

    python benchmarks/slurm_faults.py --cluster SCRIPT

SCRIPT starts a Slurm of the nodes n1 and n2 in a folder: `SCRIPT up|down DIR`, and `fail|back DIR
NODE` for one node. Two sweeps train the same 46 jobs at once, and a third one trains two jobs that
are longer than their time limit. Six jobs are cancelled, two of them during training, a node fails
under one that trains, and two sweeps are killed by SIGKILL and started again. Then the same
commands are given until nothing is left.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from common import machine, write
from faults import outcome

from pepr_mlops.sweep.jobs import jobs
from pepr_mlops.tracking import read

EXPERIMENT = "digits"
COMMON = {
    "dataset": EXPERIMENT,
    "image_size": "32",
    "pretrained": "false",
    "keep": "none",
    "energy": "off",
    "device": "cpu",
}
SHORT = {**COMMON, "model": "test_resnet,test_efficientnet", "fraction": "0.1", "epochs": "8"}
LONG = {**COMMON, "model": "resnet10t", "seed": "0,1", "fraction": "0.3", "epochs": "20"}
LIMIT = ("--time", "2")  # minutes
PROGRAMS = ("sbatch", "squeue", "scancel", "scontrol", "sinfo")
ROUNDS = 4  # of the same commands at the end


@click.command()
@click.option("--cluster", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--seeds", default=23, help="of each of the two short models")
@click.option("--out", type=click.Path(path_type=Path))
def main(cluster: Path, seeds: int, out: Path | None) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trial = Trial(
            cluster.resolve(), folder, {**SHORT, "seed": ",".join(map(str, range(seeds)))}
        )
        try:
            result = trial.run()
        finally:
            trial.end()
        write({**machine(), **result}, out)


class Trial:
    """Sweeps on a cluster; everything of them is in `folder`."""

    def __init__(self, cluster: Path, folder: Path, short: dict[str, str]) -> None:
        self.cluster, self.folder, self.short = cluster, folder, short
        self.uri = f"sqlite:///{folder}/mlflow.db"
        self.calls = folder / "calls"
        programs = folder / "programs"
        programs.mkdir()
        for name in PROGRAMS:  # count the calls, those of jobs on nodes apart
            shim = programs / name
            shim.write_text(
                f'#!/bin/sh\necho "$(date +%s.%N) {name} ${{SLURM_JOB_ID:+node}}" >>{self.calls}\n'
                f'exec {shutil.which(name)} "$@"\n'
            )
            shim.chmod(0o700)
        self.environment = {
            **os.environ,
            "SLURM_CONF": f"{folder}/slurm.conf",
            "PATH": f"{programs}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "PEPR_CACHE": f"{folder}/cache",
            "PEPR_JOURNAL": f"{folder}/journal",
        }
        self.done: dict[str, Any] = {}
        self.sweeps: list[subprocess.Popen[bytes]] = []
        self.started = time.perf_counter()

    def run(self) -> dict[str, Any]:
        """Disturb the sweeps, repeat their commands, and read what there is."""
        self._cluster("up")
        first = self._sweep(self.short)
        self._sweep(self.short)
        self._sweep(LONG, *LIMIT)
        self._wait_for(lambda: self._jobs("RUNNING")[1:])
        for kill in range(2):
            time.sleep(40)
            first.send_signal(signal.SIGKILL)
            first.wait()
            self._show(f"sweep {kill + 1} killed")
            self._cancel(running=1, waiting=2)
            first = self._sweep(self.short)
        time.sleep(40)
        self._lose_a_node()
        for sweep in self.sweeps:
            sweep.wait()
        self._show("the first round ended")
        statuses = []
        for _ in range(ROUNDS):
            both = [self._sweep(self.short), self._sweep(LONG, *LIMIT)]
            statuses.append([sweep.wait() for sweep in both])
            self._show(f"exit statuses {statuses[-1]}")
            if statuses[-1] == [0, 0]:
                break
        return {**self.done, "exit_statuses_of_the_last_rounds": statuses, **self._found()}

    def end(self) -> None:
        for sweep in self.sweeps:
            sweep.kill()
            sweep.wait()
        self._cluster("down")

    def _found(self) -> dict[str, Any]:
        runs = read.load_jobs([EXPERIMENT], tracking_uri=self.uri)
        found = {}
        for name, grid in (("short", self.short), ("long", LONG)):
            specs = jobs({k: v.split(",") for k, v in grid.items()})
            own = runs[runs["spec"].isin([spec.fingerprint for spec in specs])]
            ends = outcome(specs, own, self.uri)
            unknown = ("energy_wh", "energy_source", "unmeasured_s")
            found[name] = {key: value for key, value in ends.items() if key not in unknown}
        found["long"]["attempts"] = sorted(
            int(n) for n in runs.loc[runs["model"] == "resnet10t", "attempts"]
        )
        calls = [line.split() for line in self.calls.read_text().splitlines()]
        times_s = sorted(float(call[0]) for call in calls if len(call) == 2)
        names = [call[1] for call in calls if len(call) == 2]
        return {
            "wall_s": time.perf_counter() - self.started,
            "scheduler_calls": {name: names.count(name) for name in PROGRAMS},
            "least_s_between_calls": min(b - a for a, b in itertools.pairwise(times_s)),
            "scheduler_calls_of_jobs": sum(len(call) == 3 for call in calls),
            **found,
        }

    def _sweep(self, grid: dict[str, str], *words: str) -> subprocess.Popen[bytes]:
        options = [w for k, v in grid.items() for w in (f"--{k.replace('_', '-')}", v)]
        options += ["--engine", "slurm", "--tracking-uri", self.uri, *words]
        # Two nodes of one machine: the lock of its CPU is below TMPDIR.
        options += ["--setup", f"export TMPDIR={self.folder}/$SLURMD_NODENAME; mkdir -p $TMPDIR"]
        options += ["--checkpoints", f"{self.folder}/checkpoints", "--stale-after", "60"]
        with (self.folder / "log").open("a") as log:
            started = subprocess.Popen(
                [sys.executable, "-m", "pepr_mlops", "sweep", *options],
                env=self.environment,
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        self.sweeps.append(started)
        return started

    def _jobs(self, state: str) -> list[tuple[str, str]]:
        """Job and node of the jobs of the short sweep in this state."""
        words = ["--noheader", "--array", f"--states={state}", "--format=%F_%K|%N|%l"]
        lines = self._slurm("squeue", *words).splitlines()
        rows = [line.split("|") for line in lines]
        return [(job, node) for job, node, limit in rows if limit != "2:00"]

    def _training(self) -> list[tuple[str, str]]:
        """Those of the running jobs that have logged an epoch."""
        runs = read.load_jobs([EXPERIMENT], tracking_uri=self.uri)
        begun = runs[(runs["status"] == "RUNNING") & runs["train_time_s"].notna()]
        names = set(begun["slurm_job_id"])
        return [(job, node) for job, node in self._jobs("RUNNING") if job in names]

    def _cancel(self, *, running: int, waiting: int) -> None:
        found = self._wait_for(lambda: self._training()[:running])
        found += self._jobs("PENDING")[-waiting:]
        self._slurm("scancel", *(job for job, _ in found))
        self.done["cancelled"] = self.done.get("cancelled", 0) + len(found)
        self._show(f"cancelled {[job for job, _ in found]}")

    def _lose_a_node(self) -> None:
        job, node = self._wait_for(self._training)[0]
        self._cluster("fail", node)
        self.done["failed_nodes"] = 1
        self._show(f"{node} failed under {job}")
        time.sleep(20)
        self._cluster("back", node)

    def _wait_for(self, condition: Callable[[], list[Any]]) -> list[Any]:
        """What `condition` returns, once that is not empty."""
        while not (found := condition()):
            time.sleep(1)
        return found

    def _slurm(self, program: str, *words: str) -> str:
        """The output of a program of Slurm, which does not count as a call of a sweep."""
        environment = {**os.environ, "SLURM_CONF": self.environment["SLURM_CONF"]}
        done = subprocess.run(
            [program, *words], check=True, capture_output=True, text=True, env=environment
        )
        return done.stdout

    def _cluster(self, verb: str, *words: str) -> None:
        with (self.folder / "cluster.log").open("a") as log:
            subprocess.run(
                [str(self.cluster), verb, str(self.folder), *words],
                check=True, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def _show(self, what: str) -> None:
        runs = read.load_jobs([EXPERIMENT], tracking_uri=self.uri)
        done = int((runs["status"] == "FINISHED").sum())
        took_s = time.perf_counter() - self.started
        print(f"{took_s:.0f} s: {what}, {done} done", file=sys.stderr)


if __name__ == "__main__":
    main()
