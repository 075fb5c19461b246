"""Time in which a process stood still, with real processes that are stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pepr_mlops.costs.meters import stopwatch
from pepr_mlops.costs.meters.stopwatch import Stopwatch, _Use, stopped_s

STOP_S = 2.0

_AT_WORK = """
import sys, time
from pepr_mlops.costs.meters.stopwatch import Stopwatch
watch = Stopwatch()
print("begun", flush=True)
began, x = time.process_time(), 1
{work}
print(time.process_time() - began, *watch.stop())
"""
_COMPUTING = "while time.process_time() - began < 1.5: x += 1"
_WAITING = "time.sleep(1)"
# Python's lock is held for seconds, so that no thread can read a clock.
_HOLDING = "x = pow(3, 3_000_000)\nwhile time.process_time() - began < 3: x * x * x"


def _begin(work: str) -> subprocess.Popen[str]:
    code = _AT_WORK.format(work=work)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def _end(process: subprocess.Popen[str]) -> tuple[float, float, float]:
    """CPU time, time on the stopwatch, time it left out."""
    out, _ = process.communicate(timeout=120)
    cpu_s, elapsed_s, left_out_s = map(float, out.split())
    return cpu_s, elapsed_s, left_out_s


@pytest.mark.parametrize("work", [_COMPUTING, _WAITING])
def test_a_process_that_is_stopped_leaves_that_out_of_its_time(work: str) -> None:
    began = time.monotonic()
    process = _begin(work)
    time.sleep(0.4)
    process.send_signal(signal.SIGSTOP)
    stopped = time.monotonic()
    time.sleep(STOP_S)
    process.send_signal(signal.SIGCONT)
    stood_still_s = time.monotonic() - stopped
    _, elapsed_s, left_out_s = _end(process)
    assert left_out_s == pytest.approx(stood_still_s, abs=0.3)  # a tick
    assert elapsed_s < time.monotonic() - began - stood_still_s + 0.3


def test_a_paused_container_leaves_that_out_of_its_time(
    control_group: Callable[[str], Path],
) -> None:
    """`docker pause` freezes a control group."""
    freezer = control_group("freezer")
    process = _begin(_COMPUTING)
    (freezer / "cgroup.procs").write_text(str(process.pid))
    (freezer / "freezer.state").write_text("FROZEN")
    time.sleep(STOP_S)
    (freezer / "freezer.state").write_text("THAWED")
    _, _, left_out_s = _end(process)
    assert left_out_s == pytest.approx(STOP_S, abs=0.3)


@pytest.mark.parametrize("work", [_COMPUTING, _WAITING, _HOLDING])
def test_a_process_that_only_works_leaves_nothing_out(work: str) -> None:
    cpu_s, elapsed_s, left_out_s = _end(_begin(work))
    assert left_out_s == 0
    assert elapsed_s > 0.9 * cpu_s


def test_a_stop_is_found_also_where_the_lock_was_held_before_and_after() -> None:
    process = _begin("x = pow(3, 1_500_000)\nx * x * x")
    time.sleep(0.6)
    process.send_signal(signal.SIGSTOP)
    time.sleep(4.0)
    process.send_signal(signal.SIGCONT)
    _, _, left_out_s = _end(process)
    assert left_out_s == pytest.approx(4.0, abs=0.8)


def test_a_machine_that_sleeps_leaves_that_out_too() -> None:
    """The monotonic clock stands still with it, and the boot clock does not."""
    clock, boot = [1000.0], [5000.0]
    watch = Stopwatch(lambda: clock[0], lambda: boot[0])
    clock[0], boot[0] = 1000.5, 5000.5 + 3600.0
    assert watch.stop() == (0.5, 3600.0)
    watch = Stopwatch(lambda: clock[0], lambda: boot[0])
    clock[0], boot[0] = 1001.0, 8601.25  # clocks drift, by a quarter of a second here
    assert watch.stop() == (0.5, 0.0)


def test_the_boot_clock_is_the_systems() -> None:
    if sys.platform != "linux":
        pytest.skip("its name is Linux's")
    assert stopwatch.boot_s() == pytest.approx(
        float(Path("/proc/uptime").read_text().split()[0]), abs=1
    )


@pytest.mark.parametrize(
    ("tick_s", "waits", "queued_s", "cpu_s", "stopped"),
    [
        (0.26, 1, 0.0, 0.2, 0.0),  # on time
        (1.2, 1, 0.0, 0.0, 0.0),  # too short to be noticed
        (10.25, 1, 0.0, 0.0, 10.1195),  # stopped: it waited once
        (10.25, 1800, 0.0, 10.0, 0.0),  # the lock was held: it tried for it every 5 ms
        (10.25, 400, 0.0, 2.0, 7.925),  # both
        (10.25, 1, 9.5, 0.0, 0.0),  # it waited for a CPU
        (10.25, None, 0.0, 9.0, 0.0),  # where waits are not counted: it computed
        (10.25, None, 0.0, 0.1, 10.015),
        (10.25, 0, 0.0, 9.0, 0.0),  # as under gVisor
        (10.25, 1, 0.0, 8.0, 6.25),  # it cannot have computed for so long in less
    ],
)
def test_a_late_tick_is_a_stop_or_another_delay(
    tick_s: float,
    waits: int | None,
    queued_s: float,
    cpu_s: float,
    stopped: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stopwatch.os, "cpu_count", lambda: 2)
    before = _Use(None if waits is None else 100, 1.0, 5.0)
    after = _Use(None if waits is None else 100 + waits, 1.0 + queued_s, 5.0 + cpu_s)
    assert stopped_s(tick_s, before, after) == pytest.approx(stopped)


def test_a_stop_is_left_out_at_once_and_not_at_the_next_tick() -> None:
    """The window ends in the very moment in which the process is resumed."""
    work = f"""
import os, signal, subprocess
subprocess.Popen(["sh", "-c", "sleep 0.3; kill -STOP $0; sleep {STOP_S}; kill -CONT $0",
                  str(os.getpid())])
before = time.monotonic()
while time.monotonic() - before < 1.5: x += 1
"""
    process = _begin(work)
    _, elapsed_s, left_out_s = _end(process)
    assert left_out_s == pytest.approx(STOP_S, abs=0.3)
    assert elapsed_s < 1.2
