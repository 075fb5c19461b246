"""The time of a window, without the time in which this process was stopped or its machine slept.

A process does not notice that it is stopped (Ctrl-Z, `docker pause`, a scheduler that gives its
machine to others for a while): the clock and the energy counters run on. A thread that wakes four
times a second wakes late then. It also does when it waits for Python's lock or for a CPU, but the
system counts those waits: a thread wakes every few milliseconds to try for the lock
(`sys.getswitchinterval`), and `schedstat` has the time it waited for a CPU (proc(5)). When the
machine sleeps the monotonic clock stops, but not the boot clock.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pepr_mlops.process import uninterrupted

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_TICK_S = 0.25
_LEAST_S = 1.0  # shorter stops look like a busy machine
# Intervals between two tries for the lock: one, and a tenth to a quarter for waking.
_TRY, _SLOWEST_TRY = 1.1, 1.25
_SCHEDULED = Path("/proc/thread-self/schedstat")

Clock = Callable[[], float]


def boot_s() -> float:
    """Seconds of the clock that runs on while the machine sleeps, or else of the monotonic one."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    if clock is None and sys.platform == "darwin":
        clock = time.CLOCK_MONOTONIC  # which Python's monotonic clock is not on a Mac
    return time.perf_counter() if clock is None else time.clock_gettime(clock)


class Stopwatch:
    """Runs from when it is made until `stop`. The clocks are those of the system."""

    def __init__(self, clock: Clock = time.perf_counter, boot: Clock = boot_s) -> None:
        self._clock, self._boot = clock, boot
        self._began_boot = boot() - clock()
        self._began = self._ticked = clock()
        self._stopped_s = 0.0
        self._ticks = 0
        self._ended = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="pepr stopwatch", daemon=True)
        with uninterrupted():
            self._thread.start()

    def elapsed_s(self) -> float:
        """Seconds so far, without those in which this process was stopped or the machine slept."""
        now = self._clock()
        if now - self._ticked <= _LEAST_S:  # the thread adds a stop before it sets its tick
            return now - self._began - self._stopped_s
        with uninterrupted(), self._change:  # a signal could leave the lock held
            if self._clock() - self._ticked > _LEAST_S and not self._ended:
                seen = self._ticks  # it may just have been resumed: let the thread tick first
                self._change.notify_all()
                self._change.wait_for(lambda: self._ticks > seen, _LEAST_S)
            return self._clock() - self._began - self._stopped_s

    def stop(self) -> tuple[float, float]:
        """End it: `elapsed_s`, and the seconds of stops and sleep that it leaves out."""
        elapsed_s = self.elapsed_s()
        with uninterrupted():
            with self._change:
                self._ended = True
                self._change.notify_all()
            self._thread.join()
        slept_s = self._boot() - self._clock() - self._began_boot
        return elapsed_s, self._stopped_s + (slept_s if slept_s >= _LEAST_S else 0.0)

    def _run(self) -> None:
        before = _Use.now()
        with self._change:
            while not self._ended:
                self._change.wait(_TICK_S)
                now, use = self._clock(), _Use.now()
                self._stopped_s += stopped_s(now - self._ticked, before, use)
                self._ticked, before = now, use
                self._ticks += 1
                self._change.notify_all()


class _Use(NamedTuple):
    """How often this thread has waited so far, how long for a CPU, and the CPU time of the process.
    `waits` is None where the system does not count them."""

    waits: int | None
    queued_s: float
    cpu_s: float

    @classmethod
    def now(cls) -> _Use:
        who = getattr(resource, "RUSAGE_THREAD", None)
        waits = None if who is None else resource.getrusage(who).ru_nvcsw
        queued_s = 0.0
        with suppress(OSError, ValueError, IndexError):
            queued_s = int(_SCHEDULED.read_text().split()[1]) / 1e9
        return cls(waits, queued_s, time.process_time())


def stopped_s(tick_s: float, before: _Use, after: _Use) -> float:
    """Seconds of a stop in a tick that took `tick_s`; 0 where it was late for another reason.

    A stop began in the middle of a tick, on average.
    """
    late_s = tick_s - _TICK_S - (after.queued_s - before.queued_s)
    cpu_s = after.cpu_s - before.cpu_s
    # A tick is itself a wait: if none was counted, the system counts none.
    if before.waits is None or after.waits is None or before.waits == after.waits:
        ran_s = cpu_s
    else:
        ran_s = (after.waits - before.waits) * sys.getswitchinterval()
    if late_s - _SLOWEST_TRY * ran_s < _LEAST_S:
        return 0.0
    most_s = tick_s - cpu_s / (os.cpu_count() or 1)
    return max(0.0, min(late_s - _TRY * ran_s + _TICK_S / 2, most_s))
