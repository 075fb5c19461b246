"""How much of this machine's CPUs other programs use during a run."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import psutil

from pepr_mlops.process import affinity

_SET_CHILD_SUBREAPER, _GET_CHILD_SUBREAPER = 36, 37  # of prctl(2)


class OtherLoad:
    """CPUs kept busy by programs other than this process and its descendants since it was made.

    Counted on the CPUs that this process may use, since others slow it down there, and on the full
    machine, since counters and estimates of a CPU cover its energy. Others are counted also while
    this process is stopped. `earlier` are the tags of an earlier attempt: of several attempts the
    busiest counts.

    Descendants are all processes started by this one or by a descendant, running or not, also
    orphans: Linux makes this process their parent (prctl(2), PR_SET_CHILD_SUBREAPER).
    """

    def __init__(self, earlier: Mapping[str, str] = {}) -> None:  # never changed
        self._adopted_before = _adopt_orphans(True)
        self._earlier = earlier
        self._allowed = _allowed()
        self._since = time.perf_counter()
        self._own = _own_s()
        self._busy, self._busy_here = _busy_s(None), _busy_s(self._allowed)

    def tags(self) -> dict[str, str]:
        """The CPUs that others kept busy on average, and how many CPUs were counted."""
        elapsed_s = time.perf_counter() - self._since
        own_s = _own_s() - self._own
        _adopt_orphans(self._adopted_before)
        busy = {
            "pepr.machine_cpu_others": _busy_s(None) - self._busy,
            "pepr.cpu_others": _busy_s(self._allowed) - self._busy_here,
        }
        others = {
            name: f"{max(float(self._earlier.get(name, 0)), (s - own_s) / elapsed_s):.2f}"
            for name, s in busy.items()
        }
        others["pepr.cpu_others_of"] = str(len(self._allowed or range(os.cpu_count() or 1)))
        return others


def _adopt_orphans(adopt: bool) -> bool:
    """Set whether this process adopts orphans, and return whether it did before."""
    before = ctypes.c_int(0)
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None).prctl
        prctl(_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0)
        prctl(_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0)
    return bool(before.value)


def _allowed() -> list[int] | None:
    """Indices, as `psutil` counts, of the CPUs that this process may use; None for all."""
    count = os.cpu_count() or 1
    allowed = sorted(affinity())
    known = len(psutil.cpu_times(percpu=True)) == count  # else some are switched off
    return allowed if known and 0 < len(allowed) < count and allowed[-1] < count else None


def _busy_s(cpus: Iterable[int] | None) -> float:
    """Seconds so far in which these CPUs, by default all, were busy, also with another virtual
    machine."""
    if cpus is None:
        return _busy(psutil.cpu_times())
    times = psutil.cpu_times(percpu=True)
    return sum(_busy(times[i]) for i in cpus)


def _busy(t: Any) -> float:
    idle = sum(getattr(t, n, 0.0) for n in ("idle", "iowait", "guest", "guest_nice"))
    return float(sum(t) - idle)


def _own_s() -> float:
    """CPU seconds of this process, its descendants, and theirs that have ended."""
    me = psutil.Process()
    total = 0.0
    for process in (me, *me.children(recursive=True)):
        with suppress(psutil.Error):  # it has ended: its parent has its seconds
            total += float(sum(process.cpu_times()[:4]))  # with those of children waited for
    return total
