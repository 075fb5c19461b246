"""Peak memory of a run."""

from __future__ import annotations

import contextlib
import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class Memory:
    """Peak memory since it was made: of a GPU as torch and the driver count it, and of the process.

    `device` None: the process only. GB are 1e9 bytes.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._cuda = device if device is not None and device.type == "cuda" else None
        self._device_used = 0
        _reset_peak_rss()
        if self._cuda is not None:
            import torch

            gc.collect()  # what an earlier run of this process left would count as this one's
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._cuda)

    def metrics(self) -> dict[str, float]:
        """The peaks so far, by the names of `schema.METRICS`."""
        found: dict[str, float] = {}
        peak = _peak_rss()
        if peak is not None:
            found["memory/rss_gb"] = peak / 1e9
        if self._cuda is not None:
            import torch

            free, total = torch.cuda.mem_get_info(self._cuda)
            self._device_used = max(self._device_used, total - free)
            found["memory/device_used_gb"] = self._device_used / 1e9
            reserved = torch.cuda.max_memory_reserved(self._cuda)
            if reserved > 0:  # or another framework does the work, and torch knows nothing of it
                found["memory/reserved_gb"] = reserved / 1e9
                found["memory/allocated_gb"] = torch.cuda.max_memory_allocated(self._cuda) / 1e9
        return found


def _reset_peak_rss() -> None:
    """Restart Linux's peak (proc(5), clear_refs), or else it covers the process from its start."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_rss() -> int | None:
    """Bytes of the largest resident set so far; None where the system does not tell."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux
    try:
        import resource
    except ImportError:
        return None  # Windows
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere
