"""Which of several processes may run a job, decided from what their runs say. Pure.

A job is a `RunSpec`, known by its fingerprint. A run is one training of it; a training that is
interrupted and continued stays one run, one that begins again is another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

HEARTBEAT_S = 15.0
STALE_S = 300.0  # without a heartbeat for so long, a run on another machine counts as lost
REQUESTED, HELD = "wanted", "held"
LOST = "lost"  # reason of a run whose process vanished


@dataclass(frozen=True)
class Claim:
    """A run as other processes see it: MLflow's `status` and the tags of the same name.

    `heartbeat_s` is seconds since 1970, or None before the first.
    """

    run_id: str
    status: str
    claim: str | None = None
    process: str | None = None
    heartbeat_s: float | None = None

    def is_alive(self, now_s: float, stale_s: float, alive: Callable[[str], bool | None]) -> bool:
        """Whether a process still works on it, as far as one can know from here.

        `alive` knows the processes of this machine, where a heartbeat may be missing only because
        the server is away, and returns None for others: these count as ended after `stale_s`
        without a heartbeat. A run that never had one was not logged by us and counts as alive.
        """
        if self.status != "RUNNING":
            return False
        known = None if self.process is None else alive(self.process)
        if known is not None:
            return known
        return self.heartbeat_s is None or now_s - self.heartbeat_s < stale_s


def verdict(own: str, others: Sequence[Claim]) -> str:
    """Whether the run `own`, which claims its job, may have it: `held`, `wait` or `claimed`.

    `others` are the finished runs of the job and those alive, read after `own` was written. Of
    two that request it the smaller id goes first, and the other leaves at once. The first waits
    until the other has left or holds the job: a run that read before `own` was there saw no rival
    and holds it now (L. Lamport, "A New Solution of Dijkstra's Concurrent Programming Problem",
    CACM 1974).
    """
    others = [other for other in others if other.run_id != own]
    if any(o.status == "FINISHED" or o.claim != REQUESTED or o.run_id < own for o in others):
        return "claimed"
    return "wait" if others else HELD
