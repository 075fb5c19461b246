"""The design power of the CPUs of a machine, also of a virtual one with a part of a socket."""

from __future__ import annotations

import csv
import re
from functools import cache
from importlib import resources

from pepr_mlops.costs.device import cpu_info

_THREADS_PER_CORE = 2  # in all x86 servers


def design_power_w(
    name: str, socket_w: float, sockets: int, cpus: int, per_core: int | None
) -> tuple[float, str]:
    """Watts of the `cpus` of this machine at full load, and a text about their share of a socket.

    `name` is that of the CPU, `socket_w` the design power of one socket, `per_core` the threads of
    each core of a virtual machine, None for a physical one. The share of a virtual machine is its
    share of the socket's cores, if their number is known.
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
    """Cores of a server's CPU by its name; None where they are not known.

    AMD's names have the cores; `server_cpus.csv` has those of Intel's servers (https://ark.intel.com
    or, for CPUs made for clouds, the cloud's description of its machines).
    """
    in_name = re.search(r"EPYC.* (\d+)-Core", name)
    if in_name:
        return int(in_name[1])
    plain = " ".join(re.sub(r"\((R|TM)\)|\bCPU\b|@.*", " ", name).split())
    return _server_cpus().get(plain.removeprefix("Intel "))


def virtual_per_core() -> int | None:
    """Threads of each core of this virtual machine, as Linux reports; None for a physical one.

    A machine of single cores hides which of its CPUs share a core: they count as threads, as the
    CPUs of most clouds are.
    """
    fields = cpu_info()
    if "hypervisor" not in fields.get("flags", "").split():
        return None
    threads, cores = fields.get("siblings", ""), fields.get("cpu cores", "")
    if not (threads.isdecimal() and cores.isdecimal() and int(cores) > 1):
        return _THREADS_PER_CORE
    return max(1, int(threads) // int(cores))


@cache
def _server_cpus() -> dict[str, int]:
    text = resources.files("pepr_mlops.costs.meters").joinpath("server_cpus.csv").read_text()
    return {row["name"]: int(row["cores"]) for row in csv.DictReader(text.splitlines())}
