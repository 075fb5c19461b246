"""Which sensors of energy this machine lets us read, and what to do about the others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pepr_mlops.costs.meters import open_meter
from pepr_mlops.errors import Check
from pepr_mlops.names import COMPONENTS

_RAPL = Path("/sys/class/powercap")
_CPU_FLAGS = Path("/proc/cpuinfo")
_CONTAINER = (Path("/.dockerenv"), Path("/run/.containerenv"))
_GUIDE = "https://ml.energy/zeus/getting_started"


def checks(accelerator: str, gpu_uuids: Sequence[str]) -> list[Check]:
    """How the energy of each component would be known for work on `accelerator` (`cuda`, `mps`,
    `cpu`) with these GPUs."""
    meter = open_meter("auto", accelerator, gpu_uuids, lambda: None)
    by_source = {
        source: " and ".join(c for c in COMPONENTS if meter.sources.get(c) == source)
        for source in dict.fromkeys(meter.sources.values())
    }
    found = []
    for source, components in by_source.items():
        if source == "measured":
            found.append(Check("energy", components, "ok", f"measured by {meter.method}"))
        else:
            text = f"estimated by {meter.method.partition('; not measured')[0]}"
            found.append(Check("energy", components, "note", text, cpu_remedy()))
    for component, why in meter.notes.items():
        remedy = cpu_remedy() if component == "cpu" else f"see {_GUIDE}"
        found.append(Check("energy", component, "note", f"not read: {why}", remedy))
    return found or [Check("energy", "sensors", "note", "none was found", f"see {_GUIDE}")]


def cpu_remedy() -> str:
    """What lets Zeus read the counters of the CPU, RAPL."""
    zones = sorted(_RAPL.glob("intel-rapl:*/energy_uj"))
    if any(not os.access(zone, os.R_OK) for zone in zones):
        return (
            "RAPL is readable by root alone: sudo chmod a+r "
            f"{_RAPL}/intel-rapl:*/energy_uj (until the next start), or run Zeus' daemon ({_GUIDE})"
        )
    try:
        virtual = "hypervisor" in _CPU_FLAGS.read_text()
    except OSError:  # not Linux
        virtual = False
    if virtual:
        return "a virtual machine has no counters; measure on the machine itself"
    if any(path.exists() for path in _CONTAINER):
        return f"start the container with -v {_RAPL}:/zeus_sys/class/powercap:ro ({_GUIDE})"
    return f"load the kernel's module: sudo modprobe intel_rapl_msr ({_GUIDE})"
