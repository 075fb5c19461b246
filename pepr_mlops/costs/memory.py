"""Peak memory of a run."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import mmap
import platform
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import psutil
from numpy.lib.stride_tricks import as_strided

if TYPE_CHECKING:
    import torch

_PAGES = Path("/proc/self/pagemap")
_MAPPED = 63  # the bit of a page's entry there which says that this process has it mapped
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
_TOP_PAD = 64 << 20


def keep_freed() -> None:
    """Let this process keep the memory that it frees, for its next tensors.

    glibc gives every large tensor back to the system, which has to clear the pages of the next
    one: a tenth to a third of a training step on a CPU. `Memory.restart` gives free memory back.
    Other C libraries are left as they are.
    """
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)
        libc.mallopt(_M_TOP_PAD, _TOP_PAD)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def can_list_pages() -> bool:
    """Whether the system lists the pages that this process has mapped, as Linux does."""
    try:
        return bool(file_pages())  # some sandboxes have the file and nothing in it
    except OSError:
        return False


def file_pages() -> list[tuple[int, int]]:
    """Address and bytes of the parts of files, libraries above all, that this process has mapped.

    See proc(5), `/proc/pid/maps` and `/proc/pid/pagemap`. Raises `OSError` unless `can_list_pages`.
    """
    found = []
    with open("/proc/self/maps") as maps, _PAGES.open("rb", buffering=0) as pages:
        for line in maps:
            span, mode, _, _, inode, *path = line.split(maxsplit=5)
            if inode == "0" or not mode.startswith("r") or "".join(path).startswith("/dev/"):
                continue
            start, end = (int(address, 16) for address in span.split("-"))
            pages.seek(start // mmap.PAGESIZE * 8)
            entries = np.frombuffer(pages.read((end - start) // mmap.PAGESIZE * 8), np.uint64)
            mapped = (entries >> np.uint64(_MAPPED)).astype(np.int8)
            edges = np.flatnonzero(np.diff(mapped, prepend=0, append=0)) * mmap.PAGESIZE
            found += [(start + int(a), int(b - a)) for a, b in edges.reshape(-1, 2)]
    return found


def map_file_pages(spans: Iterable[tuple[int, int]]) -> None:
    """Map what `file_pages` found in the process that this one was forked from.

    A fork inherits the pages that its parent has written, but maps the files that its parent has
    read only when it reads them itself. Without this, its resident set would lack libraries that
    are loaded and not used again.
    """
    for start, size in spans:
        first_byte = np.frombuffer(memoryview(ctypes.c_ubyte.from_address(start)), np.uint8)
        shape, strides = (size // mmap.PAGESIZE,), (mmap.PAGESIZE,)
        as_strided(first_byte, shape, strides).max()  # reads a byte of each page


class PeakMemory(Protocol):
    """Peak memory since `restart`, by the names of `names.METRICS`."""

    def restart(self) -> None: ...

    def metrics(self) -> dict[str, float]: ...


class Memory:
    """Peak memory since `restart`: of a GPU as torch and the driver count it, and of the process.

    GB are 1e9 bytes.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device if device.type == "cuda" else None
        self.restart()

    def restart(self) -> None:
        """Start again: what this process did before, and the memory it freed, do not count."""
        self._device_used = 0
        gc.collect()
        libc = _glibc()
        if libc is not None:
            libc.malloc_trim(0)
        with contextlib.suppress(OSError):  # restarts Linux's peak, else it is of the full process
            Path("/proc/self/clear_refs").write_text("5")  # proc(5)
        if self._cuda is not None:
            import torch

            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._cuda)

    def metrics(self) -> dict[str, float]:
        """The peaks so far, by the names of `names.METRICS`."""
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
            if reserved > 0:  # 0 where another framework does the work
                found["memory/reserved_gb"] = reserved / 1e9
                found["memory/allocated_gb"] = torch.cuda.max_memory_allocated(self._cuda) / 1e9
        return found


def _peak_rss() -> int | None:
    """Bytes of the largest resident set so far; None where the system does not report it."""
    with contextlib.suppress(OSError):  # not Linux
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        peak: int | None = getattr(psutil.Process().memory_info(), "peak_wset", None)  # of Windows
        return peak
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere
