"""Measures a command in any language or framework as `pepr train` measures its jobs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from pepr_mlops.costs.device import named
from pepr_mlops.costs.recorder import Recorder
from pepr_mlops.costs.totals import cautions
from pepr_mlops.costs.tree_memory import TreeMemory
from pepr_mlops.costs.visible_devices import VisibleDevices
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.names import PERFORMANCE
from pepr_mlops.spec import RunSpec
from pepr_mlops.train.own_loop import measured_run
from pepr_mlops.train.own_performance import Source

_ENDING = ("SIGINT", "SIGTERM", "SIGHUP")  # a run whose command got one of them is KILLED
_LEFT_ALONE = (signal.SIG_IGN, None)  # None is a handler that Python cannot put back
_HELPERS_S = 1.0  # for those that end after their parent, as Python's resource tracker does
_OTHERS = ("SIGUSR1", "SIGUSR2", "SIGQUIT", "SIGCONT")


@dataclass(frozen=True)
class Outcome:
    """A command that was measured.

    `status` is its exit status, 128 + N where signal N ended it. `killed` says whether a signal to
    this process was to end it. `metrics` are its costs and P, by
    the names of `names.METRICS`, `energy_source` how the energy is known. `problem` says why its P
    is not known though it was to be read, `cautions` what disturbed the measurement.
    """

    run_id: str
    status: int
    killed: bool
    metrics: Mapping[str, float]
    energy_source: str
    problem: str | None
    cautions: Sequence[str]


def measure_command(
    command: Sequence[str],
    experiment: str,
    spec: RunSpec,
    *,
    model: str,
    params: Mapping[str, str],
    source: Source,
    performance: str = PERFORMANCE,
    data: Path | None = None,
    tracking_uri: str | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Run a command and log what it cost as a run of `experiment`.

    The command has this process's input, output, terminal and environment, and the signals that
    this process gets. Its processes and their descendants count, also those that outlive their
    parents. What counts of a machine is all that `spec` (energy, country, carbon_intensity, pue)
    and `VisibleDevices` say. `params` are parameters of the run, `performance` names what P is, and
    `data` is the file or folder of the data set, which its content identifies. The run is FINISHED,
    FAILED where the command's status is not 0, and KILLED where a signal to this process was to end
    it; what was measured is logged in any case.

    Raises `WrongUse` for a command that is not there and as `Recorder.open`, and `WorkFailed` where
    the tracking server does not answer, before the command begins.
    """
    from pepr_mlops import tracking
    from pepr_mlops.data.digest import of_tree

    started = time.perf_counter()
    if shutil.which(command[0]) is None:
        raise WrongUse(f"command: {command[0]} is not a program that can be run here")
    environment = dict(os.environ)  # which is changed for MLflow while the run is logged
    recorder = Recorder.open(spec, VisibleDevices.find())
    if recorder.unknown_energy is not None:
        note(recorder.unknown_energy)
    memory = recorder.memory
    assert isinstance(memory, TreeMemory)
    known = {} if data is None else {"pepr.data_digest": of_tree(data)}
    tags = {**known, **recorder.opening_tags(experiment, performance)}
    if "threads" in params:
        tags["pepr.threads"] = params["threads"]
    status, ended_by, problem, run_id = 0, None, None, ""
    p: float | None = None
    left: dict[str, str] = {}
    try:
        with tracking.start(None, experiment, model, tracking_uri, note=note) as run:
            run_id = run.run_id
            own = {**params, "model": model}
            with measured_run(run, recorder, own, tags, spec.energy, started) as code:
                source.begin()
                with source.copied() as streams:
                    options = {**streams, "env": environment}
                    status, ended_by = _run(command, options, memory, recorder)
                _raise_unless_done(status, ended_by)
                left = _left_running(memory)
                try:
                    p = source.value()
                except WrongUse as error:
                    problem = str(error)
                if p is not None:
                    code.epoch(p, {performance: p})
            tags |= recorder.closing_tags()
            run.tag(tags | left)
    except (_Failed, _Stopped):
        pass  # the run says it
    metrics = recorder.metrics() | ({} if p is None else {PERFORMANCE: p})
    texts = [*cautions(tags), *left.values()]
    killed = ended_by is not None
    return Outcome(run_id, status, killed, metrics, recorder.source, problem, texts)


def _left_running(memory: TreeMemory) -> dict[str, str]:
    """A tag that names the processes that outlive the command, if any does."""
    _, on = psutil.wait_procs(memory.processes(), _HELPERS_S)
    left = sorted(named(process.pid for process in on))
    if not left:
        return {}
    text = f"{len(left)} of its processes ran on after the command had ended ({', '.join(left)}): "
    return {"pepr.left_running": f"{text}what they use is not counted"}


class _Failed(WorkFailed):
    """The command's status is not 0."""


class _Stopped(SystemExit):
    """A signal to this process was to end the command, so that its run is KILLED."""


def _raise_unless_done(status: int, ended_by: int | None) -> None:
    if ended_by is not None:
        raise _Stopped(128 + ended_by)
    if status > 128 and status - 128 in set(signal.Signals):
        name = signal.Signals(status - 128).name
        raise _Failed(f"command: it was killed by {name}", reason="crashed")
    if status != 0:
        raise _Failed(f"command: it ended with exit status {status}", reason="crashed")


def _run(
    command: Sequence[str], options: Mapping[str, Any], memory: TreeMemory, recorder: Recorder
) -> tuple[int, int | None]:
    """Run it; its exit status, and the signal to this process that was to end it.

    Its processes are sampled once it is a program of its own: before, it shares the memory of this
    process. What follows its end does not count.
    """
    with _Forwarding() as signals:
        try:
            child = subprocess.Popen(command, **options)
        except OSError as error:
            raise WrongUse(
                f"command: {command[0]} cannot be run ({error.strerror}); a script needs a first "
                "line such as #!/bin/sh, or its interpreter before it"
            ) from error
        signals.give(child)
        with memory.sampled():
            status = child.wait()
            recorder.end_window("epoch 1")
    ended_by = next((n for n in signals.received if signal.Signals(n).name in _ENDING), None)
    return (128 - status if status < 0 else status), ended_by


class _Forwarding:
    """Inside, signals to this process are listed, and go to a child as soon as there is one."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self._early: list[int] = []
        self._child: subprocess.Popen[bytes] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Forwarding:
        if threading.current_thread() is threading.main_thread():
            for name in (*_ENDING, *_OTHERS):
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) not in _LEFT_ALONE:
                    self._before[number] = signal.signal(number, self._forward)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def give(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        while self._early:
            child.send_signal(self._early.pop(0))

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)
        if self._child is None:
            self._early.append(number)
        elif number != signal.SIGINT or not _in_foreground():  # else the terminal sent it to both
            self._child.send_signal(number)  # does nothing to one that has ended


def _in_foreground() -> bool:
    """Whether a terminal sends its signals to this process and those that it started."""
    if not hasattr(os, "tcgetpgrp"):
        return True  # Windows: a console sends them to all its processes
    with suppress(OSError), open("/dev/tty") as terminal:
        return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    return False
