"""A task of a sweep, in a process of its own: waits for its device, trains, and reports."""

from __future__ import annotations

import fcntl
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
from typing import TYPE_CHECKING, Literal

from pepr_mlops.errors import PeprError, WorkFailed, one_line, trace
from pepr_mlops.process import importing, is_alive, this_process
from pepr_mlops.sweep.engine import Report, Task
from pepr_mlops.text import printable
from pepr_mlops.tracking.ownership import STALE_S
from pepr_mlops.train.progress import Printed, seconds_text

if TYPE_CHECKING:
    from pepr_mlops.costs.device import Device
    from pepr_mlops.spec import RunSpec

_LOOK_EVERY_S = 2.0
_OF_ALL = ("tracking:", "journal:")  # notes about the tracking server and this disk
_COOLING_S = 1800.0  # a device that is not cool by then will not be


class _Heard(Printed):
    """Prints to the job's log, and passes on to the sweep what its other jobs will meet too."""

    def __init__(self, spec: RunSpec, source: str, say: Callable[[str], None]) -> None:
        super().__init__(spec, source)
        self._say = say

    def note(self, text: str) -> None:
        super().note(text)
        if text.startswith(_OF_ALL):
            self._say(printable(text))


@dataclass(frozen=True)
class Worker:
    """Does tasks; can be sent to another process or machine.

    `busy` says what to do where another process computes on the device: wait for it, or report
    the task as failed. Before training the device cools down to `cool_c` degrees Celsius. With
    `strict` doubtful images are refused. It ends with its `owner`, the process of the sweep as of
    `processes.this_process`, where that is of the same machine.
    """

    tracking_uri: str | None = field(repr=False)
    checkpoints: Path
    stale_s: float = STALE_S
    busy: Literal["wait", "refuse"] = "wait"
    cool_c: float | None = None
    strict: bool = False
    owner: str = field(default_factory=this_process)

    def __call__(self, task: Task, say: Callable[[str], None]) -> Report:
        """Do the task and say how it ended. Runs once per process: it sets signal handlers."""
        os.environ.pop("MLFLOW_RUN_ID", None)  # the sweep's own run, under `mlflow run`
        _end_with(self.owner)
        spec = task.spec
        try:
            from pepr_mlops.costs.device import Device, gpu_count, load_torch
            from pepr_mlops.train import job

            with importing(load_torch):
                device = Device.resolve(spec.device)
            name = f"{spec.fingerprint[:8]} ({spec.model})"
            with _alone(device, self.busy, name, say):
                _cool(device, self.cool_c)
                shared = gpu_count() > 1  # jobs on the others are there or may come
                if task.until == 0:
                    job.probe(
                        spec,
                        tracking_uri=self.tracking_uri,
                        progress=partial(_Heard, say=say),
                        host_is_shared=shared,
                    )
                    return Report(spec, "probed")
                job.run(
                    spec,
                    tracking_uri=self.tracking_uri,
                    progress=partial(_Heard, say=say),
                    checkpoints=self.checkpoints,
                    exclusive=True,
                    host_is_shared=shared,
                    stale_s=self.stale_s,
                    until=task.until,
                    left_wh=task.left_wh,
                    strict=self.strict,
                )
            return Report(spec, "finished")
        except PeprError as error:
            print(error, file=sys.stderr)
            return Report(spec, error.reason, str(error))
        except (KeyboardInterrupt, SystemExit):
            return Report(spec, "killed", "it was asked to end")
        except BaseException as error:  # a crash is this job's outcome, not the sweep's
            print(trace(), file=sys.stderr)
            return Report(spec, "crashed", one_line(error))


def _end_with(owner: str) -> None:
    """End like on a SIGTERM when asked to, or when the owner is gone.

    A job that nobody waits for would still be using the device when the sweep comes back; so would
    one whose parent is gone, from which a local sweep would have heard how it ended.
    """
    parent = None if multiprocessing.parent_process() is None else os.getppid()

    def stop(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)

    def watch() -> None:
        while is_alive(owner) is not False and parent in (None, os.getppid()):
            time.sleep(_LOOK_EVERY_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _alone(
    device: Device, busy: Literal["wait", "refuse"], job: str, say: Callable[[str], None]
) -> Iterator[None]:
    """Have the device for one job: its energy is measured on the whole of it.

    Jobs of this package keep a lock, which the system takes back when their process ends; other
    processes are seen on a GPU only. `say` is given what is waited for, whenever that changes.
    """
    name = device.gpu_uuids[0] if device.kind == "cuda" else "cpu"
    shown = "the CPU" if name == "cpu" else name
    path = Path(tempfile.gettempdir()) / f"pepr_mlops-{re.sub(r'[^A-Za-z0-9-]', '_', name)}.lock"
    try:
        descriptor = os.open(path, os.O_RDONLY)  # another user's cannot be opened to be created
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    said = None
    try:
        while True:
            if _locked(descriptor):
                others = device.other_processes() or set()
                if not others:
                    break
                holder, lasts = ", ".join(sorted(others)), None
            else:
                holder, lasts = _holder(path)
            if busy == "refuse":
                raise WorkFailed(
                    f"device: {shown} is used by {holder}; wait for it (--busy wait) or free it",
                    reason="busy",
                )
            if holder != said:
                said = holder
                how = "uses it" if lasts is None else f"has held it for {seconds_text(lasts)}"
                say(printable(f"Waiting for {shown}: {holder} {how}."))
            time.sleep(_LOOK_EVERY_S)
        with _known(path, job):
            yield
    finally:
        os.close(descriptor)


@contextmanager
def _known(lock: Path, job: str) -> Iterator[None]:
    """Let whoever waits for the lock read which job has it, in a file of each user next to it.

    A lock tells nothing of its holder, and other users can write no file of this one's.
    """
    path = lock.with_suffix(f".{os.getuid()}.json")
    held = {"process": this_process(), "job": job, "since_s": time.time()}
    with suppress(OSError):  # a full disk: others wait without knowing for whom
        descriptor, part = tempfile.mkstemp(dir=lock.parent)
        try:
            with os.fdopen(descriptor, "w") as file:
                os.fchmod(descriptor, 0o644)
                json.dump(held, file)
            os.replace(part, path)  # never through a link that someone else put there
        finally:
            Path(part).unlink(missing_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _holder(lock: Path) -> tuple[str, float | None]:
    """Who has the lock, and for how many seconds, None where that is not known.

    What a dead process left tells nothing.
    """
    found = []
    for path in lock.parent.glob(f"{lock.stem}.*.json"):
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):  # none of ours
            held = json.loads(path.read_text()) if path.is_file() else {}
            if is_alive(held["process"]):
                found.append((float(held["since_s"]), str(held["job"])))
    if not found:
        return "another job", None
    since_s, job = max(found)
    return f"job {job}", max(0.0, time.time() - since_s)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _cool(device: Device, cool_c: float | None) -> None:
    """Wait until the device is no warmer than asked, so that all jobs start alike."""
    if cool_c is None:
        return
    until = time.monotonic() + _COOLING_S
    while True:
        now_c = device.temperature_c()
        if now_c is None:
            raise WorkFailed(
                f"cool_to: {device} has no readable temperature; sweep without it",
                reason="no_sensor",
            )
        if now_c <= cool_c:
            return
        if time.monotonic() > until:
            raise WorkFailed(
                f"cool_to: {device} is still at {now_c:g} °C after {_COOLING_S / 60:g} minutes and "
                f"{cool_c:g} were asked for; ask for more, or cool the room",
                reason="too_warm",
            )
        time.sleep(_LOOK_EVERY_S)
