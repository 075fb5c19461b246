"""The main program of a job on a node: `python -m pepr_mlops.sweep.slurm.node BATCH INDEX`.

It runs each task in a process of its own, and outlives that to report how it ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from pepr_mlops.errors import one_line
from pepr_mlops.process import ends_at_once
from pepr_mlops.sweep.engine import NOTE, Report, Task
from pepr_mlops.sweep.local_engine import LocalEngine
from pepr_mlops.sweep.slurm.batch import Batch
from pepr_mlops.train import checkpoint

_EVERY_S = 0.5
_STOPPED = ("killed", "lost", "time_limit")  # how a task ends after a signal


class Node:
    """The job of one index of a batch."""

    def __init__(self, batch: Batch, index: int) -> None:
        self._batch, self._index = batch, index
        self._orders = batch.orders()
        self._engine = LocalEngine(self._orders.work, [{}], self._orders.logs)
        self._signal: int | None = None

    def run(self) -> None:
        """Run the tasks of this index until there are none, or Slurm ends the job."""
        for name in (signal.SIGUSR1, signal.SIGTERM):
            signal.signal(name, self._receive)
        number = first = self._batch.begin(self._index)
        while self._signal is None and (task := self._next(number)) is not None:
            report = self._train(task, has_all_time=number == first)
            if report is None:  # the job is in the queue again
                return
            self._batch.report(self._index, number, report)
            number += 1
        self._batch.close(self._index)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._signal = self._signal or number

    def _next(self, number: int) -> Task | None:
        """The task of this number, once it is there; None where none came in time."""
        deadline = time.monotonic() + self._orders.stay_s
        while (task := self._batch.take(self._index, number)) is None:
            if self._signal or self._batch.is_over() or time.monotonic() > deadline:
                self._batch.close(self._index)  # the sweep takes back what came too late
                return self._batch.take(self._index, number)
            time.sleep(_EVERY_S)
        return task

    def _train(self, task: Task, *, has_all_time: bool) -> Report | None:
        """Run a task and return how it ended, None where it continues in another start of the job:
        not if all the time of this start was too short for an epoch."""
        saved = self._orders.checkpoints / task.spec.fingerprint
        before = checkpoint.saved_ns(saved)
        self._engine.submit(task)
        ended, sent = None, None
        while ended is None:
            for report in self._engine.poll(_EVERY_S):
                if report.reason == NOTE:
                    self._batch.note(self._index, str(report.error))
                else:
                    ended = report
            if sent is None and self._signal is not None:
                sent = self._signal
                self._engine.stop(sent)
        if sent is None or ended.reason not in _STOPPED:
            return ended
        if sent != signal.SIGUSR1:
            return Report(task.spec, "killed", "its Slurm job was cancelled")
        if has_all_time and checkpoint.saved_ns(saved) == before:
            limit = self._orders.options.time or "the time limit of the partition"
            why = f"no epoch ended within {limit}; ask for more (--time)"
            return Report(task.spec, "time_limit", why)
        return None if _requeue() else Report(task.spec, "paused")


def _requeue() -> bool:
    """Put this job back in the queue; False where Slurm refuses it, so that the sweep submits the
    rest of the task as another job."""
    try:
        # The id of one job of an array may be that of the array.
        name = "{SLURM_ARRAY_JOB_ID}_{SLURM_ARRAY_TASK_ID}".format_map(os.environ)
        words = ["scontrol", "requeue", name]
        done = subprocess.run(words, stdin=subprocess.DEVNULL)  # what it writes is in the log
    except (OSError, KeyError) as error:
        print(f"slurm: this job is not requeued ({one_line(error)})", file=sys.stderr)
        return False
    return done.returncode == 0


if __name__ == "__main__":
    end = ends_at_once()
    batch = Batch(Path(sys.argv[1]))
    if not batch.is_private():
        sys.exit(f"slurm: {batch.folder} is not a folder that this user alone can write")
    Node(batch, int(sys.argv[2])).run()
    end(0)
