"""The engine of one machine: a process for each task, one at a time on each GPU or on the CPU."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING

from pepr_mlops.process import (
    CAN_FORK,
    CAN_SIGNAL,
    ends_at_once,
    interrupt,
    is_alive,
    uninterrupted,
)
from pepr_mlops.sweep.engine import NOTE, Report, Task, Work

if TYPE_CHECKING:  # not all systems have a fork server
    from multiprocessing.context import (
        ForkServerContext,
        ForkServerProcess,
        SpawnContext,
        SpawnProcess,
    )

    _Process = SpawnProcess | ForkServerProcess

_PATIENCE_S = 60.0  # for a task to close its run after the signal to end


class LocalEngine:
    """Runs `work` in a process for each task.

    `slots` are the environment variables of each slot, such as the GPU it sees. The output of a
    task goes to `logs/FINGERPRINT.log`. The processes are forked from one that has imported the
    modules `preload`. They are spawned if no modules are named, if importing them fails, if an
    earlier engine of this process named other modules, since there is only one fork server, and
    where the system has no fork.
    """

    is_alive = staticmethod(is_alive)

    def __init__(
        self,
        work: Work,
        slots: Sequence[Mapping[str, str]],
        logs: Path,
        preload: Sequence[str] = (),
    ) -> None:
        self._work, self._logs, self._preload = work, logs, tuple(preload)
        self._context: SpawnContext | ForkServerContext | None = None
        self._forking = _fork_server(self._preload) if preload and CAN_FORK else None
        self._free = [dict(slot) for slot in slots]
        self.slots = len(self._free)
        self._running: dict[int, tuple[_Process, Connection, Task, dict[str, str]]] = {}

    def submit(self, task: Task) -> None:
        if self._context is None:
            if self._forking is not None and _has_loaded(self._forking, self._preload):
                self._context = self._forking
            else:
                self._context = multiprocessing.get_context("spawn")
        slot = self._free.pop(0)
        ours, theirs = self._context.Pipe(duplex=not CAN_SIGNAL)
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{task.spec.fingerprint}.log"
        environment = {**os.environ, **slot}
        process = self._context.Process(
            target=_child, args=(theirs, self._work, task, environment, str(log)), daemon=False
        )
        with uninterrupted(), _imports_as_here():  # or a task would run unknown to the engine
            process.start()
            self._running[process.sentinel] = (process, ours, task, slot)
        theirs.close()  # so that ours notices when the other end is gone

    def poll(self, timeout_s: float) -> list[Report]:
        reports = []
        gone = wait(list(self._running), timeout_s)
        for sentinel, (process, ours, task, slot) in list(self._running.items()):
            received = _received(ours)
            reports += received
            ended = any(report.reason != NOTE for report in received)  # its process ends soon
            if not ended and sentinel not in gone:
                continue
            _end(process)
            if not ended:
                reports.append(_lost(process, task))
            del self._running[sentinel]
            ours.close()
            process.close()
            self._free.append(slot)
        return reports

    def stop(self, number: int = signal.SIGTERM) -> None:
        for process, ours, *_ in self._running.values():
            if process.pid is None or not process.is_alive():
                continue
            if CAN_SIGNAL:
                os.kill(process.pid, number)
            else:
                with suppress(OSError):  # it has just ended
                    ours.send(number)

    def close(self) -> None:
        self.stop()
        for process, ours, *_ in self._running.values():
            _end(process)
            ours.close()
        self._running.clear()


def _end(process: _Process) -> None:
    """Wait for a process that is about to end, and kill it if it hangs."""
    process.join(_PATIENCE_S)
    if process.exitcode is None:
        process.kill()
        process.join()


_served: tuple[str, ...] | None = None  # what the fork server of this process imports


def _fork_server(preload: tuple[str, ...]) -> ForkServerContext | None:
    """The fork server, which starts to import; None where it has imported other modules."""
    global _served
    _served = _served or preload
    if _served != preload:
        return None
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*preload])
    here = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if here else None  # it inherits that
    try:
        with _imports_as_here():
            forkserver.ensure_running()
    finally:
        if here:
            signal.signal(signal.SIGINT, before)
    return context


@contextmanager
def _imports_as_here() -> Iterator[None]:
    """Let a fork server that starts now find modules where this process finds them, and not in the
    working folder. Python 3.11 does so for its children only."""
    theirs = {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    before = {name: os.environ.get(name) for name in theirs}
    os.environ.update(theirs)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _has_loaded(context: ForkServerContext, preload: tuple[str, ...]) -> bool:
    """Wait until the fork server has imported, and return whether that succeeded.

    A separate process checks it, which may be left behind when a signal ends the waiting.
    """
    check = context.Process(target=_check_loaded, args=(preload,))
    try:
        check.start()
        check.join()
    except (EOFError, OSError):  # the fork server has ended, and printed why
        return False
    return check.exitcode == 0


def _check_loaded(preload: tuple[str, ...]) -> None:
    sys.exit(0 if {*preload} <= {*sys.modules} else 1)


def _received(ours: Connection) -> list[Report]:
    """The reports of a process since the last call."""
    reports: list[Report] = []
    with suppress(EOFError):  # it has ended
        while ours.poll():
            reports.append(ours.recv())
    return reports


def _obey(theirs: Connection) -> None:
    """Handle the signals that the engine sends as messages; in a thread of the new process."""
    with suppress(EOFError, OSError):  # the engine has ended
        while True:
            interrupt(theirs.recv())


def _lost(process: _Process, task: Task) -> Report:
    """The report on a process that ended without one."""
    code = process.exitcode or 0
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
    return Report(task.spec, "lost", f"its process {how}")


def _child(
    theirs: Connection, work: Work, task: Task, environment: Mapping[str, str], log: str
) -> None:
    """The main function of the new process."""
    end = ends_at_once()
    os.environ.clear()  # a forked process has that of the fork server
    os.environ.update(environment)
    # Ctrl-C reaches the sweep too, which stops its tasks.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not CAN_SIGNAL:
        threading.Thread(target=_obey, args=(theirs,), daemon=True).start()
    with open(log, "a", buffering=1, encoding="utf-8", errors="replace") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
        sending = threading.Lock()  # a thread of the work may send too

        def send(report: Report) -> None:
            with sending:
                theirs.send(report)

        send(work(task, lambda line: send(Report(task.spec, NOTE, line))))
        end(0)
