"""Telling whether a process lives, with real ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from pepr_mlops.processes import lives, this_process, uninterrupted


def test_this_process_lives_and_one_of_another_machine_may() -> None:
    assert lives(this_process()) is True
    assert lives(f"another-machine {os.getpid()} 1") is None
    assert lives("") is None


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
    assert lives(name) is True
    child.kill()
    while child.poll() is None and lives(name):
        pass
    assert lives(name) is False
    child.wait()
    assert lives(name) is False


def test_a_later_process_of_the_same_number_is_another() -> None:
    machine, pid, started = this_process().split()
    assert lives(f"{machine} {pid} {int(started) - 1}") is False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_waits_until_the_block_is_through(number: signal.Signals) -> None:
    came: list[int] = []
    before = signal.signal(number, lambda n, _: came.append(n))
    try:
        with uninterrupted():
            os.kill(os.getpid(), number)
            with uninterrupted():  # as where one block calls another
                os.kill(os.getpid(), number)
            assert came == []
        assert came == [number, number]
    finally:
        signal.signal(number, before)


def test_who_asks_again_after_a_while_need_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pepr_mlops.processes._PATIENCE_S", 0.0)
    done: list[str] = []

    def hangs() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append("asked once")
            signal.raise_signal(signal.SIGINT)
            done.append("went on")

    with pytest.raises(KeyboardInterrupt):
        hangs()
    assert done == ["asked once"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_is_raised_after_the_block() -> None:
    done: list[str] = []

    def work() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append("block")
        done.append("after")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["block"]


def test_elsewhere_than_in_the_main_thread_nothing_is_changed() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with ThreadPoolExecutor(1) as pool:

        def inside() -> object:
            with uninterrupted():
                return signal.getsignal(signal.SIGTERM)

        assert pool.submit(inside).result() == before
