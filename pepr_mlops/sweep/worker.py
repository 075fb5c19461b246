"""A task of a sweep, in a process of its own: waits for its device, trains, and reports."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

import psutil
from filelock import lock_descriptor

from pepr_mlops.errors import PeprError, TimeLimit, WorkFailed, one_line, trace
from pepr_mlops.process import (
    importing,
    interrupt,
    is_alive,
    signals,
    slurm_job,
    slurm_node,
    this_process,
)
from pepr_mlops.sweep.engine import Report, Task
from pepr_mlops.text import printable
from pepr_mlops.tracking.ownership import STALE_S
from pepr_mlops.train.progress import Printed, seconds_text

if TYPE_CHECKING:
    from pepr_mlops.costs.device import Device
    from pepr_mlops.spec import RunSpec

_POLL_EVERY_S = 2.0
# Notes about the tracking server, this disk and the sensors of the device.
_SHARED = ("tracking:", "journal:", "energy of ")
_COOLING_S = 1800.0  # a device that is still warm then stays warm


class _Forwarded(Printed):
    """Prints to the job's log, and forwards to the sweep the notes that concern other jobs too."""

    def __init__(self, spec: RunSpec, source: str, say: Callable[[str], None]) -> None:
        super().__init__(spec, source)
        self._say = say

    def note(self, text: str) -> None:
        super().note(text)
        if text.startswith(_SHARED):
            self._say(printable(text))


@dataclass(frozen=True)
class Worker:
    """Runs tasks; can be sent to another process or machine.

    If another process computes on the device, `busy` decides: wait for it, or report the task as
    failed. Before training the device cools down to `cool_c` degrees Celsius. `strict` refuses
    doubtful images, and `keep_top` and `offline` are those of `job.run`. The process ends with its
    `owner`, the sweep's `process.this_process`, if that is on the same machine; nobody owns it with
    an empty text.
    """

    tracking_uri: str | None = field(repr=False)
    checkpoints: Path
    stale_s: float = STALE_S
    busy: Literal["wait", "refuse"] = "wait"
    cool_c: float | None = None
    strict: bool = False
    keep_top: str | None = None
    offline: bool = False
    owner: str = field(default_factory=this_process)

    def __call__(self, task: Task, say: Callable[[str], None]) -> Report:
        """Run the task and report how it ended. Once per process, since it sets signal handlers."""
        os.environ.pop("MLFLOW_RUN_ID", None)  # the sweep's own run, under `mlflow run`
        _end_with(self.owner)
        spec = task.spec
        try:
            from pepr_mlops.costs.device import Device, load_torch
            from pepr_mlops.costs.gpus import driver
            from pepr_mlops.train import job

            with importing(load_torch):
                device = Device.resolve(spec.device)
            name = f"{spec.fingerprint[:8]} ({spec.model})"
            with _alone(device, self.busy, name, say):
                _cool(device, self.cool_c)
                common: dict[str, Any] = {
                    "offline": self.offline,
                    "tracking_uri": self.tracking_uri,
                    "progress": partial(_Forwarded, say=say),
                    "host_is_shared": driver().count() > 1,  # jobs may run on the other GPUs
                }
                if task.until == 0:
                    job.probe(spec, **common)
                    return Report(spec, "probed")
                job.run(
                    spec,
                    **common,
                    checkpoints=self.checkpoints,
                    exclusive=True,
                    stale_s=self.stale_s,
                    until=task.until,
                    left_wh=task.left_wh,
                    strict=self.strict,
                    keep_top=self.keep_top,
                )
            return Report(spec, "finished")
        except PeprError as error:
            print(error.logged, file=sys.stderr)  # the report goes to the terminal, this to a log
            return Report(spec, error.reason, str(error))
        except TimeLimit as error:
            return Report(spec, error.reason, str(error))
        except (KeyboardInterrupt, SystemExit):
            return Report(spec, "killed", "it received a signal to end")
        except BaseException as error:  # a crash is this job's outcome, not the sweep's
            print(trace(), file=sys.stderr)
            return Report(spec, "crashed", one_line(error))


def _end_with(owner: str) -> None:
    """End on a SIGTERM, on a SIGUSR1 since the time limit is near, or when the owner or the parent
    process is gone.

    An orphaned job would still use the device when the sweep starts again.
    """
    ends = signals("SIGTERM", "SIGUSR1")
    parent = None if multiprocessing.parent_process() is None else os.getppid()

    def stop(number: int, frame: FrameType | None) -> None:
        for other in ends:  # a second one would break off the closing
            signal.signal(other, signal.SIG_IGN)
        if number in signals("SIGUSR1"):
            raise TimeLimit("its job reached the time limit")
        sys.exit(128 + number)

    if threading.current_thread() is threading.main_thread():
        for end in ends:
            signal.signal(end, stop)

    def watch() -> None:
        while is_alive(owner) is not False and parent in (None, os.getppid()):
            time.sleep(_POLL_EVERY_S)
        interrupt(signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _alone(
    device: Device, busy: Literal["wait", "refuse"], job: str, say: Callable[[str], None]
) -> Iterator[None]:
    """Reserve the device for one job: energy is measured for the complete device.

    Jobs of this package hold a lock, which the system releases when their process ends; other
    processes are seen on a GPU only. CPUs that Slurm gave a job are reserved within that job and
    node alone: Slurm decides which jobs share a node, and nodes may share the temporary folder.
    `say` receives a line for each holder that the job waits for.
    """
    name = device.gpu_names[0] if device.kind == "cuda" else "cpu"
    shown = "the CPU" if name == "cpu" else name
    if name == "cpu" and (slurm := slurm_job()) is not None:
        name = f"cpu-{slurm_node()}-{slurm}"
    path = Path(tempfile.gettempdir()) / f"pepr_mlops-{re.sub(r'[^A-Za-z0-9-]', '_', name)}.lock"
    try:
        descriptor = os.open(path, os.O_RDONLY)  # O_CREAT fails on another user's file
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    reported = None
    try:
        while True:
            if not lock_descriptor(descriptor, blocking=False):
                holder, held_s = _holder(path)
            else:
                others = device.other_processes()
                if not others:
                    break
                holder, held_s = ", ".join(sorted(others)), None
            if busy == "refuse":
                raise WorkFailed(
                    f"device: {shown} is used by {holder}; wait for it (--busy wait) or free it",
                    reason="busy",
                )
            if holder != reported:
                reported = holder
                how = "uses it" if held_s is None else f"has held it for {seconds_text(held_s)}"
                say(printable(f"Waiting for {shown}: {holder} {how}."))
            time.sleep(_POLL_EVERY_S)
        with _published(path, job):
            yield
    finally:
        os.close(descriptor)


@contextmanager
def _published(lock: Path, job: str) -> Iterator[None]:
    """Publish which job holds the lock, in a file next to it: one per user, since users cannot
    write each other's files."""
    user = re.sub(r"[^A-Za-z0-9-]", "_", psutil.Process().username())
    path = lock.with_suffix(f".{user}.json")
    held = {"process": this_process(), "job": job, "since_s": time.time()}
    with suppress(OSError):  # a full disk: others wait without a name
        descriptor, part = tempfile.mkstemp(dir=lock.parent)
        try:
            with os.fdopen(descriptor, "w") as file:
                json.dump(held, file)
            os.chmod(part, 0o644)
            os.replace(part, path)  # never through a link that another user made
        finally:
            Path(part).unlink(missing_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _holder(lock: Path) -> tuple[str, float | None]:
    """Which living job holds the lock, and for how many seconds, None if unknown."""
    holders = []
    for path in lock.parent.glob(f"{lock.stem}.*.json"):
        # The file may not be written by this package.
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            held = json.loads(path.read_text()) if path.is_file() else {}
            if is_alive(held["process"]):
                holders.append((float(held["since_s"]), str(held["job"])))
    if not holders:
        return "another job", None
    since_s, job = max(holders)
    return f"job {job}", max(0.0, time.time() - since_s)


def _cool(device: Device, cool_c: float | None) -> None:
    """Wait until the device is at `cool_c` or below, so that all jobs start alike."""
    if cool_c is None:
        return
    deadline = time.monotonic() + _COOLING_S
    while True:
        now_c = device.temperature_c()
        if now_c is None:
            raise WorkFailed(
                f"cool_to: {device} has no readable temperature; drop --cool-to",
                reason="no_sensor",
            )
        if now_c <= cool_c:
            return
        if time.monotonic() > deadline:
            raise WorkFailed(
                f"cool_to: after {_COOLING_S / 60:g} minutes {device} is still at {now_c:g} °C, "
                f"above the requested {cool_c:g} °C; raise --cool-to, or cool the room",
                reason="too_warm",
            )
        time.sleep(_POLL_EVERY_S)
