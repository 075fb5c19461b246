"""Tasks and reports, and the interface of the engines that run the tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pepr_mlops.spec import Job


@dataclass(frozen=True)
class Task:
    """A job, or some epochs of it.

    It pauses after the epoch `until`; with None it trains to the end, and with 0 only a few steps
    to forecast the cost. It also pauses after the epoch in which it has used `left_wh` in all
    phases.
    """

    spec: Job
    until: int | None = None
    left_wh: float | None = None


@dataclass(frozen=True)
class Report:
    """How a task ended: `reason` is `finished`, `paused`, `probed`, `claimed`, or why it failed.

    `error` is a line for people. The measurements are on the tracking server. With the reason
    `NOTE` the task still runs, and the line is a message from it; a task that is `UNSENT` never
    began.
    """

    spec: Job
    reason: str
    error: str | None = None


NOTE, UNSENT = "note", "unsent"

# Runs a task and passes on its messages. It can be pickled for another process or machine.
Work = Callable[[Task, Callable[[str], None]], Report]

# How a task ends without a failure.
NO_FAILURE = {"finished", "paused", "probed", "claimed", UNSENT}
# Failures after which a retry may succeed though nothing was changed.
TRANSIENT = {"crashed", "lost", "tracking", "sensor_lost"}
# Failures that would happen again on the same hardware.
FINAL = {
    *("out_of_memory", "non_finite_loss", "not_deterministic", "compile_failed", "graph_failed"),
    "wrong_use",
}


class Engine(Protocol):
    """Runs one task at a time on each slot, each task in its own process.

    An engine only takes a `Work` to its process and brings back the report. It need not retry,
    queue or remember anything: the tracking server knows which jobs are done.
    """

    @property
    def slots(self) -> int:
        """How many tasks may run at once, now."""

    def submit(self, task: Task) -> None:
        """Begin a task; there are never more than `slots` tasks."""

    def poll(self, timeout_s: float) -> list[Report]:
        """The reports of tasks since the last call; waits for one to end until the time-out.

        A task whose process or machine vanished is reported as `lost`.
        """

    def is_alive(self, process: str) -> bool | None:
        """As `process.is_alive`, for a process of any task, also of earlier sweeps."""

    def stop(self) -> None:
        """Ask all tasks to end soon, leaving their runs KILLED; `poll` still reports them."""

    def close(self) -> None:
        """End all tasks that still run."""
