"""A real Slurm of two nodes on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pytest
from conftest import ROOT, needs

T = TypeVar("T")
_ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED"}


class Slurm:
    """`environment` is what a program needs to reach it, besides that of the tests."""

    def __init__(self, cluster: Path, folder: Path) -> None:
        self._cluster, self.folder = cluster, folder
        self.environment = {"SLURM_CONF": f"{folder}/slurm.conf"}

    def start(self) -> None:
        self._run("up")

    def stop(self) -> None:
        self._run("down")

    def fail(self, node: str) -> None:
        """Take a node away: its jobs are killed and put back in the queue."""
        self._run("fail", node)

    def back(self, node: str) -> None:
        self._run("back", node)

    def ask(self, *words: str, environment: Mapping[str, str] = {}) -> str:
        """The output of one of Slurm's programs, with further environment variables."""
        done = subprocess.run(
            words,
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, **self.environment, **environment},
        )
        return done.stdout

    def submit(
        self, script: str, options: Sequence[str] = (), environment: Mapping[str, str] = {}
    ) -> str:
        """Submit a job of `/bin/bash` and return its id."""
        path = self.folder / "job.sh"
        path.write_text(f"#!/bin/bash\n{script}\n")
        return self.ask(
            "sbatch", "--parsable", *options, str(path), environment=environment
        ).strip()

    def job(self, job_id: str) -> dict[str, str]:
        """What `scontrol show job` has, by field: `JobState`, `NodeList`, `Restarts`."""
        shown = self.ask("scontrol", "--oneliner", "show", "job", job_id)
        return dict(word.partition("=")[::2] for word in shown.split() if "=" in word)

    def start_again(self, job_id: str, *changes: str) -> None:
        """Start a job that is back in the queue, where Slurm would let it wait for two minutes."""

        def begin() -> None:
            # A node that still clears away the former start would let the next one fail, and Slurm
            # shows that it does a moment late.
            time.sleep(1.0)
            self.until(
                lambda: self.ask("sinfo", "--noheader", "--format=%T"),
                lambda states: "comp" not in states,
            )
            self.ask("scontrol", "update", f"JobId={job_id}", "StartTime=now", *changes)

        self.until(lambda: self.job(job_id)["Restarts"], lambda restarts: restarts == "1")
        for _ in range(3):  # Slurm may set the time once more after that
            self.until(lambda: self.job(job_id)["JobState"], lambda now: now != "COMPLETING")
            begin()
            with suppress(TimeoutError):
                self.until(lambda: self.job(job_id)["JobState"], lambda now: now != "PENDING", 10)
                break

    def wait(self, job_id: str, timeout_s: float = 300) -> dict[str, str]:
        """`job`, once that has ended."""
        return self.until(
            lambda: self.job(job_id), lambda job: job["JobState"] in _ENDED, timeout_s
        )

    @staticmethod
    def until(read: Callable[[], T], found: Callable[[T], bool], timeout_s: float = 300) -> T:
        """What `read` returns, once that is `found`."""
        deadline = time.monotonic() + timeout_s
        while not found(value := read()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {timeout_s:g} s: {value}")
            time.sleep(0.5)
        return value

    def _run(self, *words: str) -> None:
        verb, *rest = words
        command = [str(self._cluster), verb, str(self.folder), *rest]
        # Its daemons live on and would hold a pipe open.
        with (self.folder / "cluster.log").open("a") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log, stdin=subprocess.DEVNULL)


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """A Slurm of the nodes `n1` and `n2` that has its state in `folder`."""
    if os.getuid() != 0:
        pytest.skip("needs the rights of root to start Slurm")
    needs(Path(shutil.which("slurmctld") or "/usr/sbin/slurmctld"), "Slurm")
    needs(Path(shutil.which("munged") or "/usr/sbin/munged"), "munge")
    found = Slurm(needs(ROOT.parent / "shared" / "slurm" / "cluster", "a cluster"), folder)
    try:
        found.start()
        yield found
    finally:
        found.stop()
