"""The load of other processes, with real ones."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil

from pepr_mlops.otherload import OtherLoad


def _others(load: OtherLoad) -> float:
    return float(load.tags()["pepr.cpu_others"])


def test_another_process_at_work_is_seen_and_this_one_is_not() -> None:
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        load, before = OtherLoad(), psutil.Process(busy.pid).cpu_times()
        began, own = time.perf_counter(), time.process_time()
        while time.perf_counter() - began < 1.5:  # this process is at work too
            pass
        seen, own = _others(load), (time.process_time() - own) / 1.5
        after = psutil.Process(busy.pid).cpu_times()
        share = (after.user + after.system - before.user - before.system) / 1.5
    finally:
        busy.kill()
        busy.wait()
    assert seen > share - 0.1
    assert seen < (os.cpu_count() or 1) - own + 0.15


def test_of_several_attempts_the_busiest_counts() -> None:
    assert OtherLoad("99.5").tags() == {"pepr.cpu_others": "99.50"}
