"""The design power of the CPUs of a machine, where it is a virtual one with a part of a socket."""

from __future__ import annotations

import csv
import re
from functools import cache
from importlib import resources
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_PER_CORE = 2  # threads, of all that are in servers of x86


def design_power_w(
    name: str, socket_w: float, sockets: int, cpus: int, per_core: int | None
) -> tuple[float, str]:
    """Watts of the `cpus` of this machine at full load, and in words what is known of their share.

    `name` is that of the CPU, `socket_w` the design power of one socket. `per_core` are the threads
    that each core of a virtual machine has, None for a machine of its own. A virtual machine has as
    much of a socket as it has of the socket's cores, where their number is known: with one thread a
    core each of its CPUs is taken for a core.
    """
    if per_core is None:
        return socket_w * sockets, ""
    cores = socket_cores(name)
    if cores is None:
        return socket_w * sockets, "the virtual machine's share of the socket is not known"
    what = "cores" if per_core == 1 else "threads"
    return (
        socket_w * cpus / (cores * per_core),
        f"{cpus} {what}; a socket of {socket_w:g} W has {cores * per_core}",
    )


def socket_cores(name: str) -> int | None:
    """Cores of a server's CPU by the name it gives itself; None where they are not known.

    AMD's names have the cores; of Intel's servers `server_cpus.csv` has them (https://ark.intel.com,
    and for those made for clouds their descriptions of the machines).
    """
    in_name = re.search(r"EPYC.* (\d+)-Core", name)
    if in_name:
        return int(in_name[1])
    plain = " ".join(re.sub(r"\((R|TM)\)|\bCPU\b|@.*", " ", name).split())
    return _server_cpus().get(plain.removeprefix("Intel "))


def virtual_per_core() -> int | None:
    """Threads of each core of this machine where it is a virtual one, as far as Linux knows.

    A machine of single cores is one that hides which of its CPUs share a core: its CPUs are then
    taken for threads, which those of most clouds are.
    """
    try:
        text = _CPUINFO.read_text()
    except OSError:
        return None
    if not re.search(r"^flags\s*:.*\bhypervisor\b", text, re.MULTILINE):
        return None
    threads, cores = (
        re.search(rf"^{name}\s*: (\d+)", text, re.MULTILINE) for name in ("siblings", "cpu cores")
    )
    if threads and cores and int(cores[1]) > 1:
        return max(1, int(threads[1]) // int(cores[1]))
    return _PER_CORE


@cache
def _server_cpus() -> dict[str, int]:
    text = resources.files("pepr_mlops.costs.meters").joinpath("server_cpus.csv").read_text()
    return {row["name"]: int(row["cores"]) for row in csv.DictReader(text.splitlines())}
