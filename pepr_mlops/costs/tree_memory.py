"""Peak memory of a command with all its processes, and of the GPUs it may use."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from pepr_mlops.costs.gpus import driver

if TYPE_CHECKING:
    import torch

_FIRST_S, _EVERY_S = 0.05, 1.0  # between samples: a short command has some, too
_OVERHEAD = 0.02  # of the time, at most, for samples: one may take long with many processes


class TreeMemory:
    """Peak memory of the processes that this one starts after `restart`, and their descendants.

    Sampled about every second: the sum of what the processes use, where memory that several share
    counts once (on Linux the proportional set size of proc(5), elsewhere the unique set size), or
    the peak resident set of the largest process, whichever is more. Of GPUs it is what their driver
    reports as used, also by others.
    """

    def __init__(self, gpus: Sequence[torch.device] = ()) -> None:
        self._gpus = gpus
        self._peaks: dict[str, float] = {}
        self._before: set[int] = set()

    def restart(self) -> None:
        """Start again, without the processes that run already."""
        self._peaks = {}
        self._before = {child.pid for child in psutil.Process().children(recursive=True)}

    def processes(self) -> list[psutil.Process]:
        """Those that were started since `restart` and have not ended."""
        children = psutil.Process().children(recursive=True)
        return [child for child in children if child.pid not in self._before and _runs(child)]

    @contextmanager
    def sampled(self) -> Iterator[None]:
        """Sample while the block runs."""
        ended = threading.Event()
        sampler = threading.Thread(target=self._sample, args=(ended,), daemon=True)
        sampler.start()
        try:
            yield
        finally:
            ended.set()
            sampler.join()

    def metrics(self) -> dict[str, float]:
        """The peaks so far, by the names of `names.METRICS`, in GB of 1e9 bytes."""
        return {name: peak / 1e9 for name, peak in self._peaks.items()}

    def _sample(self, ended: threading.Event) -> None:
        wait_s = 0.0
        while not ended.wait(wait_s):
            began_s = time.monotonic()
            own = self.processes()
            if own:
                largest = max(map(_peak_resident, own))
                self._add("memory/rss_gb", max(sum(map(_used, own)), largest))
            of_gpus = [driver().memory_used(gpu) for gpu in self._gpus]
            known = [used for used in of_gpus if used is not None]
            if self._gpus and len(known) == len(of_gpus):
                self._add("memory/device_used_gb", sum(known))
            took_s = time.monotonic() - began_s
            wait_s = max(min(_EVERY_S, 2 * wait_s or _FIRST_S), took_s / _OVERHEAD)

    def _add(self, name: str, used: int) -> None:
        self._peaks[name] = max(self._peaks.get(name, 0), used)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _used(process: psutil.Process) -> int:
    """Bytes; 0 of a process that has ended, or of another user."""
    with suppress(psutil.Error):
        memory = process.memory_full_info()
        return int(getattr(memory, "pss", memory.uss))
    return 0


def _peak_resident(process: psutil.Process) -> int:
    """Bytes, of its present program: Linux counts a process's peak (`ru_maxrss`) from its parent's.

    0 where the system does not say.
    """
    with suppress(OSError):
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
