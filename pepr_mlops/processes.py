"""Who a process is, so that others can tell whether it still lives."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

import psutil


def this_process() -> str:
    """This process as `MACHINE PID START`; the start tells it from a later one of the same PID."""
    return f"{_machine()} {os.getpid()} {_started(os.getpid())}"


def is_gone(process: str) -> bool:
    """Whether the process of `this_process` has ended; False for one of another machine."""
    machine, pid, started = [*process.split(), "", "", ""][:3]
    if machine != _machine() or not pid.isdecimal():
        return False
    try:
        ended = psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE
        return ended or _started(int(pid)) != started
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


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
