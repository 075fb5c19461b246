"""The load of other programs, with real ones, and that of one's own processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from pepr_mlops.costs import other_load
from pepr_mlops.costs.other_load import OtherLoad

BURNT_S = 0.8
_BURN = "import time\nwhile time.process_time() < {seconds}: pass\n"
# It has a session of its own, and the processes that it came from have ended, as with services.
_DOUBLE_FORK = (
    "import os, sys\n"
    "if os.fork(): sys.exit()\n"
    "os.setsid()\n"
    "if os.fork(): os._exit(0)\n"
    "print(os.getpid(), flush=True)\n"
)


@pytest.fixture
def stranger() -> Iterator[psutil.Process]:
    """A process at work that is nobody's descendant."""
    code = _DOUBLE_FORK + "os.close(1)\n" + _BURN.format(seconds=120)
    words = [sys.executable, "-c", code]
    found = psutil.Process(int(subprocess.check_output(words, text=True)))
    assert found.pid not in {child.pid for child in psutil.Process().children(recursive=True)}
    yield found
    found.kill()


def _took_s(process: psutil.Process) -> float:
    return float(sum(process.cpu_times()[:2]))


def test_a_stranger_at_work_is_seen_and_this_process_is_not(stranger: psutil.Process) -> None:
    load, before = OtherLoad(), _took_s(stranger)
    began, own = time.perf_counter(), time.process_time()
    while time.perf_counter() - began < 1.5:  # this process is at work too
        pass
    took_s = time.perf_counter() - began
    tags = load.tags()
    share, own = (_took_s(stranger) - before) / took_s, (time.process_time() - own) / took_s
    for name in ("pepr.cpu_others", "pepr.machine_cpu_others"):
        assert float(tags[name]) > share - 0.1
        assert float(tags[name]) < (os.cpu_count() or 1) - own + 0.15
    assert tags["pepr.cpu_others_of"] == str(len(os.sched_getaffinity(0)))


def _persistent() -> Callable[[], object]:
    """A worker that stays, as those of a loader of data do."""
    code = _BURN.format(seconds=BURNT_S) + "print(flush=True)\ntime.sleep(60)"
    worker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    worker.stdout.readline()

    def end() -> None:
        worker.kill()
        worker.communicate()

    return end


def _short_lived() -> Callable[[], object]:
    for _ in range(4):
        code = _BURN.format(seconds=BURNT_S / 4)
        subprocess.run([sys.executable, "-c", code], check=True)
    return lambda: None


def _of_a_child() -> Callable[[], object]:
    inner = [sys.executable, "-c", _BURN.format(seconds=BURNT_S)]
    code = f"import subprocess\nsubprocess.run({inner!r})"
    subprocess.run([sys.executable, "-c", code], check=True)
    return lambda: None


def _double_forked(stays: bool) -> Callable[[], object]:
    burn = _BURN.format(seconds=BURNT_S) + "print(flush=True)\n" + "time.sleep(60)\n" * stays
    code = _DOUBLE_FORK + burn
    orphan = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert orphan.stdout is not None
    pid = int(orphan.stdout.readline())
    orphan.stdout.readline()
    orphan.wait()
    if not stays:
        orphan.stdout.read()  # until it has ended

    def end() -> None:
        orphan.stdout.close()
        if stays:
            psutil.Process(pid).kill()

    return end


@pytest.mark.parametrize(
    "work",
    [
        _persistent,
        _short_lived,
        _of_a_child,
        lambda: _double_forked(stays=True),
        lambda: _double_forked(stays=False),
    ],
    ids=["persistent", "short-lived", "of a child", "double-forked", "double-forked and ended"],
)
def test_the_cpu_time_of_descendants_is_ours_and_a_strangers_is_not(
    work: Callable[[], Callable[[], object]], stranger: psutil.Process
) -> None:
    load = OtherLoad()
    before, of_stranger, own = other_load._own_s(), _took_s(stranger), time.process_time()
    end = work()
    while _took_s(stranger) - of_stranger < 2 * BURNT_S:
        time.sleep(0.05)
    took_s = other_load._own_s() - before - (time.process_time() - own)
    end()
    load.tags()
    # with starting Python a few times, and without the stranger
    assert BURNT_S - 0.05 < took_s < 2 * BURNT_S - 0.1


def test_a_program_that_adopts_orphans_itself_continues_to() -> None:
    if sys.platform != "linux":
        pytest.skip("others cannot adopt")
    assert other_load._adopt_orphans(True) is False
    OtherLoad().tags()
    assert other_load._adopt_orphans(False) is True
    OtherLoad().tags()
    assert other_load._adopt_orphans(False) is False


def test_cpus_that_may_not_be_used_do_not_slow_it_down() -> None:
    """A process that may use one CPU, and a stranger that works on another."""
    mine = sorted(os.sched_getaffinity(0))
    if len(mine) < 2:
        pytest.skip("needs two CPUs")
    code = (
        "import os, sys, time\n"
        "from pepr_mlops.costs.other_load import OtherLoad\n"
        f"os.sched_setaffinity(0, [{mine[0]}])\n"
        "load = OtherLoad()\n"
        "print(flush=True)\n"
        "sys.stdin.read()\n"
        "tags = load.tags()\n"
        "print(*(tags[n] for n in ('pepr.cpu_others_of', 'pepr.cpu_others', "
        "'pepr.machine_cpu_others')))"
    )
    words = [sys.executable, "-c", code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    confined = subprocess.Popen(words, text=True, **pipes)  # type: ignore[call-overload]
    assert confined.stdout.readline() == "\n"
    busy = subprocess.Popen([sys.executable, "-c", _BURN.format(seconds=60)])
    os.sched_setaffinity(busy.pid, [mine[1]])
    time.sleep(1.5)
    out, _ = confined.communicate("")
    busy.kill()
    busy.wait()
    counted, here, machine = map(float, out.split())
    assert counted == 1
    assert machine > here + 0.5


def test_of_several_attempts_the_busiest_counts() -> None:
    earlier = {"pepr.cpu_others": "99.5", "pepr.machine_cpu_others": "0"}
    assert OtherLoad(earlier).tags()["pepr.cpu_others"] == "99.50"
