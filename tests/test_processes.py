"""Telling whether a process lives, with real ones."""

from __future__ import annotations

import os
import subprocess
import sys

from pepr_mlops.processes import is_gone, this_process


def test_this_process_lives_and_one_of_another_machine_may() -> None:
    assert not is_gone(this_process())
    assert not is_gone(f"another-machine {os.getpid()} 1")
    assert not is_gone("")


def test_an_ended_process_is_gone_also_before_it_is_waited_for() -> None:
    code = "from pepr_mlops.processes import this_process; print(this_process(), flush=True)"
    child = subprocess.Popen(
        [sys.executable, "-c", f"{code}; input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    name = child.stdout.readline().strip()
    assert not is_gone(name)
    child.kill()
    while child.poll() is None and not is_gone(name):
        pass
    assert is_gone(name)
    child.wait()
    assert is_gone(name)


def test_a_later_process_of_the_same_number_is_another() -> None:
    machine, pid, started = this_process().split()
    assert is_gone(f"{machine} {pid} {int(started) - 1}")
