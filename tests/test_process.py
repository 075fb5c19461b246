"""Whether a process is alive, what it may use and how it ends, with real processes."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from pepr_mlops import process
from pepr_mlops.process import (
    allowed_cpus,
    allowed_memory,
    importing,
    is_alive,
    node_share,
    slurm_job,
    this_process,
    uninterrupted,
)


def test_this_process_is_alive_and_one_of_another_machine_may_be() -> None:
    assert is_alive(this_process()) is True
    assert is_alive(f"another-machine {os.getpid()} 1") is None
    assert is_alive("") is None


def _print(code: str) -> list[str]:
    return [sys.executable, "-c", f"from pepr_mlops.process import *; print({code})"]


def test_the_cpus_it_may_use_are_those_of_its_affinity() -> None:
    mine = sorted(os.sched_getaffinity(0))
    assert allowed_cpus() <= len(mine)
    code = f"import os; os.sched_setaffinity(0, [{mine[0]}])"
    words = [sys.executable, "-c", f"{code}; {_print('allowed_cpus()')[2]}"]
    assert float(subprocess.check_output(words, text=True)) <= 1


def test_a_system_that_binds_no_process_allows_all_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    assert process.affinity() == sorted(os.sched_getaffinity(0))
    monkeypatch.delattr(psutil.Process, "cpu_affinity")  # macOS
    assert process.affinity() == list(range(os.cpu_count() or 1))


def test_only_signals_that_the_system_has_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("SIGTERM", "SIGHUP", "SIGUSR1")
    assert process.signals(*names) == [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]
    monkeypatch.delattr(signal, "SIGHUP")
    assert process.signals(*names) == [signal.SIGTERM, signal.SIGUSR1]


@pytest.mark.parametrize(
    ("files", "cpus", "memory"),
    [
        ({}, 8, 64 << 30),
        ({"a/b/cpu.max": "max 100000", "a/b/memory.max": "max"}, 8, 64 << 30),
        ({"a/b/cpu.max": "150000 100000", "a/b/memory.max": "1073741824"}, 1.5, 1 << 30),
        # a limit of a group above holds too
        ({"a/b/cpu.max": "300000 100000", "a/cpu.max": "50000 100000"}, 0.5, 64 << 30),
        ({"cpu.max": "200000 100000", "memory.max": "2147483648"}, 2, 2 << 30),  # a container's
        (
            {
                "cpu,cpuacct/job/cpu.cfs_quota_us": "-1",
                "cpu,cpuacct/job/cpu.cfs_period_us": "100000",
                "cpu,cpuacct/cpu.cfs_quota_us": "400000",
                "cpu,cpuacct/cpu.cfs_period_us": "100000",
                "memory/job/memory.limit_in_bytes": "4294967296",
                "memory/memory.limit_in_bytes": "9223372036854771712",  # none
            },
            4,
            4 << 30,
        ),
    ],
)
def test_quotas_and_limits_of_control_groups(
    files: dict[str, str],
    cpus: float,
    memory: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As cgroups(7) and the kernel's documentation describe the files of versions 1 and 2."""
    files = {"a/cpu.max": "", **files}  # as of a group that was just taken away
    own = tmp_path / "own"
    own.write_text("9:name=systemd:/\n4:memory:/job\n2:cpu,cpuacct:/job\n0::/a/b\n")
    monkeypatch.setattr(process, "_OWN_CGROUPS", own)
    monkeypatch.setattr(process, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(process, "affinity", lambda: list(range(8)))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=64 << 30))
    for name, content in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    assert allowed_cpus() == cpus
    assert allowed_memory() == memory


IN_SLURM = {"SLURM_JOB_ID": "7", "SLURMD_NODENAME": "n1", "SLURM_CPUS_ON_NODE": "6"}


@pytest.mark.parametrize(
    ("variables", "cpus", "memory"),
    [
        ({}, 6, 64 << 30),
        ({"SLURM_CPUS_PER_TASK": "2", "SLURM_MEM_PER_NODE": "4096"}, 2, 4 << 30),
        ({"SLURM_MEM_PER_CPU": "1024"}, 6, 6 << 30),
        ({"SLURM_MEM_PER_NODE": "0"}, 6, 64 << 30),  # all of the node
        ({"SLURM_CPUS_ON_NODE": "64", "SLURM_MEM_PER_NODE": "262144"}, 8, 64 << 30),
        ({"SLURMD_NODENAME": "", "SLURM_CPUS_PER_TASK": "2"}, 8, 64 << 30),  # salloc's shell
    ],
)
def test_what_slurm_gave_limits_a_job_also_where_nothing_enforces_it(
    variables: dict[str, str], cpus: float, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As sbatch(1) describes the variables."""
    monkeypatch.setattr(process, "_cgroup", lambda controller, name: [])
    monkeypatch.setattr(process, "affinity", lambda: list(range(8)))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=64 << 30))
    for name, value in {**IN_SLURM, **variables}.items():
        monkeypatch.setenv(name, value)
    assert allowed_cpus() == cpus
    assert allowed_memory() == memory


def test_a_node_is_shared_where_slurm_gave_a_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert node_share() is None
    for name, value in IN_SLURM.items():
        monkeypatch.setenv(name, value)
    assert node_share() == (6, 8)
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "8")
    assert node_share() is None


def test_two_nodes_are_two_machines_and_a_job_that_slurm_starts_again_has_ended_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outside = this_process()
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    on_n1 = this_process()
    assert on_n1.endswith(" 7.0")
    assert is_alive(on_n1) is True
    assert is_alive(outside) is None
    monkeypatch.setenv("SLURMD_NODENAME", "n2")
    assert is_alive(on_n1) is None
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert is_alive(on_n1) is False
    assert is_alive(this_process()) is True
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    assert is_alive(on_n1) is None
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert slurm_job() == "7_3"
    assert is_alive(on_n1) is None


def test_a_real_quota_and_limit(control_group: Callable[[str], Path]) -> None:
    cpu, memory = control_group("cpu"), control_group("memory")
    (cpu / "cpu.cfs_quota_us").write_text("50000")
    (cpu / "cpu.cfs_period_us").write_text("100000")
    (memory / "memory.limit_in_bytes").write_text(str(2 << 30))
    join = f'for g in {cpu} {memory}; do echo $$ > $g/cgroup.procs; done; exec "$@"'
    words = ["sh", "-c", join, "sh", *_print("allowed_cpus(), allowed_memory()")]
    assert subprocess.check_output(words, text=True) == f"0.5 {2 << 30}\n"


def test_an_ended_process_is_gone_also_before_it_is_waited_for() -> None:
    code = "from pepr_mlops.process import this_process; print(this_process(), flush=True)"
    child = subprocess.Popen(
        [sys.executable, "-c", f"{code}; input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    name = child.stdout.readline().strip()
    assert is_alive(name) is True
    child.kill()
    while child.poll() is None and is_alive(name):
        pass
    assert is_alive(name) is False
    child.wait()
    assert is_alive(name) is False


def test_a_later_process_of_the_same_number_is_another() -> None:
    machine, pid, started = this_process().split()
    assert is_alive(f"{machine} {pid} {int(started) - 1}") is False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_waits_until_the_block_ends(number: signal.Signals) -> None:
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


def test_a_second_signal_after_a_while_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pepr_mlops.process._PATIENCE_S", 0.0)
    done: list[str] = []

    def hangs() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append("signalled once")
            signal.raise_signal(signal.SIGINT)
            done.append("continued")

    with pytest.raises(KeyboardInterrupt):
        hangs()
    assert done == ["signalled once"]
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


def test_other_threads_leave_the_handlers_unchanged() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with ThreadPoolExecutor(1) as pool:

        def inside() -> object:
            with uninterrupted():
                return signal.getsignal(signal.SIGTERM)

        assert pool.submit(inside).result() == before


def test_imports_collect_no_garbage_and_preparations_are_done_with_them() -> None:
    done: list[str] = []
    frozen = gc.get_freeze_count()

    def fails() -> None:
        done.append("failed")
        raise OSError

    with importing(lambda: done.append("done"), fails):
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() == frozen  # this process continues
    assert sorted(done) == ["done", "failed"]


def test_garbage_is_collected_again_after_a_failed_import() -> None:
    with pytest.raises(ImportError), importing():
        import no_such_module  # noqa: F401
    assert gc.isenabled()


_PROGRAM = """
import atexit
from pepr_mlops.process import ends_at_once
end = ends_at_once()
atexit.register(print, "registered", end="")
class Object:
    def __del__(self):
        print(" taken apart", end="")
one = Object()
"""


@pytest.mark.parametrize(
    ("ending", "status", "printed"),
    [
        ("end(3)", 3, "registered"),
        ("raise SystemExit(end(3))", 3, "registered"),
        ("", 0, "registered taken apart"),
        ("raise SystemExit(4)", 4, "registered taken apart"),
    ],
)
def test_a_process_that_ends_at_once_does_what_was_registered_and_no_more(
    ending: str, status: int, printed: str
) -> None:
    code = f"{_PROGRAM}{ending}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (status, printed, "")


def test_output_that_cannot_be_written_at_the_end_is_reported() -> None:
    code = "from pepr_mlops.process import ends_at_once\nprint('x')\nends_at_once()(0)"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": ""},
        )
    assert done.returncode == 120
    assert b"No space left" in done.stderr


@pytest.mark.parametrize("place", range(6))
def test_a_signal_between_two_handlers_leaves_all_as_they_were(
    place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`uninterrupted` changes three handlers, and back: one may come after any of these calls."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(number: int, frame: object) -> None:
        raise SystemExit(number)

    before = {number: signal.signal(number, stop) for number in numbers}
    change, calls = signal.signal, 0

    def interrupted(number: int, handler: object) -> object:
        nonlocal calls
        changed = change(number, handler)  # type: ignore[arg-type]
        calls += 1
        if calls == place + 1:
            for other in numbers:
                signal.raise_signal(other)
        return changed

    try:
        with monkeypatch.context() as patched:
            patched.setattr(signal, "signal", interrupted)
            with pytest.raises(SystemExit), uninterrupted():
                pass
        assert [signal.getsignal(number) for number in numbers] == [stop] * 3
    finally:
        for number, handler in before.items():
            change(number, handler)
