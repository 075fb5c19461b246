"""NVIDIA's GPUs, as NVML reports them."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pepr_mlops.process import slurm_gpus

if TYPE_CHECKING:
    import torch

VISIBLE = "CUDA_VISIBLE_DEVICES"
_NONE = ("", "-1", "NoDevFiles")  # the last one is Slurm's


def count() -> int:
    import pynvml

    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0


def slots() -> list[dict[str, str]]:
    """GPUs are numbered by PCI bus as in NVML, or named as in CUDA_VISIBLE_DEVICES."""
    total, visible = count(), os.environ.get(VISIBLE, slurm_gpus())
    if total == 0 or (visible is not None and visible.strip() in _NONE):
        return []
    names = map(str, range(total)) if visible is None else visible.split(",")
    return [{"CUDA_DEVICE_ORDER": "PCI_BUS_ID", VISIBLE: name.strip()} for name in names]


def everything() -> str | None:
    return None


def identify(device: torch.device) -> str:
    import torch

    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


def identify_handle(handle: Any) -> str:
    import pynvml

    return str(pynvml.nvmlDeviceGetUUID(handle))


def check_counter(name: str) -> None:
    import pynvml

    divided = 0
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(name)
    except pynvml.NVMLError as error:
        raise LookupError(f"NVML does not report {name}: {error}") from error
    with suppress(pynvml.NVMLError):  # a GPU that cannot be divided
        divided = pynvml.nvmlDeviceGetMigMode(handle)[0]
    if divided:
        raise LookupError("the GPU is divided by MIG and its counter covers all parts")


def tags(device: torch.device) -> dict[str, str]:
    import pynvml
    import torch

    part = torch.cuda.get_device_name(device).partition(" MIG ")[2]
    found = {"pepr.gpu_uuid": identify(device), "pepr.gpu_mig": part or "off"}
    try:
        handle = _handle(device)
        found["pepr.gpu_driver"] = str(pynvml.nvmlSystemGetDriverVersion())
        limit_w = pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000
        found["pepr.gpu_power_limit_w"] = f"{limit_w:g}"
        if clocks := _clocks(handle):
            found["pepr.gpu_clocks_mhz"] = clocks
    except pynvml.NVMLError as error:
        found["pepr.gpu_nvml"] = f"unavailable: {error}"
    return found


def process_ids(device: torch.device) -> list[int] | None:
    import pynvml

    try:
        handle = _handle(device)
        return [p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)]
    except pynvml.NVMLError:
        return None


def memory_used(device: torch.device) -> int | None:
    import pynvml

    try:
        return int(pynvml.nvmlDeviceGetMemoryInfo(_handle(device)).used)
    except pynvml.NVMLError:
        return None


def temperature_c(device: torch.device) -> float | None:
    import pynvml

    try:
        handle = _handle(device)
        return float(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))
    except pynvml.NVMLError:
        return None


def _handle(device: torch.device) -> Any:
    import pynvml

    pynvml.nvmlInit()
    return pynvml.nvmlDeviceGetHandleByUUID(identify(device))


def _clocks(handle: Any) -> str:
    """The clocks a GPU is set to and can reach, such as `SM 1410 of 1410, memory 1593 of 1593`, as
    far as the driver reports them.

    Applications clocks are what `nvidia-smi -ac` sets; the driver does not report `-lgc`.
    """
    import pynvml

    found = []
    for name, kind in (("SM", pynvml.NVML_CLOCK_SM), ("memory", pynvml.NVML_CLOCK_MEM)):
        values = []
        for read in (pynvml.nvmlDeviceGetApplicationsClock, pynvml.nvmlDeviceGetMaxClockInfo):
            with suppress(pynvml.NVMLError):
                values.append(str(read(handle, kind)))
        if values:
            found.append(f"{name} {' of '.join(values)}")
    return ", ".join(found)
