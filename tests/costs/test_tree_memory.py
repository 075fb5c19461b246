"""Peak memory of the processes that a command starts."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from pepr_mlops.costs.tree_memory import TreeMemory

# A process of 64 MiB starts two of 32 MiB each, and all stay until the end of the input.
PARENT = """
import subprocess, sys
block = b"x" * (64 << 20)
child = 'import sys; block = b"x" * (32 << 20); print(flush=True); sys.stdin.read()'
kids = [
    subprocess.Popen([sys.executable, "-S", "-c", child], stdin=0, stdout=subprocess.PIPE)
    for _ in range(2)
]
for kid in kids:
    kid.stdout.readline()
print(flush=True)
sys.stdin.read()
"""


def test_all_processes_of_a_command_count_and_others_do_not() -> None:
    other = subprocess.Popen(["sleep", "60"])
    memory = TreeMemory()
    memory.restart()
    assert memory.metrics() == {}
    try:
        with memory.sampled():
            words = [sys.executable, "-S", "-c", PARENT]
            pipe = subprocess.PIPE
            with subprocess.Popen(words, stdin=pipe, stdout=pipe) as command:
                assert command.stdout is not None
                assert command.stdin is not None
                command.stdout.readline()
                assert len(memory.processes()) == 3
                until = time.monotonic() + 30
                while memory.metrics().get("memory/rss_gb", 0) < 0.134:
                    assert time.monotonic() < until
                    time.sleep(0.05)
                command.stdin.close()
    finally:
        other.kill()
        other.wait()
    # 128 MiB of blocks, and less than 20 MiB for each of three interpreters
    assert 0.134 < memory.metrics()["memory/rss_gb"] < 0.134 + 3 * 0.021
    assert memory.processes() == []


def test_a_process_that_shares_its_memory_counts_it_once() -> None:
    script = (
        "import os, time\nblock = b'x' * (64 << 20)\n"
        "if os.fork() == 0:\n time.sleep(1.5); os._exit(0)\n"
        "time.sleep(1); os.wait()"
    )
    memory = TreeMemory()
    memory.restart()
    with memory.sampled():
        subprocess.run([sys.executable, "-S", "-c", script], check=True)
    assert memory.metrics()["memory/rss_gb"] == pytest.approx(0.067 + 0.012, abs=0.02)
