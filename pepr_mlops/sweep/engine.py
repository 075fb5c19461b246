"""Tasks and reports, and the interface of the engines that do the tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pepr_mlops.spec import Job


@dataclass(frozen=True)
class Task:
    """A job to be done, or a part of it.

    It pauses after the epoch `until`, None for none; 0 only trains a few steps to forecast the
    cost. It also pauses after the epoch in which it has used `left_wh` in all phases.
    """

    spec: Job
    until: int | None = None
    left_wh: float | None = None


@dataclass(frozen=True)
class Report:
    """How a task ended: `reason` is `finished`, `paused`, `probed`, `claimed`, or why it failed.

    `error` is the line for people. Its measurements are on the tracking server. With the reason
    `NOTE` the task has not ended, and the line is a message of it.
    """

    spec: Job
    reason: str
    error: str | None = None


NOTE = "note"

# Does a task and passes messages on. Pickle may carry it to another process or machine.
Work = Callable[[Task, Callable[[str], None]], Report]

# Failures after which a retry may succeed without help.
TRANSIENT = {"crashed", "lost", "tracking", "sensor_lost"}
# Failures that a retry on the same hardware repeats.
FINAL = {
    *("out_of_memory", "non_finite_loss", "not_deterministic", "compile_failed", "graph_failed"),
    "wrong_use",
}


class Engine(Protocol):
    """Does tasks, one in a process of its own on each slot.

    An engine only carries a `Work` to where it runs and its report back. It need not retry, queue
    or remember anything: the tracking server knows what is done.
    """

    @property
    def slots(self) -> int:
        """How many tasks may run at once, now."""

    def submit(self, task: Task) -> None:
        """Begin a task; there are never more than `slots` of them."""

    def poll(self, timeout_s: float) -> list[Report]:
        """The reports of tasks since the last call; waits for one to end until the time-out.

        A task whose process or machine vanished is reported as `lost`.
        """

    def stop(self) -> None:
        """Ask all tasks to end soon, leaving their runs KILLED; `poll` still reports them."""

    def close(self) -> None:
        """End all that still runs."""
