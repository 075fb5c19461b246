"""Does a sweep survive being killed at random moments, with each job trained once?

    python benchmarks/faults.py --data-root DIR

Runs `pepr sweep` on PneumoniaMNIST (real X-rays) and kills at random moments, by SIGKILL, the
process of a job, the sweep itself and all processes of a node of a Ray cluster on this machine,
and starts the same command again until it has nothing left to do. Then it reads the tracking store.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import click
import psutil
from common import machine, write
from search import MODELS

from pepr_mlops.spec import Job
from pepr_mlops.sweep import plan
from pepr_mlops.sweep.jobs import jobs
from pepr_mlops.tracking import read

EXPERIMENT = "pneumonia"


@click.command()
@click.option("--data-root", type=click.Path(path_type=Path), required=True)
@click.option("--models", default=len(MODELS), help="the first so many")
@click.option("--seeds", default=2)
@click.option("--epochs", default=4)
@click.option("--kills", default=9, help="of jobs and sweeps, two to one")
@click.option("--seed", default=0, help="of the moments")
@click.option("--out", type=click.Path(path_type=Path))
def main(
    data_root: Path,
    models: int,
    seeds: int,
    epochs: int,
    kills: int,
    seed: int,
    out: Path | None,
) -> None:
    values = {
        "model": ",".join(MODELS[:models]),
        "seed": ",".join(map(str, range(seeds))),
        "dataset": EXPERIMENT,
        "data_root": str(data_root.resolve()),
        "size": "28",
        "image_size": "28",
        "fraction": "0.1",
        "epochs": str(epochs),
        "pretrained": "false",
        "device": "cpu",
    }
    with tempfile.TemporaryDirectory() as folder:
        write({**machine(), **Trial(values, Path(folder), seed).run(kills)}, out)


class Trial:
    """A sweep that is killed; everything of it lies in `folder`."""

    def __init__(self, values: dict[str, str], folder: Path, seed: int) -> None:
        words = [w for k, v in values.items() for w in (f"--{k.replace('_', '-')}", v)]
        self.uri = f"sqlite:///{folder}/mlflow.db"
        self.command = [sys.executable, "-m", "pepr_mlops", "sweep", *words]
        self.command += ["--tracking-uri", self.uri, "--retries", "5"]
        self.command += ["--checkpoints", str(folder / "checkpoints")]
        self.specs = jobs({k: v.split(",") for k, v in values.items()})
        self.folder, self.drawn = folder, random.Random(seed)
        self.killed: Counter[str] = Counter()
        self.started = time.perf_counter()

    def run(self, kills: int) -> dict[str, Any]:
        """Kill until all kinds have been killed, let the sweep end, and look at what there is."""
        with (self.folder / "log").open("w") as log:
            self.here(kills, log)
            self.on_ray(log)
            status = subprocess.run(self.command, stdout=log, stderr=log).returncode
        again = subprocess.run(self.command, capture_output=True, text=True)
        print((self.folder / "log").read_text()[-2000:], again.stderr, file=sys.stderr)
        return {
            "killed": dict(self.killed),
            "wall_s": time.perf_counter() - self.started,
            "exit_status_at_the_end": status,
            **outcome(self.specs, self.runs(), self.uri),
        }

    def runs(self) -> Any:
        return read.load_jobs([EXPERIMENT], tracking_uri=self.uri)

    def here(self, kills: int, log: IO[str]) -> None:
        """Kill jobs, and every third time the sweep, on this machine."""
        sweep = subprocess.Popen(self.command, stdout=log, stderr=log)
        while self.killed.total() < kills:
            wait(sweep, self.drawn.uniform(5, 40))
            if sweep.poll() is None:
                what = "sweep" if self.killed.total() % 3 == 2 else "job"
                victims = [psutil.Process(sweep.pid)] if what == "sweep" else jobs_of(sweep.pid)
                for victim in victims[:1]:
                    victim.send_signal(signal.SIGKILL)
                    self.show(what)
                wait(sweep, 3)
            if sweep.poll() is not None:
                sweep = subprocess.Popen(self.command, stdout=log, stderr=log)
        sweep.send_signal(signal.SIGTERM)
        sweep.wait()

    def on_ray(self, log: IO[str]) -> None:
        """Go on on a cluster of two nodes, and kill the one without the head amid a training."""
        (self.folder / "amdsmi.py").write_text("raise ImportError('no AMD GPU')")  # or Ray fails
        sys.path.insert(0, str(self.folder))
        os.environ |= {
            "PYTHONPATH": str(self.folder),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
        }
        from ray.cluster_utils import Cluster

        cluster = Cluster(True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        node = cluster.add_node(num_cpus=1)
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        engine = ["--engine", "ray", "--address", cluster.address]
        sweep = subprocess.Popen([*self.command, *engine], stdout=log, stderr=log)
        while sweep.poll() is None:
            time.sleep(0.5)
            if not self.killed["ray node"] and (inside := self.trained_by(raylet)):
                time.sleep(self.drawn.uniform(0, 10))
                for process in [raylet, *raylet.children(recursive=True), *inside]:
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
                self.show("ray node")
        with suppress(Exception):  # of a node that is gone
            cluster.shutdown()

    def trained_by(self, raylet: psutil.Process) -> list[psutil.Process]:
        """Processes of the node that have a run."""
        runs = self.runs()
        pids = {int(p.split()[1]) for p in runs.loc[runs["status"] == "RUNNING", "process"]}
        return [p for p in raylet.children(recursive=True) if p.pid in pids]

    def show(self, what: str) -> None:
        self.killed[what] += 1
        done = int((self.runs()["status"] == "FINISHED").sum())
        took_s = time.perf_counter() - self.started
        print(f"{took_s:.0f} s: {dict(self.killed)} killed, {done} done", file=sys.stderr)


def wait(sweep: subprocess.Popen[bytes], seconds: float) -> None:
    with suppress(subprocess.TimeoutExpired):
        sweep.wait(seconds)


def jobs_of(pid: int) -> list[psutil.Process]:
    return [p for p in psutil.Process(pid).children() if "spawn_main" in " ".join(p.cmdline())]


def outcome(specs: Sequence[Job], runs: Any, uri: str) -> dict[str, Any]:
    """Whether the runs equal the plan."""
    table = plan.states(specs, runs)
    finished = runs[runs["status"] == "FINISHED"]
    epochs = read.load_epochs(list(finished["run_id"]), ["time/train_s"], tracking_uri=uri)
    steps = epochs.groupby("run_id")["step"].apply(list)
    every = list(range(1, specs[0].epochs + 1))
    rest = runs[runs["status"] != "FINISHED"]
    return {
        "jobs": len(specs),
        "runs": len(runs),
        "finished_runs": len(finished),
        "jobs_with_exactly_one_finished_run": int((finished["spec"].value_counts() == 1).sum()),
        "specs_equal_the_plan": set(finished["spec"]) == set(table.index),
        "runs_with_every_epoch_once": int(sum(of == every for of in steps)),
        "runs_still_running": int((runs["status"] == "RUNNING").sum()),
        "runs_killed_before_an_epoch": int(rest["train_time_s"].isna().sum()),
        "other_unfinished_runs": int(rest["train_time_s"].notna().sum()),
        "continued_runs": int((finished["attempts"] > 1).sum()),
        "energy_wh": float(table["energy_wh"].sum()),
        "energy_source": sorted(set(finished["energy_source"])),
        "unmeasured_s": float(finished["unmeasured_s"].sum()),
    }


if __name__ == "__main__":
    main()
