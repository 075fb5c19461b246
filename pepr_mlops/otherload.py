"""How much of this machine's CPUs other processes take meanwhile."""

from __future__ import annotations

import time

import psutil

CPU_OTHERS = "pepr.cpu_others"


class OtherLoad:
    """What others than this process took of all CPUs since it was made, or `before` if more.

    Estimates of a CPU's energy, and its counters, are of the whole machine, and a training that
    shares its CPUs takes longer.
    """

    def __init__(self, before: str = "0") -> None:
        self._before = float(before)
        self._since = time.perf_counter()
        self._busy, self._own = _busy_s(), _own_s()

    def tags(self) -> dict[str, str]:
        """The CPUs that others kept busy on average."""
        elapsed = time.perf_counter() - self._since
        others = (_busy_s() - self._busy) - (_own_s() - self._own)
        return {CPU_OTHERS: f"{max(self._before, others / elapsed):.2f}"}


def _busy_s() -> float:
    """CPU seconds of the machine so far in which something ran, or another virtual machine did."""
    t = psutil.cpu_times()
    return float(
        sum(t) - t.idle - sum(getattr(t, n, 0.0) for n in ("iowait", "guest", "guest_nice"))
    )


def _own_s() -> float:
    return float(sum(psutil.Process().cpu_times()[:4]))  # user and system, children's too
