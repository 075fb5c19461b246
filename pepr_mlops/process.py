"""Processes: their identity, whether they are alive, what they may use, how they begin and end.

What systems other than Linux lack is known here: fork, some signals, control groups.
"""

from __future__ import annotations

import _thread
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

# Elsewhere (Windows) processes are spawned, and a signal to another process ends it at once.
CAN_FORK, CAN_SIGNAL = hasattr(os, "fork"), hasattr(signal, "SIGUSR1")
_PATIENCE_S = 10.0  # after which a second signal goes through
_UNPRINTED = 120  # Python's own exit status if its output could not be written
_ends_at_once = False
_CGROUPS, _OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def this_process() -> str:
    """This process as `MACHINE PID START`; a later one of the same PID has another start.

    In a Slurm job `JOB.RESTARTS` follows, the job and how often Slurm has started it again.
    """
    process = f"{_machine()} {os.getpid()} {_started(os.getpid())}"
    job = slurm_job()
    return process if job is None else f"{process} {job}.{_restarts()}"


def slurm_job() -> str | None:
    """The Slurm job that this process belongs to, as `squeue` names it: `123`, or `120_4` for a
    task of an array.

    None where there is none, and in the shell of `salloc` on a login node: that has the variables
    of a job, but it is not on one of the job's nodes.
    """
    if slurm_node() is None:
        return None
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    return f"{array}_{task}" if array and task else os.environ["SLURM_JOB_ID"]


def slurm_node() -> str | None:
    """The node of a Slurm job on which this process runs, by Slurm's name for it."""
    return os.environ.get("SLURMD_NODENAME") if os.environ.get("SLURM_JOB_ID") else None


def srun_task() -> tuple[int, int]:
    """The number of this task of `srun`, from 0, and how many there are; (0, 1) without `srun`.

    A batch script that asks for several tasks is one process all the same.
    """
    tasks = _slurm_number("SLURM_STEP_NUM_TASKS")
    return (0, 1) if tasks is None else (_slurm_number("SLURM_PROCID") or 0, tasks)


def node_share() -> tuple[int, int] | None:
    """CPUs that Slurm gave the job on this node, and the node's, where others may have the rest."""
    given, cpus = _slurm_number("SLURM_CPUS_ON_NODE"), os.cpu_count() or 1
    return None if given is None or given >= cpus else (given, cpus)


def slurm_cpus() -> int | None:
    """CPUs that Slurm gave this process, which not every cluster enforces; None if unknown.

    Those of each task, or else those of the job on this node (sbatch(1), OUTPUT ENVIRONMENT
    VARIABLES).
    """
    return _slurm_number("SLURM_CPUS_PER_TASK") or _slurm_number("SLURM_CPUS_ON_NODE")


def slurm_gpus() -> str | None:
    """The GPUs that Slurm gave this step or job, by its numbers, such as `1,2`; None if unknown."""
    return os.environ.get("SLURM_STEP_GPUS") or os.environ.get("SLURM_JOB_GPUS")


def _slurm_memory() -> int | None:
    """Bytes of memory that Slurm gave the job on this node; it counts in MiB, and 0 means all."""
    for name, of in (("NODE", None), ("CPU", "CPUS"), ("GPU", "GPUS")):
        each = _slurm_number(f"SLURM_MEM_PER_{name}")
        n = 1 if of is None else _slurm_number(f"SLURM_{of}_ON_NODE")
        if each is not None and n is not None:
            return each * n << 20
    return None


def _slurm_number(name: str) -> int | None:
    """A positive number among the variables of a Slurm job."""
    text = os.environ.get(name, "") if slurm_node() else ""
    return int(text) or None if text.isdecimal() else None


def _restarts() -> int:
    return _slurm_number("SLURM_RESTART_COUNT") or 0


def allowed_cpus() -> float:
    """CPUs that this process may use at once.

    Limits are its affinity, which taskset and Slurm set, the quota of its control groups, which
    containers set (Linux: cgroups(7), `cpu.max`, and `cpu.cfs_quota_us` of version 1), and what
    Slurm gave.
    """
    version_1 = (_cgroup("cpu", f"cpu.cfs_{part}_us") for part in ("quota", "period"))
    quotas = [*_cgroup("cpu", "cpu.max"), *map(" ".join, zip(*version_1, strict=False))]
    return min([len(affinity()), *map(_share, quotas), slurm_cpus() or float("inf")])


def affinity() -> list[int]:
    """Indices of the CPUs on which this process may run; all of them where it cannot be bound."""
    process = psutil.Process()
    if not hasattr(process, "cpu_affinity"):  # macOS
        return list(range(os.cpu_count() or 1))
    return list(process.cpu_affinity())


def allowed_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or less by its control groups or by
    what Slurm gave."""
    limits = _cgroup("memory", "memory.max") + _cgroup("memory", "memory.limit_in_bytes")
    total: int = psutil.virtual_memory().total
    return min([total, *map(int, filter(str.isdecimal, limits)), _slurm_memory() or total])


def _share(text: str) -> float:
    """CPUs by quota and period; no quota is `max`, or -1 in version 1."""
    match text.split():
        case [quota, period] if quota.isdecimal() and period.isdecimal() and int(period):
            return int(quota) / int(period)
    return float("inf")


def _cgroup(controller: str, name: str) -> list[str]:
    """A setting of the control groups of this process, from its own up to the root."""
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


def is_alive(process: str) -> bool | None:
    """Whether a process, named as by `this_process`, runs; None for one on another machine.

    Slurm starts a job again only after its former start has ended, on whatever node that was.
    """
    machine, pid, started, start = [*process.split(), "", "", "", ""][:4]
    job, _, restarts = start.rpartition(".")
    if job == slurm_job() and restarts.isdecimal() and int(restarts) < _restarts():
        return False
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
    """Host, node of Slurm, boot and PID namespace.

    Containers may share host and boot, and one host may serve as several nodes.
    """
    parts = [socket.gethostname().replace(" ", "-")]
    if node := slurm_node():
        parts.append(node)
    with suppress(OSError):  # not Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8])
        parts.append(os.readlink("/proc/self/ns/pid").strip("pid:[]"))
    return "/".join(parts)


def _started(pid: int) -> str:
    """When a process began: on Linux in ticks since boot, which setting a clock does not change."""
    try:  # proc(5): the 22nd field; the second one, the name, may hold spaces and brackets
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return f"{psutil.Process(pid).create_time():.0f}"


def signals(*names: str) -> list[signal.Signals]:
    """Those of these signals that this system has."""
    return [signal.Signals[name] for name in names if hasattr(signal, name)]


def interrupt(number: signal.Signals) -> None:
    """Let the main thread of this process handle a signal, whatever thread calls."""
    if CAN_SIGNAL:
        os.kill(os.getpid(), number)  # which also ends a wait of the main thread
    else:
        _thread.interrupt_main(number)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Delay signals that end this process until the block is done.

    A second signal after 10 s goes through, since a block may hang. Python runs handlers in the
    main thread only, so other threads are never interrupted.
    """
    before: dict[int, Any] = {}
    delayed: list[int] = []
    times_s: list[float] = []

    def delay(number: int, frame: FrameType | None) -> None:
        times_s.append(time.monotonic())
        soon = times_s[-1] - times_s[0] < _PATIENCE_S
        if not delayed or soon or not callable(before[number]):
            delayed.append(number)
        else:
            before[number](number, frame)

    if threading.current_thread() is threading.main_thread():
        for end in signals("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):
            handler = signal.getsignal(end)
            # A user's signal may have a handler that Python does not know, as of `faulthandler`.
            known = callable(handler) or not end.name.startswith("SIGUSR")
            if handler is not None and known:
                before[end] = handler
    try:  # a signal may come between two of the calls
        _handle(dict.fromkeys(before, delay))
        yield
    finally:
        try:
            _handle(before)
        except BaseException:  # of a signal whose own handler was back already
            _handle(before)
            raise
        for number in delayed:
            signal.raise_signal(number)


def _handle(handlers: Mapping[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


@contextmanager
def importing(*preparations: Callable[[], object]) -> Iterator[None]:
    """Import large libraries in less time, and run `preparations` in threads.

    Garbage is not collected: modules stay, and searching their objects again and again takes a
    fifth of the time. A preparation must release Python's lock and import nothing large, since two
    threads may wait for each other's imports. It does early what is done later in any case: its
    errors are ignored.
    """
    with ThreadPoolExecutor(max(1, len(preparations))) as threads:
        for prepare in preparations:
            threads.submit(prepare)
        if not gc.isenabled():
            yield
            return
        gc.disable()
        try:
            yield
        finally:
            if _ends_at_once:  # elsewhere objects of others may still become garbage
                gc.freeze()
            gc.enable()


def ends_at_once() -> Callable[[int], None]:
    """Let this process end without unloading its modules, which takes seconds with PyTorch.

    Call it before others register exit handlers, which still run. The process then ends with the
    last status that was given to the returned function, and as usual if none was given.
    """
    global _ends_at_once
    _ends_at_once = True
    statuses: list[int] = []

    def leave() -> None:
        if not statuses:
            return
        try:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:  # closed before this process began
                    stream.flush()
        except (OSError, ValueError) as error:  # a full disk, or closed since
            with suppress(OSError):
                os.write(2, f"{error}\n".encode())
            os._exit(_UNPRINTED)
        os._exit(statuses[-1])

    atexit.register(leave)
    return statuses.append
