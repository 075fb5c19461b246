"""Which devices and energy sensors this machine has, and how to open those that are closed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from pepr_mlops.costs.device import Device, cpu_model, gpu_tags
from pepr_mlops.costs.gpus import driver, rocm
from pepr_mlops.costs.meters import open_meter
from pepr_mlops.costs.meters.sockets import virtual_per_core
from pepr_mlops.names import COMPONENTS
from pepr_mlops.process import allowed_cpus, allowed_memory

_RAPL = Path("/sys/class/powercap")
_CONTAINER = (Path("/.dockerenv"), Path("/run/.containerenv"))
_OPEN_GPUS = {  # for a build of PyTorch for ROCm, and for another
    True: "`docker run --device=/dev/kfd --device=/dev/dri`",
    False: "`docker run --gpus all`",
}
_GUIDE = "https://ml.energy/zeus/getting_started"


class Check(NamedTuple):
    """What a check of this machine or of a server found, and how to fix it.

    `state` is `ok`, `note` where work continues with less, or `fails` where it does not.
    """

    part: str
    what: str
    state: Literal["ok", "note", "fails"]
    found: str
    remedy: str | None = None


def machine() -> Iterator[Check]:
    """The CPU, the memory and the devices of PyTorch, or why it has no GPU."""
    import torch

    cpus = f"{allowed_cpus():g} of {os.cpu_count()} CPUs may be used"
    yield Check("machine", "CPU", "ok", f"{cpu_model()}; {cpus}")
    yield Check("machine", "memory", "ok", f"{allowed_memory() / 1e9:.1f} GB may be used")
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            tags = gpu_tags(torch.device("cuda", i))
            version = tags.get("pepr.gpu_driver", tags.get("pepr.gpu_nvml", "unknown"))
            total_gb = torch.cuda.get_device_properties(i).total_memory / 1e9
            text = f"{tags['pepr.gpu']}, {total_gb:.0f} GB, driver {version}"
            yield Check("machine", f"cuda:{i}", "ok", text)
    elif torch.backends.mps.is_available():
        yield Check("machine", "mps", "ok", "Apple GPU")
    else:
        yield _no_gpu()


def _no_gpu() -> Check:
    import torch

    gpus, variable = driver().count(), driver().VISIBLE
    maker = "an AMD" if rocm() else "an NVIDIA"
    if torch.version.cuda is None and not rocm():
        why = "this PyTorch is a build for CPUs only"
        remedy = "if there is a GPU, install a build of PyTorch for CUDA, or for ROCm (AMD)"
    elif os.environ.get(variable) in ("", "-1"):
        why, remedy = f"{variable} hides all GPUs", "unset it to use them"
    elif gpus == 0:
        why = f"no driver of {maker} GPU or no GPU; jobs run on the CPU"
        remedy = (
            "if there is a GPU, install its driver; start a container with "
            f"{_OPEN_GPUS[bool(rocm())]}, a Slurm job with `--gres=gpu:1`"
        )
    elif rocm():
        why = f"PyTorch cannot use the {gpus} AMD GPUs: it needs ROCm with HIP {rocm()}"
        remedy = "install that ROCm, and join the groups `video` and `render`"
    else:
        import pynvml

        version, cuda = pynvml.nvmlSystemGetDriverVersion(), pynvml.nvmlSystemGetCudaDriverVersion()
        why = (
            f"PyTorch cannot use the {gpus} GPUs: driver {version} supports CUDA up to "
            f"{cuda // 1000}.{cuda % 1000 // 10}, this PyTorch needs {torch.version.cuda}"
        )
        remedy = "update the driver, or install a PyTorch built for its CUDA version"
    return Check("machine", "GPU", "note", why, remedy)


def energy(device: Device) -> Iterator[Check]:
    """How the energy of each component would be known for a job on this device."""
    meter = open_meter("auto", device)
    for source in dict.fromkeys(meter.sources.values()):
        parts = " and ".join(c for c in COMPONENTS if meter.sources.get(c) == source)
        if source == "measured":
            yield Check("energy", parts, "ok", f"measured by {meter.method}")
        else:
            text = f"estimated by {meter.method.partition('; not measured')[0]}"
            yield Check("energy", parts, "note", text, cpu_remedy())
    for component, why in meter.notes.items():
        remedy = cpu_remedy() if component == "cpu" else f"see {_GUIDE}"
        yield Check("energy", component, "note", f"not read: {why}", remedy)
    if not meter.sources and not meter.notes:
        yield Check("energy", "sensors", "note", "no sensor found", f"see {_GUIDE}")


def cpu_remedy() -> str:
    """How to let Zeus read the energy counters of the CPU (RAPL)."""
    if sys.platform != "linux":
        return f"counters of CPUs are read on Linux, and of Apple silicon on macOS ({_GUIDE})"
    zones = sorted(_RAPL.glob("intel-rapl:*/energy_uj"))
    if any(not os.access(zone, os.R_OK) for zone in zones):
        return (
            "RAPL is readable by root alone: sudo chmod a+r "
            f"{_RAPL}/intel-rapl:*/energy_uj (until the next start), or run Zeus' daemon ({_GUIDE})"
        )
    if virtual_per_core() is not None:
        return "a virtual machine has no counters; measure on the machine itself"
    if any(path.exists() for path in _CONTAINER):
        return f"start the container with -v {_RAPL}:/zeus_sys/class/powercap:ro ({_GUIDE})"
    return f"load the kernel's module: sudo modprobe intel_rapl_msr ({_GUIDE})"
