"""Freed memory that a process reuses for the next step, and peaks that still restart."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from pepr_mlops.costs import memory
from pepr_mlops.costs.memory import Memory, can_list_pages

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")

_FAULTS = """
import resource
import torch
from pepr_mlops.costs.memory import Memory, keep_freed

cpu = torch.device("cpu")
size = 200_000_000

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * size  # 48,828 pages of 4 kB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
"""


def _python(code: str) -> list[float]:
    """The numbers that the code prints, in a process with the usual `malloc`."""
    words = [sys.executable, "-c", _FAULTS + code]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def test_pages_of_a_freed_tensor_are_cleared_once_only() -> None:
    as_it_is = _python("print(faults(), faults())")
    assert min(as_it_is) > 40_000
    reused = _python("keep_freed(); print(faults(), faults())")
    assert reused[0] > 40_000
    assert reused[1] < 1000


def test_a_peak_begins_without_the_memory_that_was_freed() -> None:
    before, peak, again = _python(
        "keep_freed(); memory = Memory(cpu); print(memory.metrics()['memory/rss_gb']); faults();"
        "print(memory.metrics()['memory/rss_gb']); memory.restart();"
        "print(memory.metrics()['memory/rss_gb'])"
    )
    assert peak - before == pytest.approx(0.2, abs=0.01)
    assert again - before == pytest.approx(0.0, abs=0.01)


_FORKED = """
import mmap, os, sys
from pepr_mlops.costs import memory

def files_gb():
    found = dict(line.split(":") for line in open("/proc/self/status"))
    return int(found["RssFile"].split()[0]) * 1024 / 1e9

with open(sys.argv[1], "rb") as file:
    library = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE)
    assert not any(library[:100_000_000:4096])  # half of it
pages = memory.file_pages()
if os.fork() == 0:
    before = files_gb()
    memory.map_file_pages(pages)
    print(before, files_gb(), flush=True)
    os._exit(0)
os.wait()
print(files_gb())
"""


@pytest.mark.skipif(not can_list_pages(), reason="needs /proc/self/pagemap")
def test_a_forked_process_maps_the_same_parts_of_files(tmp_path: Path) -> None:
    library = tmp_path / "library"
    with library.open("wb") as file:
        file.truncate(200_000_000)
    words = [sys.executable, "-c", _FORKED, str(library)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    before, after, of_parent = (float(word) for word in done.stdout.split())
    assert of_parent > 0.1
    assert before < 0.05
    assert after == pytest.approx(of_parent, abs=0.002)


def test_the_peak_is_the_systems_where_there_is_no_file_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In KiB by `getrusage`, in bytes on macOS, and on Windows the peak of the working set."""

    def absent(self: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert memory._peak_rss() == pytest.approx(kib * 1024, rel=0.01)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory._peak_rss() == pytest.approx(kib, rel=0.01)
    monkeypatch.setitem(sys.modules, "resource", None)
    assert memory._peak_rss() is None
    working_set = SimpleNamespace(rss=2_000_000, peak_wset=3_000_000)
    monkeypatch.setattr(psutil.Process, "memory_info", lambda self: working_set)
    assert memory._peak_rss() == 3_000_000


def test_peak_memory_is_that_of_the_run_and_not_of_before() -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux restarts the peak")
    before = bytearray(400_000_000)
    before[::4096] = b"x" * len(before[::4096])
    del before
    memory = Memory(torch.device("cpu"))
    resident_gb = psutil.Process().memory_info().rss / 1e9
    assert memory.metrics()["memory/rss_gb"] == pytest.approx(resident_gb, abs=0.1)
    during = bytearray(300_000_000)
    during[::4096] = b"x" * len(during[::4096])
    del during
    assert memory.metrics()["memory/rss_gb"] == pytest.approx(resident_gb + 0.3, abs=0.1)
