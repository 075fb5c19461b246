"""A process: who it is, whether it is alive, what it may use, and how it begins and ends."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

_PATIENCE_S = 10.0  # of whoever asks a second time
_UNPRINTED = 120  # Python's own status where what was printed could not be written
_ends_at_once = False
_CGROUPS, _OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def this_process() -> str:
    """This process as `MACHINE PID START`; the start tells it from a later one of the same PID."""
    return f"{_machine()} {os.getpid()} {_started(os.getpid())}"


def allowed_cpus() -> float:
    """CPUs that this process may use at once.

    By its affinity, which taskset and Slurm set, and by the quota of its control groups, which
    containers have (Linux: cgroups(7), `cpu.max`, and `cpu.cfs_quota_us` of version 1).
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    quotas = [
        *(_share(text) for text in _cgroup("cpu", "cpu.max")),
        *(
            _share(f"{quota} {period}")
            for quota, period in zip(
                _cgroup("cpu", "cpu.cfs_quota_us"),
                _cgroup("cpu", "cpu.cfs_period_us"),
                strict=False,
            )
        ),
    ]
    return min([cpus, *quotas])


def allowed_memory() -> int:
    """Bytes of memory that this process may use: of the machine, or of its control groups."""
    limits = _cgroup("memory", "memory.max") + _cgroup("memory", "memory.limit_in_bytes")
    total: int = psutil.virtual_memory().total
    return min([total, *map(int, filter(str.isdecimal, limits))])


def _share(text: str) -> float:
    """CPUs by quota and period; no quota is `max`, or -1 in version 1."""
    match text.split():
        case [quota, period] if quota.isdecimal() and period.isdecimal() and int(period):
            return int(quota) / int(period)
    return float("inf")


def _cgroup(controller: str, name: str) -> list[str]:
    """What the control groups of this process set, from its own up to the root."""
    found = []
    with suppress(OSError):  # not Linux
        for line in _OWN_CGROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            base = _CGROUPS / controllers
            own = base / path.lstrip("/")
            for folder in (own, *own.parents):
                with suppress(OSError):
                    found.append((folder / name).read_text().strip())
                if folder == base:
                    break
    return found


def lives(process: str) -> bool | None:
    """Whether the process of `this_process` still runs; None for one of another machine."""
    machine, pid, started = [*process.split(), "", "", ""][:3]
    if machine != _machine() or not pid.isdecimal():
        return None
    try:
        ended = psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE
        return not ended and _started(int(pid)) == started
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return None


def _machine() -> str:
    """Host, boot and PID namespace, since containers may share the first two."""
    parts = [socket.gethostname().replace(" ", "-")]
    with suppress(OSError):  # not Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8])
        parts.append(os.readlink("/proc/self/ns/pid").strip("pid:[]"))
    return "/".join(parts)


def _started(pid: int) -> str:
    """When a process began: in ticks since boot where the kernel says, which no clock moves."""
    try:  # proc(5): the 22nd field; the second one, the name, may hold spaces and brackets
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return f"{psutil.Process(pid).create_time():.0f}"


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let a signal that asks this process to end wait until the block is through.

    One that comes when another has waited for seconds goes through: a block may hang. Python runs
    handlers in the main thread only, so elsewhere there is nothing to do.
    """
    before: dict[int, Any] = {}
    came: list[int] = []
    since: list[float] = []

    def wait(number: int, frame: FrameType | None) -> None:
        since.append(time.monotonic())
        soon = since[-1] - since[0] < _PATIENCE_S
        if not came or soon or not callable(before[number]):
            came.append(number)
        else:
            before[number](number, frame)

    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not None:
                before[number] = signal.getsignal(number)
    try:  # from here on: one may come between two of the calls
        for number in before:
            signal.signal(number, wait)
        yield
    finally:
        try:
            _handle(before)
        except BaseException:  # of one that came once its own handler was back
            _handle(before)
            raise
        for number in came:
            signal.raise_signal(number)


def _handle(handlers: Mapping[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


@contextmanager
def importing(*beside: Callable[[], object]) -> Iterator[None]:
    """Import large libraries in less time, and do `beside` in threads meanwhile.

    No garbage is looked for: modules stay, and looking through what they make again and again
    takes a fifth of the time. `beside` is for what leaves Python's lock alone and only prepares
    what is done later in any case: it imports nothing large, or two threads may wait for each
    other's imports, and its errors are left for later to be told.
    """
    with ThreadPoolExecutor(max(1, len(beside))) as threads:
        for prepare in beside:
            threads.submit(prepare)
        if not gc.isenabled():
            yield
            return
        gc.disable()
        try:
            yield
        finally:
            if _ends_at_once:  # elsewhere what others made may still become garbage
                gc.freeze()
            gc.enable()


def ends_at_once() -> Callable[[int], None]:
    """Let this process end without taking apart what it has loaded: seconds, with PyTorch.

    Call it before others register what is to be done at the end, which is done all the same. The
    process then ends with the status that the returned function was given last, and as usual where
    it was given none.
    """
    global _ends_at_once
    _ends_at_once = True
    told: list[int] = []

    def leave() -> None:
        if not told:
            return
        try:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:  # closed before this process began
                    stream.flush()
        except (OSError, ValueError) as error:  # a full disk, or closed since
            with suppress(OSError):
                os.write(2, f"{error}\n".encode())
            os._exit(_UNPRINTED)
        os._exit(told[-1])

    atexit.register(leave)
    return told.append
