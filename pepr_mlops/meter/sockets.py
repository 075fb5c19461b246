"""The design power of the CPUs of a machine, where it is a virtual one with a part of a socket."""

from __future__ import annotations

import csv
import re
from functools import cache
from importlib import resources
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_PER_CORE = 2  # threads, of all that have many cores and are in servers


def design_power_w(
    name: str, socket_w: float, sockets: int, cpus: int, virtual: bool
) -> tuple[float, str]:
    """Watts of the `cpus` of this machine at full load, and in words what is known of their share.

    `name` is that of the CPU, `socket_w` the design power of one socket. A `virtual` machine has
    as much of a socket as it has of the socket's threads, where their number is known.
    """
    if not virtual:
        return socket_w * sockets, ""
    threads = socket_threads(name)
    if threads is None:
        return socket_w * sockets, "the virtual machine's share of the socket is not known"
    return (
        socket_w * cpus / threads,
        f"{cpus} of the {threads} threads of a socket of {socket_w:g} W",
    )


def socket_threads(name: str) -> int | None:
    """Threads of a CPU by the name it gives itself; None where they are not known.

    AMD's names have the cores; of Intel's servers `server_cpus.csv` has them (https://ark.intel.com,
    and for those made for clouds their descriptions of the machines).
    """
    in_name = re.search(r"EPYC.* (\d+)-Core", name)
    if in_name:
        return _PER_CORE * int(in_name[1])
    plain = " ".join(re.sub(r"\((R|TM)\)|\bCPU\b|@.*", " ", name).split())
    cores = _server_cpus().get(plain.removeprefix("Intel "))
    return None if cores is None else _PER_CORE * cores


def is_virtual() -> bool:
    """Whether this is a virtual machine, as far as Linux knows."""
    try:
        text = _CPUINFO.read_text()
    except OSError:
        return False
    return bool(re.search(r"^flags\s*:.*\bhypervisor\b", text, re.MULTILINE))


@cache
def _server_cpus() -> dict[str, int]:
    text = resources.files("pepr_mlops.meter").joinpath("server_cpus.csv").read_text()
    return {row["name"]: int(row["cores"]) for row in csv.DictReader(text.splitlines())}
