"""The engine of one machine: a process for each task, one at a time on each GPU or on the CPU."""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess, SpawnContext, SpawnProcess
from pathlib import Path

from pepr_mlops.processes import ends_at_once
from pepr_mlops.sweep.tasks import Report, Task, Work

_Process = SpawnProcess | ForkServerProcess

_PATIENCE_S = 60.0  # for a task to close its run once it was asked to end


class LocalEngine:
    """Runs `work` in a process for each task.

    `slots` are the environment variables of each place a task can run at, such as the GPU it
    sees. What a task prints goes to `logs/FINGERPRINT.log`. The processes are forked from one that
    has imported the modules `preload`, and begin from nothing where none are named. That one is
    of this whole process: the modules of the first engine are those of all.
    """

    def __init__(
        self,
        work: Work,
        slots: Sequence[Mapping[str, str]],
        logs: Path,
        preload: Sequence[str] = (),
    ) -> None:
        self._work, self._logs = work, logs
        self._context: SpawnContext | ForkServerContext
        if preload:
            self._context = multiprocessing.get_context("forkserver")
            self._context.set_forkserver_preload([*preload])
            multiprocessing.forkserver.ensure_running()  # it imports while the sweep is planned
        else:
            self._context = multiprocessing.get_context("spawn")
        self._free = [dict(slot) for slot in slots]
        self._all = len(self._free)
        self._running: dict[int, tuple[_Process, Connection, Task, dict[str, str]]] = {}

    @property
    def slots(self) -> int:
        return self._all

    def submit(self, task: Task) -> None:
        place = self._free.pop(0)
        ours, theirs = self._context.Pipe(duplex=False)
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{task.spec.fingerprint}.log"
        environment = {**os.environ, **place}
        process = self._context.Process(
            target=_child, args=(theirs, self._work, task, environment, str(log)), daemon=False
        )
        process.start()
        theirs.close()  # so that ours says when the other end is gone
        self._running[process.sentinel] = (process, ours, task, place)

    def poll(self, timeout_s: float) -> list[Report]:
        reports = []
        for sentinel in wait(list(self._running), timeout_s):
            assert isinstance(sentinel, int)
            process, ours, task, place = self._running.pop(sentinel)
            process.join()
            reports.append(_report(process, ours, task))
            ours.close()
            process.close()
            self._free.append(place)
        return reports

    def stop(self) -> None:
        for process, *_ in self._running.values():
            process.terminate()

    def close(self) -> None:
        self.stop()
        for process, ours, *_ in self._running.values():
            process.join(_PATIENCE_S)
            if process.exitcode is None:
                process.kill()
                process.join()
            ours.close()
        self._running.clear()


def _report(process: _Process, ours: Connection, task: Task) -> Report:
    try:
        if ours.poll():
            report = ours.recv()
            assert isinstance(report, Report)
            return report
    except EOFError:
        pass
    code = process.exitcode or 0
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
    return Report(task.spec, "lost", f"its process {how}")


def _child(
    theirs: Connection, work: Work, task: Task, environment: Mapping[str, str], log: str
) -> None:
    """What the new process does."""
    end = ends_at_once()
    os.environ.clear()  # a forked one has that of the process it is forked from
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the sweep too, which tells us
    with open(log, "a", buffering=1) as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
        theirs.send(work(task))
        end(0)
